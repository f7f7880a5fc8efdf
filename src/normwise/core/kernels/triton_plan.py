"""How a tensor is walked on a GPU: the shape of tiles, the blocks of samples, the launch of kernels.

`Walk` gives a tile the shape that keeps neighbours in memory together: contiguous tensors, channels-last ones and rows
(l = 1) differ in that alone. The sizes come from arithmetic, not from measurements: no GPU was at hand.
"""
# pyright: basic
# ruff: noqa: E741

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels.triton_tables import prepare

Gate = tuple[Tensor, Tensor]
_NUMBERS = {torch.float32: tl.float32, torch.float64: tl.float64}
_TILE = 1024  # values of a tile: 8 for each thread of 4 warps
_CHANNELS = 128  # channels of a tile where they lie side by side; more would not be read faster
_POSITIONS = 512  # positions of a tile where they lie side by side
_PROGRAMS = 2048  # programs from which on each gets several tiles: enough to fill a large GPU
_MOST = 64  # tiles that a program gets, and so values that a slot sums
_ENTRIES = 256  # entries of the tables that a program prepares
_PARTS = (512, 8)  # rows and columns of parts that are merged at a time: 16 numbers for each thread of 8 warps


@dataclass(frozen=True, eq=False)
class Walk:
    """How one shape of tensor is walked for its cells.

    last: channels lie side by side in memory, otherwise positions. number: dtype of the arithmetic. count, steps: as in
    the cells. tile: its samples, positions and channels. size, piece: samples and positions of a program. order:
    samples by group. blocks: where each block starts and stops in that order, and its group, `(b, 3)`. first: the block
    at which each group starts, and the end. These three are None where all is one group.
    """

    shape: torch.Size
    last: bool
    number: torch.dtype
    count: int
    steps: bool
    tile: tuple[int, int, int]
    size: int
    piece: int
    order: Tensor | None
    blocks: Tensor | None
    first: Tensor | None
    mask: Tensor | None

    @property
    def width(self) -> int:
        """Number of columns."""
        return prod(self.shape[1:]) if self.steps else self.shape[1]

    @property
    def entries(self) -> int:
        """Number of entries in a table `(g, c)`."""
        return self.count * self.shape[1]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of blocks of samples, of pieces of positions, and of tiles of channels."""
        blocks = triton.cdiv(self.shape[0], self.size) if self.blocks is None else len(self.blocks)
        return blocks, triton.cdiv(self.shape[2], self.piece), triton.cdiv(self.shape[1], self.tile[2])

    @property
    def pieces(self) -> int:
        """Number of rows of parts that a block has: steps share one."""
        return 1 if self.steps else self.grid[1]

    @property
    def place(self) -> tuple[Any, ...]:
        """What a program and a tile ask for."""
        return self.order, self.blocks, self.mask, *self.shape, self.size, self.piece

    def lay(self, x: Tensor) -> Tensor:
        """Return the tensor as it is walked; a copy only where its memory lies otherwise."""
        x = x.detach()
        return x.transpose(1, 2).contiguous().transpose(1, 2) if self.last else x.contiguous()

    def parts(self, x: Tensor, planes: int) -> Tensor:
        """Return an empty table for what the programs find."""
        return x.new_empty((self.grid[0] * self.pieces, planes, self.width), dtype=self.number)

    def lines(
        self, scale: Tensor | None, shift: Tensor, gate: Gate | None = None, factor: Tensor | None = None
    ) -> Tensor:
        """Return the tables as the kernels read them."""
        out = shift.new_empty((7, self.entries), dtype=self.number)
        tables = (scale, shift, *(gate or (None, None)), factor)
        tables = (None if table is None else table.detach().double().contiguous() for table in tables)
        options = {"NUMBER": _NUMBERS[self.number], "BLOCK": _ENTRIES}
        _launch(prepare, triton.cdiv(self.entries, _ENTRIES), out.device, *tables, out, self.entries, **options)
        return out

    def run(self, kernel: Any, *arguments: Any, **options: Any) -> None:
        """Run a kernel on every tile."""
        samples, positions, channels = self.tile
        options |= {"NUMBER": _NUMBERS[self.number], "LAST": self.last, "STEPS": self.steps}
        _launch(
            kernel, prod(self.grid), arguments[0].device, *arguments, **options, BS=samples, BP=positions, BL=channels
        )

    def merge(self, kernel: Any, parts: Tensor, planes: int) -> tuple[Tensor, ...]:
        """Return the rows of parts merged by group: as many tables `(g, c)`, float64."""
        groups, rows = 1 if self.first is None else self.count, len(parts)
        out = parts.new_empty((groups, planes, self.width), dtype=torch.float64)
        high = min(_power(triton.cdiv(rows, groups)), _PARTS[0])
        wide = min(_power(self.width), prod(_PARTS) // high)
        arguments = (parts, self.first, out, rows, self.pieces, self.width)
        programs = groups * triton.cdiv(self.width, wide)
        _launch(kernel, programs, parts.device, *arguments, BR=high, BC=wide, num_warps=8)
        return tuple(table.view(self.count, self.shape[1]) for table in out.unbind(1))


def _launch(kernel: Any, programs: int, device: torch.device, *arguments: Any, **options: Any) -> None:
    """Launch a kernel, on the device of its tensors rather than the current one."""
    with torch.cuda.device(device if device.type == "cuda" else -1):
        kernel[(programs,)](*arguments, **options)


def walk_through(x: Tensor, cells: Cells) -> Walk:
    """Return how this tensor is walked; kept with the cells, so that backward finds it."""
    last = x.shape[2] == 1 or (not x.is_contiguous() and x.transpose(1, 2).is_contiguous())
    key = ("cuda", last, x.shape, x.dtype)
    if key not in cells.derived:
        cells.derived[key] = _plan(last, x, cells)
    return cells.derived[key]


def _plan(last: bool, x: Tensor, cells: Cells) -> Walk:
    """Choose tiles along memory, and so many of them for a program that the device is filled."""
    n, c, l = x.shape
    positions, channels = min(_power(l), _POSITIONS), min(_power(c), _CHANNELS)
    if last:
        positions = min(positions, _TILE // channels)
    else:
        channels = min(channels, _TILE // positions)
    tile = min(_power(n), _TILE // (positions * channels)), positions, channels
    tiles = [triton.cdiv(extent, part) for extent, part in zip((n, l, c), tile, strict=True)]
    each = min(max(prod(tiles) // _PROGRAMS, 1), _MOST)
    along = 1 if cells.steps else min(each, tiles[1])
    size = tile[0] * triton.cdiv(each, along)
    mask = None if cells.mask is None else cells.mask.contiguous().view(torch.uint8)
    grouped = (None, None, None) if cells.sample is None else _blocks(cells.sample, cells.count, size)
    number = torch.promote_types(x.dtype, torch.float32)
    return Walk(x.shape, last, number, cells.count, cells.steps, tile, size, positions * along, *grouped, mask)


def _blocks(sample: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return order, blocks and first of a walk; as many blocks as there could be, the last ones possibly empty."""
    n = len(sample)
    order = torch.argsort(sample, stable=True)
    bounds = torch.arange(groups + 1, device=sample.device)
    edges = torch.searchsorted(sample[order], bounds)
    first = torch.zeros_like(edges)
    first[1:] = ((edges.diff() + size - 1) // size).cumsum(0)
    number = torch.arange(min(n, triton.cdiv(n, size) + groups), device=sample.device)
    group = (torch.searchsorted(first, number, right=True) - 1).clamp_max(groups - 1)
    start = edges[group] + (number - first[group]) * size
    stop = torch.minimum(start + size, edges[group + 1])
    return order, torch.stack((start, stop, group), 1), first


def _power(extent: int) -> int:
    """Return the power of two that holds it."""
    return triton.next_power_of_2(extent)
