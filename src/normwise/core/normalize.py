r"""The differentiable pipeline `x -> Moments -> coefficients -> y` as one autograd operation.

A layer supplies `coefficients(moments, *parameters) -> (scale, shift)`: plain torch on small tables, in which it
estimates, standardises and applies its affine. The operation runs the two passes over x around it, saves x and
nothing else of its size, and differentiates: with `S, T` from `reduce_backward`,

.. math::
    \partial scale = T + \mu S, \quad \partial shift = S, \quad
    \partial x = \partial y \cdot scale + 2\,\partial M_2 (x - \mu) + \partial\mu / n

where :math:`\partial\mu, \partial M_2` follow from autograd through the tables. Reference for the plain case:
Ioffe and Szegedy 2015, section 3, the six equations of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.kernels.dispatch import current_backend
from normwise.core.moments import Moments

Tables = tuple[Tensor, Tensor]
Coefficients = Callable[..., Tables]
Activation = Callable[[Tensor], Tensor]


def standardise(
    moments: Moments, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return scale and shift that give mean `bias` and standard deviation `weight` (population variance plus eps)."""
    return affine_of(moments.mean, moments.variance, weight, bias, eps=eps)


def affine_of(
    mean: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float
) -> Tables:
    """Return scale and shift of `(x - mean) / sqrt(variance + eps) * weight + bias`."""
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, (shift if bias is None else shift + bias)


def normalize(
    x: Float[Tensor, "n c l"],
    cells: Cells,
    coefficients: Coefficients,
    *parameters: Tensor | None,
    residual: Float[Tensor, "n c l"] | None = None,
    activation: Activation | None = None,
) -> tuple[Float[Tensor, "n c l"], Moments]:
    """Measure x, ask for coefficients, apply them; return the output and the (detached) moments.

    x: `(n, c, l)`, any floating dtype. coefficients: `(moments, *parameters) -> (scale, shift)`, tables that broadcast
    to `(g, c)`. residual: added before the activation. activation: elementwise, a pure function without parameters:
    the backward pass computes it again, and keeps nothing for it.
    Gradients flow through the statistics. Second derivatives are right (taken through the composite operators).
    """
    if _is_traced():
        moments = reference.reduce(x, cells)
        return _composite(x, cells, coefficients(moments, *parameters), residual, activation), moments.detach()
    with torch.no_grad():
        moments = current_backend(x).reduce(x, cells)
    return _Normalize.apply(x, residual, moments, cells, coefficients, activation, None, *parameters), moments  # type: ignore[no-any-return]


def transform(
    x: Float[Tensor, "n c l"],
    cells: Cells,
    coefficients: Coefficients,
    *parameters: Tensor | None,
    residual: Float[Tensor, "n c l"] | None = None,
    activation: Activation | None = None,
    centre: Float[Tensor, "g c"] | None = None,
) -> Float[Tensor, "n c l"]:
    """Do the same with given statistics: `coefficients(*parameters) -> (scale, shift)` knows nothing of x.

    centre: about which the backward pass sums; what is near the means of x keeps gradients of the tables exact where
    x lies far from 0, the default.
    """
    if _is_traced():
        return _composite(x, cells, coefficients(*parameters), residual, activation)
    return _Normalize.apply(x, residual, None, cells, coefficients, activation, centre, *parameters)  # type: ignore[no-any-return]


def _is_traced() -> bool:
    """Return whether `torch.compile` or `torch.func` needs to see operators: an operation of our own hides them."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()  # pyright: ignore


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        moments: Moments | None,
        cells: Cells,
        coefficients: Coefficients,
        activation: Activation | None,
        centre: Tensor | None,
        *parameters: Tensor | None,
    ) -> Tensor:
        with torch.enable_grad():
            leaves = [p if p is None else p.detach().requires_grad_(p.requires_grad) for p in parameters]
            statistics: list[Tensor] = []
            if moments is not None:
                statistics = [moments.mean.detach().requires_grad_(), moments.m2.detach().requires_grad_()]
            measured = () if moments is None else (Moments(moments.count, *statistics),)
            tables = [t.expand(cells.count, x.shape[1]) for t in coefficients(*measured, *leaves)]
        rectify = activation is functional.relu
        scale, shift = (table.detach() for table in tables)
        y = current_backend(x).apply(x, scale, shift, cells, residual, rectify)
        y = y if activation is None or rectify else activation(y)
        kept = None if activation is None or residual is None else y if rectify else residual
        ctx.save_for_backward(x, kept, *parameters)
        ctx.cells, ctx.coefficients, ctx.activation = cells, coefficients, activation
        ctx.count = None if moments is None else moments.count
        ctx.tables, ctx.centre = (tables, statistics, leaves), centre
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kept, *parameters = ctx.saved_tensors
        activation: Activation | None = ctx.activation
        if activation is functional.relu and kept is not None:
            dy, kept, activation = torch.ops.aten.threshold_backward(dy, kept, 0), None, None  # as torch's own relu
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, dy, x, kept, activation, parameters)
        cells: Cells = ctx.cells
        backend = current_backend(x)
        tables, statistics, leaves = ctx.tables
        scale, shift = (table.detach() for table in tables)
        gate = (scale, shift) if activation is functional.relu else None
        if activation is not None and gate is None:
            dy = _pull_back(activation, backend.apply(x, scale, shift, cells, kept), dy)
        wanted = [*statistics, *(leaf for leaf in leaves if leaf is not None and leaf.requires_grad)]
        gradients: list[Tensor] = []
        if wanted:
            centre = statistics[0] if statistics else torch.zeros_like(scale) if ctx.centre is None else ctx.centre
            centre = centre.detach().expand_as(scale)
            total, product = backend.reduce_backward(dy, x, centre, cells, gate)
            gradients = _through_tables(tables, (product + centre * total, total), wanted)
        slope = constant = torch.zeros_like(scale)
        if statistics:
            slope = 2 * gradients[1]
            constant = gradients[0] / ctx.count.clamp_min(1) - slope * statistics[0].detach()
        found = iter(gradients[len(statistics) :])
        d_parameters = [None if leaf is None or not leaf.requires_grad else next(found) for leaf in leaves]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = backend.apply_backward(dy, x, scale, slope, constant, cells, gate)
        return dx, _of_residual(ctx, dy), None, None, None, None, None, *d_parameters


def _through_tables(tables: list[Tensor], gradients: Tables, wanted: list[Tensor]) -> list[Tensor]:
    """Return the gradients of what the two tables were made from."""
    pairs = [(t, g.to(t.dtype)) for t, g in zip(tables, gradients, strict=True) if t.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in wanted]
    outputs, upstream = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(outputs, wanted, upstream, retain_graph=True, allow_unused=True, materialize_grads=True)
    )


def _pull_back(activation: Activation, z: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient at the activation's input."""
    with torch.enable_grad():
        z.requires_grad_()
        return torch.autograd.grad(activation(z), z, dy)[0]


def _of_residual(ctx: Any, dz: Tensor) -> Tensor | None:
    """Return the residual's gradient: what arrives before the addition, at valid positions."""
    mask = ctx.cells.mask
    if not ctx.needs_input_grad[1]:
        return None
    return dz if mask is None else torch.where(mask.unsqueeze(1), dz, dz.new_zeros(()))


def _composite(
    x: Tensor, cells: Cells, tables: Tables, residual: Tensor | None, activation: Activation | None
) -> Tensor:
    """Return the output through operators autograd knows."""
    scale, shift = (table.expand(cells.count, x.shape[1]) for table in tables)
    y = reference.apply(x, scale, shift, cells, residual)
    return y if activation is None else activation(y)


def _differentiable_backward(
    ctx: Any, dy: Tensor, x: Tensor, residual: Tensor | None, activation: Activation | None, parameters: Sequence[Any]
) -> tuple[Tensor | None, ...]:
    """Differentiate the composite operators instead, so that the result can be differentiated again."""
    inputs = [x, residual, *parameters]
    needed = [*ctx.needs_input_grad[:2], *ctx.needs_input_grad[7:]]
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if tensor is not None and need]
    with torch.enable_grad():
        moments = () if ctx.count is None else (reference.reduce(x, ctx.cells),)
        y = _composite(x, ctx.cells, ctx.coefficients(*moments, *parameters), residual, activation)
        gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    result = [
        next(gradients) if tensor is not None and need else None for tensor, need in zip(inputs, needed, strict=True)
    ]
    d_residual = result[1] if residual is not None else _of_residual(ctx, dy)
    return result[0], d_residual, None, None, None, None, None, *result[2:]
