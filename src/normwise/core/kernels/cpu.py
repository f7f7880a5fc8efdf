"""The kernel contract in compiled loops: float32 and float64 on the CPU, one pass over memory each.

A tensor is walked as it lies: contiguous ones as planes, channels-last ones and statistics by step as rows; `_Walk`
says how cells and tables translate, `loops` does the arithmetic. Above about a million values the work is shared by
`torch.get_num_threads()` threads, of a pool made when first needed and anew after a fork. The loops release the
interpreter lock and start no threads of their own: safe under fork, spawn and concurrent Python threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import loops
from normwise.core.moments import Moments

Array = NDArray[Any]
Gate = tuple[Tensor, Tensor]
_SHARED = 1 << 20  # values from which on threads share the work
_LEAST = 16  # channels, columns or samples that a thread should have
_FEW = 16  # positions that become columns of their own: too few for a loop
_NONE: Array = np.zeros(0, np.int64)
_NO_MASK: Array = np.zeros((1, 0), np.bool_)
_SUMS = {
    "planes": (loops.reduce_planes, loops.reduce_backward_planes),
    "masked": (loops.reduce_masked, loops.reduce_backward_masked),
    "rows": (loops.reduce_rows, loops.reduce_backward_rows),
    "scattered": (loops.reduce_scattered, loops.reduce_backward_scattered),
}


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel() > 0


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    walk = _walk(x, cells)
    values, mean, m2 = walk.view(x), walk.table(), walk.table()
    _share(_SUMS[walk.kind][0], walk.width, values.size, values, *walk.by_group, mean, m2)
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
    walk = _walk(x, cells)
    values, (y, out) = walk.view(x), walk.empty(x)
    added = values if residual is None else walk.view(residual)
    loop = loops.apply_planes if walk.planes else loops.apply_rows
    line = walk.line(scale, shift, values.dtype)
    _share(loop, len(values), values.size, values, *walk.in_place, *line, added, residual is not None, rectify, out)
    return walk.like(x, y)


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    walk = _walk(x, cells)
    values, slopes = walk.view(x), walk.view(dy)
    exact = walk.spread(mean)
    middle, total, product = exact.astype(values.dtype), walk.table(), walk.table()
    gates = walk.gate(gate, values.dtype)
    _share(_SUMS[walk.kind][1], walk.width, values.size, slopes, values, *walk.by_group, middle, *gates, total, product)
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
    walk = _walk(x, cells)
    values, slopes, (dx, out) = walk.view(x), walk.view(dy), walk.empty(x)
    loop = loops.apply_backward_planes if walk.planes else loops.apply_backward_rows
    factor, line = walk.spread(a).astype(values.dtype), walk.line(b, d, values.dtype)
    gates = walk.gate(gate, values.dtype)
    _share(loop, len(values), values.size, slopes, values, *walk.in_place, factor, *line, *gates, out)
    return walk.like(x, dx)


class _Layout(Enum):
    """How a tensor's memory is walked: planes `(n, c, l)`, or rows `(n * l, c)` or `(n, c * l)`."""

    PLANES = "planes"
    LAST = "channels last"
    WIDE = "every position a column"


@dataclass(frozen=True, eq=False)
class _Walk:
    """How one shape of tensor is walked for its cells.

    kind: which loops sum. by_group and in_place are what loops need of the cells, where they sum by group and where they
    go through memory.
    """

    layout: _Layout
    cells: Cells
    shape: tuple[int, int, int]
    groups: int
    count: Tensor
    kind: str
    by_group: tuple[Array, ...]
    in_place: tuple[Array, ...]

    @property
    def planes(self) -> bool:
        return self.layout is _Layout.PLANES

    @property
    def width(self) -> int:
        """Number of independent channels or columns."""
        _, channels, positions = self.shape
        return channels * positions if self.layout is _Layout.WIDE else channels

    def view(self, x: Tensor) -> Array:
        """Return the values as the loops walk them; a copy only where the memory lies otherwise."""
        n, _, positions = self.shape
        x = x.detach()
        if positions == 1:
            return x.contiguous().view(n, self.width).numpy()
        if self.layout is _Layout.LAST:
            return x.permute(0, 2, 1).contiguous().view(n * positions, self.width).numpy()
        x = x.contiguous()
        return x.numpy() if self.planes else x.view(n, self.width).numpy()

    def empty(self, x: Tensor) -> tuple[Tensor, Array]:
        """Return a tensor for a result, and the view of it that a loop fills."""
        n, channels, positions = self.shape
        if self.layout is _Layout.LAST and positions > 1:
            result = x.new_empty(n, positions, channels).permute(0, 2, 1)
        else:
            result = x.new_empty(self.shape)
        return result, self.view(result)

    def like(self, x: Tensor, result: Tensor) -> Tensor:
        """Return the result in the memory format of x, if that is one of the two."""
        return result.contiguous() if x.is_contiguous() else result

    def table(self) -> Array:
        return np.zeros((self.groups, self.width))

    def spread(self, table: Tensor) -> Array:
        """Return a table `(g, c)` as the loops index it."""
        table = table.detach().double().expand(self.cells.count, self.shape[1])
        if self.layout is _Layout.WIDE:
            positions = self.shape[2]
            table = table.t().reshape(1, -1) if self.cells.steps else table.repeat_interleave(positions, 1)
        return table.contiguous().numpy()

    def collect(self, sums: Array) -> Tensor:
        """Return the loops' sums as a table `(g, c)`."""
        table = _tensor(sums)
        if self.layout is not _Layout.WIDE:
            return table
        table = table.view(self.groups, self.shape[1], self.shape[2])
        return table[0].t() if self.cells.steps else table.sum(-1)

    def moments(self, mean: Array, m2: Array) -> Moments:
        """Return the loops' tables as moments of the cells."""
        if self.layout is not _Layout.WIDE or self.cells.steps:
            return Moments(self.count, self.collect(mean), self.collect(m2))
        views = (_tensor(table).view(self.groups, *self.shape[1:]).transpose(1, 2) for table in (mean, m2))
        return Moments(self.count.unsqueeze(1) / self.shape[2], *views).pool(1)

    def line(self, scale: Tensor, shift: Tensor, dtype: Any) -> tuple[Array, Array, Array]:
        """Return zero, slope and rest with which `x * scale + shift` is `(x - zero) * slope + rest`."""
        scales, shifts = self.spread(scale), self.spread(shift)
        zero, slope, rest = (np.empty(scales.shape, dtype) for _ in range(3))
        loops.centre(scales, shifts, zero, slope, rest)
        return zero, slope, rest

    def gate(self, gate: Gate | None, dtype: Any) -> tuple[Any, ...]:
        """Return whether there is a gate, and its line."""
        return (True, *self.line(*gate, dtype)) if gate else (False, *(np.empty((0, 0), dtype) for _ in range(3)))


def _walk(x: Tensor, cells: Cells) -> _Walk:
    """Return how this tensor is walked; kept with the cells, so that backward finds it, or for good if all follows."""
    layout = _layout(x, cells)
    shape = x.shape[0], x.shape[1], x.shape[2]
    key = (layout, shape)
    if key not in cells.derived:
        plain = cells.sample is None and cells.mask is None
        plan = _plain_plan(layout, shape, cells.count, cells.steps) if plain else _plan(layout, shape, cells)
        cells.derived[key] = plan
    return cells.derived[key]


@lru_cache(maxsize=256)
def _plain_plan(layout: _Layout, shape: tuple[int, int, int], count: int, steps: bool) -> _Walk:
    """Return the plan of cells that follow from the shape of the tensor."""
    with torch.inference_mode(False):  # whoever asks first, gradients may be asked for later
        return _plan(layout, shape, Cells(count, steps=steps))


def _layout(x: Tensor, cells: Cells) -> _Layout:
    n, _, positions = x.shape
    if positions == 1 or (not x.is_contiguous() and x.permute(0, 2, 1).is_contiguous()):
        return _Layout.LAST
    if cells.steps:
        return _Layout.WIDE if cells.mask is None else _Layout.LAST
    crowded = positions <= _FEW and n >= _LEAST * cells.count
    return _Layout.WIDE if crowded and cells.mask is None else _Layout.PLANES


def _plan(layout: _Layout, shape: tuple[int, int, int], cells: Cells) -> _Walk:
    n, _, positions = shape
    steps_in_rows = cells.steps and layout is _Layout.LAST
    groups = cells.count if steps_in_rows or not cells.steps else 1
    index, each = cells.sample, positions
    if layout is _Layout.LAST:
        index, each = _index_of_rows(n, positions, cells), 1
    groups_of = _NONE if index is None else index.numpy()
    order, start = _NONE, np.zeros(groups + 1, np.int64)
    if index is None:
        start[1:] = n * (positions if layout is _Layout.LAST else 1)
    else:
        order = np.empty(len(groups_of), np.int64)
        order = _NONE if loops.order_by_group(groups_of, order, start) else order
    count = _tensor(np.diff(start).astype(np.float64)) * each
    if layout is not _Layout.PLANES:
        kind, by_group = ("scattered", (start, groups_of)) if len(order) else ("rows", (start,))
        in_place = (groups_of,)
    elif cells.mask is None:
        kind, by_group, in_place = "planes", (order, start), (groups_of, _NO_MASK, np.full(n, positions))
    else:
        mask, end = cells.mask.contiguous().numpy(), np.empty(n, np.int64)
        loops.find_ends(mask, end)
        kind, by_group, in_place = "masked", (order, start, mask, end), (groups_of, mask, end)
        valid = cells.mask.sum(1, dtype=torch.float64)
        count = valid.sum().view(1) if index is None else valid.new_zeros(groups).index_add(0, index, valid)
    if cells.steps and not steps_in_rows:
        count = count.new_full((cells.count,), n)
    return _Walk(layout, cells, shape, groups, count.unsqueeze(1), kind, by_group, in_place)


def _index_of_rows(n: int, positions: int, cells: Cells) -> Tensor | None:
    """Return the cell of each row of `(n * l, c)`, -1 where it is masked; None where all are in cell 0."""
    if cells.steps:
        index = torch.arange(positions).repeat(n)
    elif cells.sample is not None:
        index = cells.sample.repeat_interleave(positions) if positions > 1 else cells.sample.contiguous()
    elif cells.mask is None:
        return None
    else:
        index = torch.zeros(n * positions, dtype=torch.long)
    return index if cells.mask is None else torch.where(cells.mask.flatten(), index, -1)


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def _share(loop: Callable[..., None], extent: int, size: int, *arguments: Any) -> None:
    """Run a loop over `[0, extent)`, in shares if it is worth it."""
    threads = min(torch.get_num_threads(), extent // _LEAST) if size >= _SHARED else 1
    if threads <= 1:
        loop(0, extent, *arguments)
        return
    edges = [extent * part // threads for part in range(threads + 1)]
    pool = _pool(os.getpid(), torch.get_num_threads())
    others = [pool.submit(loop, low, high, *arguments) for low, high in pairwise(edges[:-1])]
    loop(edges[-2], extent, *arguments)
    for share in others:
        share.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process: after a fork those of the parent do not exist."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"normwise-{process}")
