"""A backward pass with one of its terms missing: what the suite must notice.

`dx = dy * a + x * b + d` has three terms, each of which can be left out, and so can each of the two sums, `S` and `T`,
that weights, biases and the other two terms come from.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

TERMS = ("dy", "x", "constant", "S", "T")


@contextmanager
def without_term(backend: str, term: str) -> Generator[list[str]]:
    """Leave a term out of a backend's backward pass; gives the list of its functions that were called without one."""
    kernels, called = importlib.import_module(f"normwise.core.kernels.{backend}"), []
    project, combine = kernels.reduce_backward, kernels.apply_backward

    def reduce_backward(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        called.append("reduce_backward")
        sums = project(*arguments, **options)
        left_out = {"S": 0, "T": 1}.get(term)
        return tuple(torch.zeros_like(table) if i == left_out else table for i, table in enumerate(sums))

    def apply_backward(dy: Tensor, x: Tensor, *tables_and_cells: Any) -> Tensor:
        called.append("apply_backward")
        left_out = {"dy": 0, "x": 1, "constant": 2}.get(term)
        parts = [torch.zeros_like(p) if i == left_out else p for i, p in enumerate(tables_and_cells)]
        return combine(dy, x, *parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "reduce_backward", reduce_backward)
        patch.setattr(kernels, "apply_backward", apply_backward)
        if hasattr(kernels, "fuses"):  # the same terms in one function would hide from both
            patch.setattr(kernels, "fuses", lambda *_: False)
        yield called
