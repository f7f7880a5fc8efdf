"""The kernel contract in Triton: CUDA tensors in float16, bfloat16, float32 and float64.

`triton_plan` chooses how a tensor is walked, the kernels of `triton_walks` do it, and those of `triton_tables` merge
what its programs found. Nothing waits for the device; the same input gives the same bits.

So far the kernels have been compiled for a GPU and run in Triton's interpreter (`TRITON_INTERPRET=1` before triton is
imported, tensors on the CPU), not on a GPU.
"""
# pyright: basic

from __future__ import annotations

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.kernels.triton_plan import walk_through
from normwise.core.kernels.triton_tables import add, merge
from normwise.core.kernels.triton_walks import affine, measure, project
from normwise.core.moments import Moments

Gate = tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = 2**31  # offsets inside a sample are 32 bits


# tables are small
standardise, pull_back, follow = reference.standardise, reference.pull_back, reference.follow
fuses = reference.fuses


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor: on a GPU, or on the CPU if the kernels are interpreted."""
    device = "cuda" if isinstance(affine, triton.JITFunction) else "cpu"
    return x.device.type == device and x.dtype in _DTYPES and x.numel() > 0 and x[0].numel() < _LARGEST


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    walk = walk_through(x, cells)
    parts = walk.parts(x, 4)
    walk.run(measure, walk.lay(x), parts, *walk.place, walk.width)
    count, mean, m2 = walk.merge(merge, parts, 3)
    return Moments(count[:, :1], mean, m2)


def apply(
    x: Float[Tensor, "n c l"],
    scale: Float[Tensor, "g c"],
    shift: Float[Tensor, "g c"],
    cells: Cells,
    residual: Float[Tensor, "n c l"] | None = None,
    rectify: bool = False,
) -> Float[Tensor, "n c l"]:
    """Return `x * scale[g] + shift[g]`, plus the residual, rectified; 0 at masked positions."""
    walk = walk_through(x, cells)
    values, added = walk.lay(x), None if residual is None else walk.lay(residual)
    y, lines = torch.empty_like(values), walk.lines(scale, shift)
    walk.run(affine, values, added, lines, y, *walk.place, walk.entries, BACKWARD=False, GATED=False, RECTIFY=rectify)
    return y


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    walk = walk_through(x, cells)
    parts, lines = walk.parts(x, 2), walk.lines(None, mean, gate)
    arguments = (walk.lay(x), walk.lay(dy), lines, parts, *walk.place, walk.width, walk.entries)
    walk.run(project, *arguments, GATED=gate is not None)
    total, product = walk.merge(add, parts, 2)
    return total, product


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
    walk = walk_through(x, cells)
    values = walk.lay(x)
    dx, lines = torch.empty_like(values), walk.lines(b, d, gate, a)
    arguments = (values, walk.lay(dy), lines, dx, *walk.place, walk.entries)
    walk.run(affine, *arguments, BACKWARD=True, GATED=gate is not None, RECTIFY=False)
    return dx
