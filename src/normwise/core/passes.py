"""One call's way over x and back: which kernels run, and how gradients go through scale and shift.

A standardisation has its derivative in closed form, and is fused where a backend can; any other coefficients are
differentiated by autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels.dispatch import Backend, Fusing, current_backend
from normwise.core.moments import Moments
from normwise.core.standardise import Standardise, Tables

Coefficients = Callable[..., Tables]
Parameters = Sequence[Tensor | None]
Gradients = list[Tensor | None]


class Pass(ABC):
    """Abstract: forward once, then backward as often as it is asked for.

    moments: those of x, or the known ones, once forward has run. Nothing here is part of a graph.
    """

    moments: Moments | None

    @abstractmethod
    def forward(self, x: Float[Tensor, "n c l"], residual: Float[Tensor, "n c l"] | None, rectify: bool) -> Tensor:
        """Return `x * scale + shift`, plus the residual, rectified."""

    @property
    @abstractmethod
    def tables(self) -> Tables:
        """Return scale and shift that x was transformed by, `(g, c)` or `(1, c)`, once forward has run."""

    @abstractmethod
    def backward(
        self, dy: Float[Tensor, "n c l"], x: Float[Tensor, "n c l"], *, rectified: bool, wants_dx: bool
    ) -> tuple[Tensor | None, Gradients]:
        """Return the gradients of x and of the parameters; rectified: dy has yet to go back through that."""


@dataclass(eq=False)
class Call:
    """What a pass is made of.

    moments: given, and constants; None where there are none, or where x is to be measured and gradients flow through
    what is found, which is kept here once a pass has run. centre: what x is near, where there are no moments to tell.
    """

    cells: Cells
    coefficients: Coefficients
    moments: Moments | None = None
    measured: bool = False
    centre: Tensor | None = None

    def choose(self, x: Float[Tensor, "n c l"], parameters: Parameters) -> Pass:
        """Return the best way for this tensor."""
        backend = current_backend(x)
        form = self.coefficients
        if self.measured and isinstance(form, Standardise) and backend.fuses(x, self.cells):
            if not (form.pooled and self.cells.steps):
                return Fused(self, form, cast("Fusing", backend), parameters)
        return Stepwise(self, backend, parameters)


@final
class Fused(Pass):
    """A standardisation by what is measured, in one go forward and one back."""

    def __init__(self, call: Call, form: Standardise, backend: Fusing, parameters: Parameters) -> None:
        """See `Call`."""
        self._parameters = parameters
        self._standardisation = backend.Standardisation(
            call.cells, _affine(parameters), eps=form.eps, pooled=form.pooled
        )

    def forward(self, x: Tensor, residual: Tensor | None, rectify: bool) -> Tensor:
        """Return the output."""
        y = self._standardisation.forward(x, residual, rectify)
        self.moments = self._standardisation.moments
        return y

    @property
    def tables(self) -> Tables:
        """Return scale and shift."""
        return self._standardisation.tables

    def backward(self, dy: Tensor, x: Tensor, *, rectified: bool, wants_dx: bool) -> tuple[Tensor | None, Gradients]:
        """Return the gradients."""
        dx, affine = self._standardisation.backward(dy, x, rectified=rectified)
        return dx if wants_dx else None, _wanted(affine, self._parameters)


@final
class Stepwise(Pass):
    """Kernel after kernel."""

    def __init__(self, call: Call, backend: Backend, parameters: Parameters) -> None:
        """See `Call`."""
        self._call, self._backend, self._parameters, self.moments = call, backend, parameters, call.moments

    def forward(self, x: Tensor, residual: Tensor | None, rectify: bool) -> Tensor:
        """Return the output."""
        call = self._call
        if call.measured:
            self.moments = self._backend.reduce(x, call.cells)
        self._derived = self._derive()
        shape = call.cells.count, x.shape[1]
        self._scale, self._shift = (table.expand(shape) for table in (self._derived.scale, self._derived.shift))
        return self._backend.apply(x, self._scale, self._shift, call.cells, residual, rectify)

    @property
    def tables(self) -> Tables:
        """Return scale and shift."""
        return self._scale, self._shift

    def backward(self, dy: Tensor, x: Tensor, *, rectified: bool, wants_dx: bool) -> tuple[Tensor | None, Gradients]:
        """Return the gradients."""
        backend, cells, derived = self._backend, self._call.cells, self._derived
        gate = self.tables if rectified else None
        gradients: Gradients = [None] * len(self._parameters)
        slope = constant = torch.zeros_like(self._scale)
        if derived.needs_sums:
            sums = backend.reduce_backward(dy, x, derived.centre.expand_as(self._scale), cells, gate)
            gradients, line = derived.pull_back(*sums)
            slope, constant = (slope, constant) if line is None else (table.expand_as(slope) for table in line)
        if not wants_dx:
            return None, gradients
        return backend.apply_backward(dy, x, self._scale, slope, constant, cells, gate), gradients

    def _derive(self) -> _Derived:
        form, measured = self._call.coefficients, self._call.measured
        if isinstance(form, Standardise) and self.moments is not None:
            return _ClosedForm(form, self.moments, measured, self._backend, self._parameters)
        return _Graph(self._call, self.moments, self._parameters)


class _Derived(ABC):
    """Abstract: scale and shift, and the way of gradients back through them.

    centre: about which sums over x are taken on the way back.
    """

    scale: Float[Tensor, "... c"]
    shift: Float[Tensor, "... c"]
    centre: Float[Tensor, "... c"]
    needs_sums: bool

    @abstractmethod
    def pull_back(self, total: Float[Tensor, "g c"], product: Float[Tensor, "g c"]) -> tuple[Gradients, Tables | None]:
        """Return the gradients of the parameters, and slope and constant of what reaches x through its moments.

        total, product: of the output's gradient, and of it times `x - centre`. None where x is not measured.
        """


@final
class _ClosedForm(_Derived):
    """Of a standardisation."""

    def __init__(
        self, form: Standardise, moments: Moments, measured: bool, backend: Backend, parameters: Parameters
    ) -> None:
        self._eps, self._measured, self._backend, self._parameters = form.eps, measured, backend, parameters
        self._moments, self._affine = form.statistics(moments), _affine(parameters)
        self.centre = self._moments.mean
        self.needs_sums = measured or any(p is not None and p.requires_grad for p in parameters)
        self.scale, self.shift = backend.standardise(self._moments, *self._affine, eps=form.eps)

    def pull_back(self, total: Tensor, product: Tensor) -> tuple[Gradients, Tables | None]:
        affine, line = self._backend.pull_back(total, product, self._moments, *self._affine, eps=self._eps)
        return _wanted(affine, self._parameters), line if self._measured else None


@final
class _Graph(_Derived):
    """Of any coefficients, which autograd differentiates."""

    def __init__(self, call: Call, moments: Moments | None, parameters: Parameters) -> None:
        with torch.enable_grad():
            self._leaves = [p if p is None else p.detach().requires_grad_(p.requires_grad) for p in parameters]
            self._statistics: list[Tensor] = []
            if moments is not None and call.measured:
                self._statistics = [moments.mean.detach().requires_grad_(), moments.m2.detach().requires_grad_()]
                moments = Moments(moments.count, *self._statistics)
            self._tables = call.coefficients(*(() if moments is None else (moments,)), *self._leaves)
        self.scale, self.shift = (table.detach() for table in self._tables)
        self._count = self.scale.new_ones(()) if moments is None else moments.count
        middle = call.centre if moments is None else moments.mean
        self.centre = torch.zeros_like(self.scale) if middle is None else middle.detach()
        self._wanted = [*self._statistics, *(p for p in self._leaves if p is not None and p.requires_grad)]
        self.needs_sums = bool(self._wanted)

    def pull_back(self, total: Tensor, product: Tensor) -> tuple[Gradients, Tables | None]:
        gradients = (product + self.centre * total, total)
        pairs = [
            (table, gradient.to(table.dtype).sum_to_size(table.shape))
            for table, gradient in zip(self._tables, gradients, strict=True)
            if table.requires_grad
        ]
        found: Sequence[Tensor] = [torch.zeros_like(tensor) for tensor in self._wanted]
        if pairs:
            outputs, upstream = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                outputs, self._wanted, upstream, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        mine = iter(found[len(self._statistics) :])
        parameters = [None if leaf is None or not leaf.requires_grad else next(mine) for leaf in self._leaves]
        if not self._statistics:
            return parameters, None
        slope = 2 * found[1]
        return parameters, (slope, found[0] / self._count.clamp_min(1) - slope * self.centre)


def _affine(parameters: Parameters) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return weight, bias and share, as they are given or None."""
    weight, bias, share = (None if p is None else p.detach() for p in (*parameters, None, None, None)[:3])
    return weight, bias, share


def _wanted(gradients: Gradients, parameters: Parameters) -> Gradients:
    return [
        gradient if parameter is not None and parameter.requires_grad else None
        for gradient, parameter in zip(gradients, parameters, strict=False)
    ]
