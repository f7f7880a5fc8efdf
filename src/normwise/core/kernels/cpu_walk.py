"""How a tensor is walked as it lies: contiguous ones as planes, channels-last ones and statistics by step as rows.

A `Walk` says how cells and tables translate into what the compiled loops index, and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels.compiled import blocks
from normwise.core.kernels.compiled.tables import centre
from normwise.core.kernels.compiled.team import Array
from normwise.core.moments import Moments
from normwise.errors import ShapeError

Gate = tuple[Tensor, Tensor]
_LEAST = 16  # samples a cell, from which on few positions become columns
HALF = (torch.float16, torch.bfloat16)
_COLUMNS = 256  # of a row, a kilobyte or two: with less, most of the time goes to getting from row to row
_FEW = 16  # positions that become columns of their own: too few for a loop
_NONE: Array = np.zeros(0, np.int64)
_NO_MASK: Array = np.zeros((1, 0), np.bool_)
_NO_TABLE: Array = np.empty((0, 0))


class Layout(Enum):
    """How a tensor's memory is walked: planes `(n, c, l)`, or rows `(n * l, c)` or `(n, c * l)`."""

    PLANES = "planes"
    LAST = "channels last"
    WIDE = "every position a column"


@dataclass(frozen=True, eq=False)
class Walk:
    """How one shape of tensor is walked for its cells.

    kind: which loops sum. by_group and in_place are what loops need of the cells, where they sum by group and where they
    go through memory. start: where groups begin.
    """

    layout: Layout
    cells: Cells
    shape: tuple[int, int, int]
    groups: int
    count: Tensor
    kind: str
    by_group: tuple[Any, ...]
    in_place: tuple[Any, ...]
    start: Array

    @property
    def planes(self) -> bool:
        """Whether positions lie inside of channels."""
        return self.layout is Layout.PLANES

    @property
    def width(self) -> int:
        """Number of independent channels or columns."""
        _, channels, positions = self.shape
        return channels * positions if self.layout is Layout.WIDE else channels

    @property
    def least(self) -> int:
        """Return how many columns are worth a thread: of rows, each thread has to go through all of them."""
        return 1 if self.planes else _COLUMNS

    @property
    def pieces(self) -> int:
        """Number of samples, or of rows: what is worked on in place is shared by them."""
        n, _, positions = self.shape
        return n * positions if self.layout is Layout.LAST else n

    def view(self, x: Tensor) -> Array:
        """Return the values as the loops walk them; a copy only of half types, and where the memory lies otherwise."""
        n, _, positions = self.shape
        x = x.detach().resolve_neg()
        x = x.float() if x.dtype in HALF else x
        if positions == 1:
            return x.contiguous().view(n, self.width).numpy()
        if self.layout is Layout.LAST:
            return x.permute(0, 2, 1).contiguous().view(n * positions, self.width).numpy()
        x = x.contiguous()
        return x.numpy() if self.planes else x.view(n, self.width).numpy()

    def empty(self, x: Tensor) -> tuple[Tensor, Array]:
        """Return a tensor for a result, and the view of it that a loop fills."""
        n, channels, positions = self.shape
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        if self.layout is Layout.LAST and positions > 1:
            result = x.new_empty((n, positions, channels), dtype=dtype).permute(0, 2, 1)
        else:
            result = x.new_empty(self.shape, dtype=dtype)
        return result, self.view(result)

    def like(self, x: Tensor, result: Tensor) -> Tensor:
        """Return the result in the dtype of x, and in its memory format, if that is one of the two."""
        result = result.to(x.dtype)
        return result.contiguous() if x.is_contiguous() else result

    def table(self) -> Array:
        """Return zeros for the loops to add to."""
        return np.zeros((self.groups, self.width))

    def spread(self, table: Tensor) -> Array:
        """Return a table `(g, c)`, or one that broadcasts to it, as the loops index it."""
        table = table.detach().double()
        if self.layout is not Layout.WIDE and table.shape == (self.groups, self.width):
            return table.contiguous().numpy()
        table = table.expand(self.cells.count, self.shape[1])
        if self.layout is Layout.WIDE:
            positions = self.shape[2]
            table = table.t().reshape(1, -1) if self.cells.steps else table.repeat_interleave(positions, 1)
        return table.contiguous().numpy()

    def collect(self, sums: Array) -> Tensor:
        """Return the loops' sums as a table `(g, c)`."""
        table = _tensor(sums)
        if self.layout is not Layout.WIDE:
            return table
        table = table.view(self.groups, self.shape[1], self.shape[2])
        return table[0].t().contiguous() if self.cells.steps else table.sum(-1)

    def moments(self, mean: Array, m2: Array) -> Moments:
        """Return the loops' tables as moments of the cells."""
        if self.layout is not Layout.WIDE or self.cells.steps:
            return Moments(self.count.clone(), self.collect(mean), self.collect(m2))
        views = (_tensor(table).view(self.groups, *self.shape[1:]).transpose(1, 2) for table in (mean, m2))
        return Moments(self.count.unsqueeze(1) / self.shape[2], *views).pool(1)

    @property
    def counts(self) -> Array:
        """Return how many values there are behind each row of the loops' tables, `(groups, 1)`."""
        return (self.count if self.groups == len(self.count) else self.count[: self.groups]).numpy()

    def affine(self, table: Tensor | None) -> Array:
        """Return an affine table as the loops index it: `(0, k)` for none, `(1, k)` for one of all groups, or `(g, k)`."""
        if table is None:
            return np.empty((0, self.width))
        values = table.detach().double().contiguous().view(-1, self.shape[1]).numpy()
        if len(values) not in (1, self.cells.count):
            raise ShapeError(f"affine tables must have 1 or {self.cells.count} rows, one a group, got {len(values)}")
        if self.layout is not Layout.WIDE:
            return values
        by_step = self.cells.steps and len(values) > 1
        return values.T.reshape(1, -1).copy() if by_step else values.repeat(self.shape[2], 1)

    def collect_affine(self, sums: Array, table: Tensor) -> Tensor:
        """Return the loops' sums as the gradient of an affine table."""
        if self.layout is Layout.WIDE:
            sums = sums.reshape(self.shape[1:])
            sums = sums.T.copy() if table.numel() > self.shape[1] else sums.sum(-1)
        return _tensor(sums).view(table.shape).to(table.dtype)

    def line(self, scale: Tensor, shift: Tensor, dtype: Any) -> tuple[Array, Array, Array]:
        """Return zero, slope and rest with which `x * scale + shift` is `(x - zero) * slope + rest`."""
        scales, shifts = self.spread(scale), self.spread(shift)
        zero, slope, rest = (np.empty(scales.shape, dtype) for _ in range(3))
        centre(0, len(scales), 0, scales.shape[1], scales, shifts, zero, slope, rest)
        return zero, slope, rest

    def gate(self, gate: Gate | None, dtype: Any) -> tuple[Any, ...]:
        """Return whether there is a gate, and its line."""
        return (True, *self.line(*gate, dtype)) if gate else (False, *[_NO_TABLE.astype(dtype)] * 3)


def check_alike(x: Tensor, residual: Tensor | None) -> None:
    """Raise `ShapeError` for a residual that the loops cannot add to x: they look at neither shape nor dtype."""
    if residual is not None and (residual.shape, residual.dtype) != (x.shape, x.dtype):
        raise ShapeError(
            f"residual must be like x, {tuple(x.shape)} {x.dtype}, got {tuple(residual.shape)} {residual.dtype}"
        )


def walk_of(x: Tensor, cells: Cells, layout: Layout | None = None) -> Walk:
    """Return how this tensor is walked, in a given layout or in the one that suits the cells.

    Kept with the cells, so that backward finds it, or for good if all follows from the shape.
    """
    layout = layout or _layout(x, cells)
    shape = x.shape[0], x.shape[1], x.shape[2]
    key = (layout, shape)
    if key not in cells.derived:
        plain = cells.sample is None and cells.mask is None
        plan = _plain_plan(layout, shape, cells.count, cells.steps) if plain else _plan(layout, shape, cells)
        cells.derived[key] = plan
    return cells.derived[key]


@lru_cache(maxsize=256)
def _plain_plan(layout: Layout, shape: tuple[int, int, int], count: int, steps: bool) -> Walk:
    """Return the plan of cells that follow from the shape of the tensor."""
    with torch.inference_mode(False):  # whoever asks first, gradients may be asked for later
        return _plan(layout, shape, Cells(count, steps=steps))


def _layout(x: Tensor, cells: Cells) -> Layout:
    n, _, positions = x.shape
    if positions == 1 or (not x.is_contiguous() and x.permute(0, 2, 1).is_contiguous()):
        return Layout.LAST
    if cells.steps:
        return Layout.WIDE if cells.mask is None else Layout.LAST
    crowded = positions <= _FEW and n >= _LEAST * cells.count
    return Layout.WIDE if crowded and cells.mask is None else Layout.PLANES


def _plan(layout: Layout, shape: tuple[int, int, int], cells: Cells) -> Walk:
    n, _, positions = shape
    steps_in_rows = cells.steps and layout is Layout.LAST
    groups = cells.count if steps_in_rows or not cells.steps else 1
    index, each = cells.sample, positions
    if layout is Layout.LAST:
        index, each = _index_of_rows(n, positions, cells), 1
    groups_of = _NONE if index is None else np.ascontiguousarray(index.numpy(), np.int64)
    order, start = _NONE, np.zeros(groups + 1, np.int64)
    if index is None:
        start[1:] = n * (positions if layout is Layout.LAST else 1)
    else:
        order = np.empty(len(groups_of), np.int64)
        order = _NONE if blocks.order_by_group(groups_of, order, start) else order
    count = _tensor(np.diff(start).astype(np.float64)) * each
    if layout is not Layout.PLANES:
        kind, by_group = ("scattered", (start, groups_of)) if len(order) else ("rows", (0, groups, start))
        in_place: tuple[Any, ...] = (groups_of,)
    else:
        kind, end, mask = "planes", np.full(n, positions), _NO_MASK
        if cells.mask is not None:
            valid, given = np.empty(n), cells.mask.contiguous().numpy()
            mask = _NO_MASK if blocks.find_ends(given, end, valid) else given
            count = _by_group(valid, groups_of, groups)
        by_group, in_place = (order, start, end, mask), (groups_of, end, mask)
    if cells.steps and not steps_in_rows:
        count = count.new_full((cells.count,), n)
    own = Cells(cells.count, steps=cells.steps)  # not what is kept with the cells themselves
    return Walk(layout, own, shape, groups, count.unsqueeze(1), kind, by_group, in_place, start)


def _index_of_rows(n: int, positions: int, cells: Cells) -> Tensor | None:
    """Return the cell of each row of `(n * l, c)`, -1 where it is masked; None where all are in cell 0."""
    if cells.steps:
        index = torch.arange(positions, device="cpu").repeat(n)
    elif cells.sample is not None:
        index = cells.sample.repeat_interleave(positions) if positions > 1 else cells.sample.contiguous()
    elif cells.mask is None:
        return None
    else:
        index = torch.zeros(n * positions, dtype=torch.long, device="cpu")
    return index if cells.mask is None else torch.where(cells.mask.flatten(), index, -1)


def _by_group(counts: Array, index: Array, groups: int) -> Tensor:
    """Return the sums of counts that share an index; of all without one."""
    return _tensor(np.bincount(index, counts, groups) if len(index) else counts.sum(keepdims=True))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
