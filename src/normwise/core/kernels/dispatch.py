"""Which backend computes: chosen by device, dtype and layout, or fixed for a block of code."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.moments import Moments
from normwise.errors import one_of


@runtime_checkable
class Backend(Protocol):
    """The kernel contract; see the package's docstring for the four equations."""

    def reduce(self, x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
        """Measure the moments of every cell."""
        ...

    def apply(
        self, x: Float[Tensor, "n c l"], scale: Float[Tensor, "g c"], shift: Float[Tensor, "g c"], cells: Cells
    ) -> Float[Tensor, "n c l"]:
        """Scale and shift by cell."""
        ...

    def reduce_backward(
        self, dy: Float[Tensor, "n c l"], x: Float[Tensor, "n c l"], mean: Float[Tensor, "g c"], cells: Cells
    ) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
        """Sum the gradient, and the gradient times the centred input."""
        ...

    def apply_backward(
        self,
        dy: Float[Tensor, "n c l"],
        x: Float[Tensor, "n c l"],
        a: Float[Tensor, "g c"],
        b: Float[Tensor, "g c"],
        d: Float[Tensor, "g c"],
        cells: Cells,
    ) -> Float[Tensor, "n c l"]:
        """Return `dy * a + x * b + d` by cell."""
        ...


_BACKENDS: dict[str, Backend] = {"reference": cast("Backend", reference)}
_NAMES = ("auto", "native", *_BACKENDS)
_choice: ContextVar[str] = ContextVar("normwise_backend", default="auto")


@contextmanager
def use_backend(name: str) -> Generator[None]:
    """Fix the backend inside a `with` block: "auto", "native" (torch's own operators) or "reference".

    Raises `UsageError` for another name. Local to the thread and the async task.
    """
    if name not in _NAMES:
        raise one_of("backend", name, _NAMES)
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


def current_backend(x: Tensor) -> Backend:
    """Return the backend for this tensor; while `torch.compile` traces, the one made of operators it knows."""
    if torch.compiler.is_compiling():
        return _BACKENDS["reference"]
    return _BACKENDS.get(_choice.get(), _BACKENDS["reference"])


def prefers_native(x: Tensor) -> bool:
    """Return whether a plain batch normalization of this tensor should use torch's own operator.

    The reference backend costs about three times torch's, so today the answer is yes unless a block says otherwise.
    `torch.compile` cannot see what a block says: there it is yes.
    """
    return torch.compiler.is_compiling() or _choice.get() in ("auto", "native")
