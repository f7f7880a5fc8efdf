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

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.kernels.dispatch import current_backend
from normwise.core.moments import Moments

Coefficients = Callable[..., tuple[Tensor, Tensor]]


def standardise(
    moments: Moments, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return scale and shift that give mean `bias` and standard deviation `weight` (population variance plus eps)."""
    return affine_of(moments.mean, moments.variance, weight, bias, eps=eps)


def affine_of(
    mean: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float
) -> tuple[Tensor, Tensor]:
    """Return scale and shift of `(x - mean) / sqrt(variance + eps) * weight + bias`."""
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, (shift if bias is None else shift + bias)


def normalize(
    x: Float[Tensor, "n c l"], cells: Cells, coefficients: Coefficients, *parameters: Tensor | None
) -> tuple[Float[Tensor, "n c l"], Moments]:
    """Measure x, ask for coefficients, apply them; return the output and the (detached) moments.

    x: `(n, c, l)`, any floating dtype. coefficients: `(moments, *parameters) -> (scale, shift)`, tables `(g, c)`.
    Gradients flow through the statistics. Second derivatives are right (taken through the composite operators).
    """
    if torch.compiler.is_compiling():
        moments = reference.reduce(x, cells)
        return _composite(x, moments, cells, coefficients, parameters), moments.detach()
    with torch.no_grad():
        moments = current_backend(x).reduce(x, cells)
    return _Normalize.apply(x, moments, cells, coefficients, *parameters), moments  # type: ignore[no-any-return]


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, moments: Moments, cells: Cells, coefficients: Coefficients, *parameters: Tensor | None
    ) -> Tensor:
        with torch.enable_grad():
            mean = moments.mean.detach().requires_grad_()
            m2 = moments.m2.detach().requires_grad_()
            leaves = [p if p is None else p.detach().requires_grad_(p.requires_grad) for p in parameters]
            scale, shift = coefficients(Moments(moments.count, mean, m2), *leaves)
        ctx.save_for_backward(x, *parameters)
        ctx.cells, ctx.coefficients, ctx.count = cells, coefficients, moments.count
        ctx.tables = (scale, shift, mean, m2, leaves)
        return current_backend(x).apply(x, scale.detach(), shift.detach(), cells)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, dy, x, parameters)
        cells: Cells = ctx.cells
        scale, shift, mean, m2, leaves = ctx.tables
        backend = current_backend(x)
        total, product = backend.reduce_backward(dy, x, mean.detach(), cells)
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        gradients = torch.autograd.grad(
            (scale, shift),
            [mean, m2, *wanted],
            ((product + mean.detach() * total).to(scale.dtype), total.to(shift.dtype)),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        d_mean, d_m2 = gradients[:2]
        found = iter(gradients[2:])
        d_parameters = [None if leaf is None or not leaf.requires_grad else next(found) for leaf in leaves]
        dx = None
        if ctx.needs_input_grad[0]:
            slope = 2 * d_m2
            constant = d_mean / ctx.count.clamp_min(1) - slope * mean.detach()
            dx = backend.apply_backward(dy, x, scale.detach(), slope, constant, cells)
        return dx, None, None, None, *d_parameters


def _composite(
    x: Tensor, moments: Moments, cells: Cells, coefficients: Coefficients, parameters: Sequence[Tensor | None]
) -> Tensor:
    """Return the output through operators autograd knows."""
    scale, shift = coefficients(moments, *parameters)
    return reference.apply(x, scale, shift, cells)


def _differentiable_backward(
    ctx: Any, dy: Tensor, x: Tensor, parameters: list[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Differentiate the composite operators instead, so that the result can be differentiated again."""
    inputs = [x, *parameters]
    needed = [ctx.needs_input_grad[0], *ctx.needs_input_grad[4:]]
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if tensor is not None and need]
    with torch.enable_grad():
        y = _composite(x, reference.reduce(x, ctx.cells), ctx.cells, ctx.coefficients, parameters)
        gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    result = [
        next(gradients) if tensor is not None and need else None for tensor, need in zip(inputs, needed, strict=True)
    ]
    return result[0], None, None, None, *result[1:]
