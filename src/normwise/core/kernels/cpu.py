"""The kernel contract in compiled loops: on the CPU, one pass over memory each, half types through float32.

`cpu_walk` says how a tensor is walked as it lies, `compiled` does the arithmetic, `cpu_fused` a whole standardisation
in one go. From 65,536 values on the work is shared by `torch.get_num_threads()` threads: torch's own, or after a fork
those of a pool made when first needed. The loops release the interpreter lock and start no threads of their own: safe
under fork, spawn and concurrent Python threads.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from normwise.core.grouping import Cells
from normwise.core.kernels.compiled import team
from normwise.core.kernels.compiled.loop import COMPILES
from normwise.core.kernels.cpu_fused import LOOPS, Standardisation, fuses
from normwise.core.kernels.cpu_tables import follow, pull_back, standardise
from normwise.core.kernels.cpu_walk import Gate, check_alike, walk_of
from normwise.core.moments import Moments

__all__ = [
    "Standardisation", "apply", "apply_backward", "follow", "fuses", "pull_back", "reduce", "reduce_backward",
    "standardise", "supports",
]  # fmt: skip
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor; a subclass may have no memory of its own."""
    return (
        COMPILES
        and type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype in _DTYPES
        and x.numel() > 0
    )


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    walk = walk_of(x, cells)
    values, mean, m2 = walk.view(x), walk.table(), walk.table()
    team.share(LOOPS[walk.kind][0], "", walk.width, values, (values, *walk.by_group, mean, m2), walk.least)
    return walk.moments(mean, m2)


def apply(
    x: Float[Tensor, "n c l"],
    scale: Float[Tensor, "g c"],
    shift: Float[Tensor, "g c"],
    cells: Cells,
    residual: Float[Tensor, "n c l"] | None = None,
    rectify: bool = False,
) -> Float[Tensor, "n c l"]:
    """Return `x * scale[g] + shift[g]`, plus the residual, rectified; 0 at masked positions."""
    check_alike(x, residual)
    walk = walk_of(x, cells)
    values, (y, out) = walk.view(x), walk.empty(x)
    added = values if residual is None else walk.view(residual)
    line = walk.line(scale, shift, values.dtype)
    arguments = (values, 0, walk.width, *walk.in_place, *line, added, residual is not None, rectify, out)
    team.share(LOOPS[walk.kind][1], "", walk.pieces, values, arguments)
    return walk.like(x, y)


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    walk = walk_of(x, cells)
    values, slopes = walk.view(x), walk.view(dy)
    exact = walk.spread(mean)
    middle, total, product = exact.astype(values.dtype), walk.table(), walk.table()
    gates = walk.gate(gate, values.dtype)
    arguments = (slopes, values, *walk.by_group, middle, *gates, total, product)
    team.share(LOOPS[walk.kind][2], "", walk.width, values, arguments, walk.least)
    with np.errstate(invalid="ignore", over="ignore"):
        product += (middle - exact) * total  # the loop subtracted the mean in the dtype of the values
    return walk.collect(total), walk.collect(product)


def apply_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    a: Float[Tensor, "g c"],
    b: Float[Tensor, "g c"],
    d: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> Float[Tensor, "n c l"]:
    """Return `dy * a[g] + x * b[g] + d[g]`, 0 at masked positions."""
    walk = walk_of(x, cells)
    values, slopes, (dx, out) = walk.view(x), walk.view(dy), walk.empty(x)
    factor, line = walk.spread(a).astype(values.dtype), walk.line(b, d, values.dtype)
    gates = walk.gate(gate, values.dtype)
    arguments = (slopes, values, 0, walk.width, *walk.in_place, factor, *line, *gates, out)
    team.share(LOOPS[walk.kind][3], "", walk.pieces, values, arguments)
    return walk.like(x, dx)
