r"""The differentiable pipeline `x -> Moments -> coefficients -> y` as one autograd operation.

A layer supplies `coefficients(moments, *parameters) -> (scale, shift)`: plain torch on small tables, in which it
estimates, standardises and applies its affine. The operation runs the two passes over x around it, saves x and
nothing else of its size, and differentiates: with `S, T` from `reduce_backward`,

.. math::
    \partial scale = T + \mu S, \quad \partial shift = S, \quad
    \partial x = \partial y \cdot scale + 2\,\partial M_2 (x - \mu) + \partial\mu / n

where :math:`\partial\mu, \partial M_2` follow through the tables: in closed form or by autograd (`core.passes`).
Reference for the plain case: Ioffe and Szegedy 2015, section 3, the six equations of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.kernels.dispatch import current_backend
from normwise.core.moments import Moments
from normwise.core.passes import Call, Coefficients, Pass
from normwise.core.standardise import Tables

Activation = Callable[[Tensor], Tensor]


def normalize(
    x: Float[Tensor, "n c l"],
    cells: Cells,
    coefficients: Coefficients,
    *parameters: Tensor | None,
    known: Moments | None = None,
    residual: Float[Tensor, "n c l"] | None = None,
    activation: Activation | None = None,
) -> tuple[Float[Tensor, "n c l"], Moments]:
    """Measure x, ask for coefficients, apply them; return the output and the (detached) moments.

    x: `(n, c, l)`, any floating dtype. coefficients: `(moments, *parameters) -> (scale, shift)`, tables that broadcast
    to `(g, c)`; the derivative of a `Standardise` is known, others are left to autograd. known: moments to take instead
    of those of x, tables `(g, c)` or `(1, c)`; they are constants. residual: added before the activation. activation:
    elementwise, a pure function without parameters: the backward pass computes it again, and keeps nothing for it.
    Gradients flow through measured statistics. Second derivatives are right (taken through the composite operators).
    """
    if _is_traced():
        moments = reference.reduce(x, cells) if known is None else known
        return _composite(x, cells, coefficients(moments, *parameters), residual, activation), moments.detach()
    call = Call(cells, coefficients, known, measured=known is None)
    y = cast("Tensor", _Normalize.apply(x, residual, call, activation, *parameters))  # pyright: ignore
    assert call.moments is not None  # known, or measured by now
    return y, call.moments


def transform(
    x: Float[Tensor, "n c l"],
    cells: Cells,
    coefficients: Coefficients,
    *parameters: Tensor | None,
    residual: Float[Tensor, "n c l"] | None = None,
    activation: Activation | None = None,
    centre: Float[Tensor, "g c"] | None = None,
) -> Float[Tensor, "n c l"]:
    """Do the same without any statistics: `coefficients(*parameters) -> (scale, shift)` knows nothing of x.

    centre: about which the backward pass sums; what is near the means of x keeps gradients of the tables exact where
    x lies far from 0, the default.
    """
    if _is_traced():
        return _composite(x, cells, coefficients(*parameters), residual, activation)
    call = Call(cells, coefficients, centre=centre)
    return _Normalize.apply(x, residual, call, activation, *parameters)  # type: ignore[no-any-return]


@torch.no_grad()
def measure(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Return the moments of every cell of x, outside any graph."""
    return current_backend(x).reduce(x, cells)


def _is_batched(dy: Tensor) -> bool:
    """Return whether this is a batch of gradients, which only operators that torch knows can work on."""
    return torch._C._functorch.is_legacy_batchedtensor(dy)  # pyright: ignore


def _is_traced() -> bool:
    """Return whether `torch.compile` or `torch.func` needs to see operators: an operation of our own hides them."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()  # pyright: ignore


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        call: Call,
        activation: Activation | None,
        *parameters: Tensor | None,
    ) -> Tensor:
        way = call.choose(x, parameters)
        rectify = activation is functional.relu
        y = way.forward(x, residual, rectify)
        call.moments = way.moments
        y = y if activation is None or rectify else activation(y)
        kept = None if activation is None or residual is None else y if rectify else residual
        ctx.save_for_backward(x, kept, *parameters)
        ctx.call, ctx.way, ctx.activation = call, way, activation
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kept, *parameters = ctx.saved_tensors
        call: Call = ctx.call
        way: Pass = ctx.way
        activation: Activation | None = ctx.activation
        if activation is functional.relu and kept is not None:
            dy, kept, activation = torch.ops.aten.threshold_backward(dy, kept, 0), None, None  # as torch's own relu
        if torch.is_grad_enabled() or _is_batched(dy):
            return _differentiable_backward(ctx, dy, x, kept, activation, parameters)
        rectified = activation is functional.relu
        if activation is not None and not rectified:
            z = current_backend(x).apply(x, *way.tables, call.cells, kept)
            dy = _pull_back(activation, z, dy)
        dx, gradients = way.backward(dy, x, rectified=rectified, wants_dx=ctx.needs_input_grad[0])
        return dx, _of_residual(ctx, dy), None, None, *gradients


def _pull_back(activation: Activation, z: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient at the activation's input."""
    with torch.enable_grad():
        z.requires_grad_()
        return torch.autograd.grad(activation(z), z, dy)[0]


def _of_residual(ctx: Any, dz: Tensor) -> Tensor | None:
    """Return the residual's gradient: what arrives before the addition, at valid positions."""
    mask = ctx.call.cells.mask
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
    needed = [*ctx.needs_input_grad[:2], *ctx.needs_input_grad[4:]]
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if tensor is not None and need]
    with torch.enable_grad():
        call: Call = ctx.call
        moments = reference.reduce(x, call.cells) if call.measured else call.moments
        tables = call.coefficients(*(() if moments is None else (moments,)), *parameters)
        y = _composite(x, call.cells, tables, residual, activation)
        gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    result = [
        next(gradients) if tensor is not None and need else None for tensor, need in zip(inputs, needed, strict=True)
    ]
    d_residual = result[1] if residual is not None else _of_residual(ctx, dy)
    return result[0], d_residual, None, None, *result[2:]
