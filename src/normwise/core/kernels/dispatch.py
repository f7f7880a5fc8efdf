"""Which backend computes: chosen by device, dtype, layout and size, or fixed for a block of code."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.moments import Moments
from normwise.errors import one_of

Gate = tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]
Affine = tuple[Float[Tensor, "... c"] | None, Float[Tensor, "... c"] | None, Float[Tensor, "... c"] | None]


@runtime_checkable
class Backend(Protocol):
    """The kernel contract; see the package's docstring for the equations."""

    def supports(self, x: Tensor) -> bool:
        """Return whether the backend takes this device, dtype and size."""
        ...

    def reduce(self, x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
        """Measure the moments of every cell."""
        ...

    def apply(
        self,
        x: Float[Tensor, "n c l"],
        scale: Float[Tensor, "g c"],
        shift: Float[Tensor, "g c"],
        cells: Cells,
        residual: Float[Tensor, "n c l"] | None = None,
        rectify: bool = False,
    ) -> Float[Tensor, "n c l"]:
        """Scale and shift by cell, add a residual, rectify."""
        ...

    def reduce_backward(
        self,
        dy: Float[Tensor, "n c l"],
        x: Float[Tensor, "n c l"],
        mean: Float[Tensor, "g c"],
        cells: Cells,
        gate: Gate | None = None,
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
        gate: Gate | None = None,
    ) -> Float[Tensor, "n c l"]:
        """Return `dy * a + x * b + d` by cell."""
        ...

    def standardise(
        self,
        moments: Moments,
        weight: Float[Tensor, "... c"] | None,
        bias: Float[Tensor, "... c"] | None,
        share: Float[Tensor, "... c"] | None,
        *,
        eps: float,
    ) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
        """Return scale and shift."""
        ...

    def pull_back(
        self,
        total: Float[Tensor, "g c"],
        product: Float[Tensor, "g c"],
        moments: Moments,
        weight: Float[Tensor, "... c"] | None,
        bias: Float[Tensor, "... c"] | None,
        share: Float[Tensor, "... c"] | None,
        *,
        eps: float,
    ) -> tuple[list[Tensor | None], tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]]:
        """Return the gradients of the affine, and slope and constant of what reaches x through its moments."""
        ...

    def follow(
        self,
        running_mean: Float[Tensor, "... c"],
        running_var: Float[Tensor, "... c"],
        batch: Moments,
        momentum: float | Tensor,
        *,
        exact: bool,
    ) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
        """Return running mean and variance after a batch, as they are where it has fewer than two values."""
        ...

    def fuses(self, x: Float[Tensor, "n c l"], cells: Cells) -> bool:
        """Return whether the backend does a standardisation of this tensor in one go, and so is `Fusing`."""
        ...


class Standardisation(Protocol):
    """One pass over a tensor, forward and then back; moments: those that were taken, once forward has run."""

    moments: Moments

    def __init__(self, cells: Cells, affine: Affine, *, eps: float, pooled: bool = False) -> None:
        """Take weight, bias and share; pooled: by one statistic for all cells."""
        ...

    def forward(
        self, x: Float[Tensor, "n c l"], residual: Float[Tensor, "n c l"] | None, rectify: bool
    ) -> Float[Tensor, "n c l"]:
        """Measure x, standardise it, add the residual, rectify."""
        ...

    @property
    def tables(self) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
        """Return scale and shift, `(g, c)` or `(1, c)`."""
        ...

    def backward(
        self, dy: Float[Tensor, "n c l"], x: Float[Tensor, "n c l"], *, rectified: bool
    ) -> tuple[Float[Tensor, "n c l"], list[Tensor | None]]:
        """Return the gradients of x and of weight, bias and share; rectified: dy has yet to go back through that."""
        ...


@runtime_checkable
class Fusing(Backend, Protocol):
    """A backend that can measure, standardise and apply in one go, and come back in one."""

    Standardisation: type[Standardisation]


_OF_DEVICE = {"cpu": "cpu", "cuda": "cuda"}
_NEEDS = {"cpu": "numba", "cuda": "triton"}
_NAMES = ("auto", "native", "reference", *_NEEDS)
_choice: ContextVar[str] = ContextVar("normwise_backend", default="auto")
_SMALL = 1 << 18  # values below which the fixed cost of our own operation outweighs torch's slower loops


@contextmanager
def use_backend(name: str) -> Generator[None]:
    """Fix the backend inside a `with` block.

    name: "auto"; "native", torch's own operators where they do the job; "reference", torch operators throughout;
    "cpu", compiled loops; "cuda", triton. A tensor that the named one does not take goes to "reference".
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
    plain = cast("Backend", reference)
    if torch.compiler.is_compiling():
        return plain
    choice = _choice.get()
    if choice == "reference":
        return plain
    backend = _load(choice if choice in _NEEDS else _OF_DEVICE.get(x.device.type))
    return backend if backend is not None and backend.supports(x) else plain


def prefers_native(x: Tensor, *, fused: bool = False) -> bool:
    """Return whether a plain batch normalization of this tensor should use torch's own operators.

    Torch's is the better one for small tensors and half precision, on the GPU, and for channels-last memory and rows,
    which it reads in one pass. fused: ours does more in its pass, and is the better one for those two. `torch.compile`
    cannot see what a block says: there the answer is yes.
    """
    if torch.compiler.is_compiling():
        return True
    choice = _choice.get()
    if choice != "auto":
        return choice == "native"
    whole = x.dtype in (torch.float32, torch.float64)
    if x.device.type != "cpu" or not whole or x.numel() < _SMALL or current_backend(x) is reference:
        return True
    in_planes = x.is_contiguous() and x.numel() > x.shape[0] * x.shape[1]
    return not (fused or in_planes)


_loaded: dict[str, Any] = {}


def _load(name: str | None) -> Backend | None:
    """Return a backend by name, imported when first needed; None where its package is missing."""
    if name is None:
        return None
    if name not in _loaded:
        there = find_spec(_NEEDS[name]) is not None
        _loaded[name] = importlib.import_module(f"normwise.core.kernels.{name}") if there else None
    return _loaded[name]
