"""On which backend and device a test of the suite runs, and how much of it.

Where there is no GPU, Triton's interpreter runs the kernels of the `cuda` backend on the CPU, a thousand times slower:
fewer shapes and repetitions there, and only what reaches the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance.case import LayerCase, Side
from conformance.tables import randomise
from normwise.core.kernels import use_backend

GPU = torch.cuda.is_available()
BACKENDS = ("native", "reference", "cpu", "cuda")
COMPILED = BACKENDS if GPU else BACKENDS[:-1]  # the interpreter left out
_SHAPES_INTERPRETED = 2


def only_if(applies: Callable[[LayerCase], bool]) -> Callable[[Any], Any]:
    """Leave a test out of the suites of layers it says nothing about."""

    def mark(test: Any) -> Any:
        test.applies = applies
        return test

    return mark


def on_cpu(side: Side) -> Side:
    """Side information as the oracles read it."""
    return tuple(part.cpu() if isinstance(part, Tensor) else part for part in side)


class OnBackends:
    """What all parts of the suite share: a layer and inputs to it, on one backend after the other."""

    case: LayerCase
    backend_name = "native"

    @pytest.fixture(autouse=True, params=BACKENDS)
    def backend(self, request):
        with self.running_on(request.param):
            yield request.param

    def running_on(self, name: str) -> ExitStack:
        """A context in which layers run on this backend, new tensors are where it wants them."""
        self.backend_name, contexts = name, ExitStack()
        contexts.enter_context(use_backend(name))
        if self.interpreted:
            contexts.enter_context(np.errstate(all="ignore"))  # the interpreter computes with numpy
        elif name == "cuda":
            contexts.enter_context(torch.device("cuda"))
        return contexts

    @property
    def interpreted(self) -> bool:
        """Whether kernels are interpreted."""
        return self.backend_name == "cuda" and not GPU

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The case's shapes of inputs, as many as the backend's speed allows."""
        return self.case.shapes[:_SHAPES_INTERPRETED] if self.interpreted else self.case.shapes

    def make(
        self,
        channels: int,
        *,
        dtype: torch.dtype = torch.float64,
        momentum: float | None = 0.1,
        create: Callable[..., nn.Module] | None = None,
    ) -> nn.Module:
        """A layer whose tables hold values that could not be there by default."""
        options = {"momentum": momentum} if self.case.running else {}
        layer = (create or self.case.create)(channels, dtype=dtype, **options)
        return randomise(layer)

    def inputs(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Side]:
        """Random values, and the case's side information."""
        x = torch.randn(shape, dtype=dtype) * 2 + 0.5
        return x, self.case.side(x)

    def groups(self, x: Tensor, side: Side) -> Tensor:
        """The group of each value of x."""
        return self.case.groups(x.detach().cpu(), on_cpu(side)).to(x.device).expand_as(x)

    def oracle(self, x: Tensor, side: Side, state: Any, momentum: Any = 0.1) -> tuple[np.ndarray, Any]:
        """The case's oracle of one training step."""
        return self.case.oracle(x.detach().double().cpu().numpy(), on_cpu(side), state, momentum)
