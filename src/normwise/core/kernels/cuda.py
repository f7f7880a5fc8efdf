"""The kernel contract in Triton: CUDA tensors in float16, bfloat16, float32 and float64.

Every kernel walks a tensor `(n, c, l)` the same way. A program owns a block of samples of one group, a piece of the
positions and a tile of channels, and goes through them in tiles of (samples, positions, channels). `_Walk` gives a
tile the shape that keeps neighbours in memory together: contiguous tensors, channels-last ones and rows (l = 1) differ
in that alone. A statistic has a column: a channel or, by step, a step and channel. What a program measured is one row
of `parts`; the rows of a group are merged in float64, in a fixed order and without atomics, so that the same input
gives the same bits. Nothing waits for the device.

Inside a program numbers are float32, or float64 for float64 tensors. Each slot of a tile sums differences from the
first value it meets, and slots are merged by their means (Chan, Golub and LeVeque 1979); `x * scale + shift` is
computed as `(x - zero) * slope + rest` with `zero` near the crossing. So an offset of x costs no digits.

So far the kernels have been compiled for a GPU and run in Triton's interpreter (`TRITON_INTERPRET=1`, tensors on the
CPU), not on a GPU: the sizes of tiles and blocks come from arithmetic, not from measurements.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportOperatorIssue=false
# ruff: noqa: E741

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import reference
from normwise.core.moments import Moments

Gate = tuple[Tensor, Tensor]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NUMBERS = {torch.float32: tl.float32, torch.float64: tl.float64}
_TILE = 1024  # values of a tile: 8 for each thread of 4 warps
_CHANNELS = 128  # channels of a tile where they lie side by side; more would not be read faster
_POSITIONS = 512  # positions of a tile where they lie side by side
_PROGRAMS = 2048  # programs from which on each gets several tiles: enough to fill a large GPU
_MOST = 64  # tiles that a program gets, and so values that a slot sums
_ENTRIES = 256  # entries of the tables that a program prepares
_PARTS = (512, 8)  # rows and columns of parts that are merged at a time: 16 numbers for each thread of 8 warps
_LARGEST = 2**31  # offsets inside a sample are 32 bits


# --- where a program works


@triton.jit
def _program(blocks, n, c, l, size, piece, STEPS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr):
    """Return samples' start and stop, first position, channels, row of parts, cells of tables, columns, which exist."""
    program, tiles, pieces = tl.program_id(0), (c + BL - 1) // BL, (l + piece - 1) // piece
    channel = (program % tiles * BL + tl.arange(0, BL))[None, None, :]
    row, low = program // tiles, program // tiles % pieces * piece
    block = (row // pieces).to(tl.int64)
    if blocks is None:
        start, stop, group = block * size, tl.minimum(block * size + size, n), block * 0
    else:
        start, stop = tl.load(blocks + 3 * block), tl.load(blocks + 3 * block + 1)
        group = tl.load(blocks + 3 * block + 2)
    if STEPS:
        position = (low + tl.arange(0, BP))[None, :, None]
        column = position * c + channel
        return start, stop, low, channel, block, column, column, (position < l) & (channel < c)
    else:
        return start, stop, low, channel, row.to(tl.int64), group * c + channel, channel, channel < c


@triton.jit
def _tile(order, mask, s, stop, p, channel, c, l, LAST: tl.constexpr, BS: tl.constexpr, BP: tl.constexpr):
    """Return offsets into the tensor, which of them are inside it, and which of those are not masked."""
    at = (s + tl.arange(0, BS)).to(tl.int64)[:, None, None]
    position = (p + tl.arange(0, BP))[None, :, None]
    inside = (at < stop) & (position < l)
    sample = at
    if order is not None:
        sample = tl.load(order + at, mask=at < stop, other=0)
    offset = sample * (c * l) + (position * c + channel if LAST else channel * l + position)
    there = inside & (channel < c)
    valid = there
    if mask is not None:
        valid = there & (tl.load(mask + sample * l + position, mask=inside, other=0) != 0)
    return offset, there, valid


@triton.jit
def _line(lines, cell, size, there):
    """Return what `_lines` wrote: `x * scale + shift` is `(x - zero) * slope + rest`."""
    at = lines + cell
    zero, slope = tl.load(at, mask=there, other=0), tl.load(at + size, mask=there, other=0)
    return zero, slope, tl.load(at + 2 * size, mask=there, other=0)


@triton.jit
def _over(values, STEPS: tl.constexpr):
    """Sum a tile over its samples and, unless each step has a column of its own, its positions."""
    values = tl.sum(values, 0, keep_dims=True)
    if not STEPS:
        values = tl.sum(values, 1, keep_dims=True)
    return values


# --- walks through the tensor


@triton.jit
def _measure(
    x, parts, order, blocks, mask, n, c, l, size, piece, width,
    NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr, BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write count, a value near the mean, the mean less that value, and m2: (rows, 4, width)."""
    start, stop, low, channel, row, _cell, column, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    count, first = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    total, square = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, _inside, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            first = tl.where(valid & (count == 0) & (tl.abs(value) < float("inf")), value, first)
            gap = tl.where(valid, value - first, 0)
            total += gap
            square += gap * gap
            count += valid.to(NUMBER)
    pivot = tl.max(tl.where(count > 0, first, float("-inf")), 0, keep_dims=True)
    if not STEPS:
        pivot = tl.max(pivot, 1, keep_dims=True)
    number = _over(count, STEPS)
    pivot = tl.where(number > 0, pivot, 0)
    means = tl.where(count > 0, first - pivot + total / tl.maximum(count, 1), 0)  # of the slots, about the pivot
    mean = _over(count * means, STEPS) / tl.maximum(number, 1)
    spread = square - total * total / tl.maximum(count, 1)
    m2 = _over(tl.where(spread < 0, 0, spread) + count * (means - mean) * (means - mean), STEPS)
    at = parts + 4 * row * width + column
    tl.store(at, number, mask=there)
    tl.store(at + width, pivot, mask=there)
    tl.store(at + 2 * width, mean, mask=there)
    tl.store(at + 3 * width, m2, mask=there)


@triton.jit
def _project(
    x, dy, lines, parts, order, blocks, mask, n, c, l, size, piece, width, entries,
    GATED: tl.constexpr,
    NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr, BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write the sums of dy, gated, and of dy times the line of x: (rows, 2, width)."""
    start, stop, low, channel, row, cell, column, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    zero, slope, rest = _line(lines, cell, entries, there)
    if GATED:
        gate_zero, gate_slope, gate_rest = _line(lines + 3 * entries, cell, entries, there)
    total, product = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, _inside, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            upstream = tl.load(dy + offset, mask=valid, other=0).to(NUMBER)
            if GATED:
                upstream = tl.where((value - gate_zero) * gate_slope + gate_rest <= 0, 0, upstream)
            total += upstream
            product += tl.where(valid, upstream * ((value - zero) * slope + rest), 0)
    at = parts + 2 * row * width + column
    tl.store(at, _over(total, STEPS), mask=there)
    tl.store(at + width, _over(product, STEPS), mask=there)


@triton.jit
def _affine(
    x, other, lines, out, order, blocks, mask, n, c, l, size, piece, entries,
    BACKWARD: tl.constexpr, GATED: tl.constexpr, RECTIFY: tl.constexpr,
    NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr, BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write the line of x plus other, rectified, or backward plus other, gated, times factor; 0 where masked."""
    start, stop, low, channel, _row, cell, _column, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    zero, slope, rest = _line(lines, cell, entries, there)
    if GATED:
        gate_zero, gate_slope, gate_rest = _line(lines + 3 * entries, cell, entries, there)
    if BACKWARD:
        factor = tl.load(lines + 6 * entries + cell, mask=there, other=0)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, inside, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            y = (value - zero) * slope + rest
            if other is not None:
                added = tl.load(other + offset, mask=valid, other=0).to(NUMBER)
                if GATED:
                    added = tl.where((value - gate_zero) * gate_slope + gate_rest <= 0, 0, added)
                if BACKWARD:
                    added *= factor
                y += added
            if RECTIFY:
                y = tl.where(y <= 0, 0, y)
            tl.store(out + offset, tl.where(valid, y, 0).to(out.dtype.element_ty), mask=inside)


# --- small tables, in float64


@triton.jit
def _lines(scale, shift, gate_scale, gate_shift, factor, out, size, NUMBER: tl.constexpr, BLOCK: tl.constexpr):
    """Write zero, slope and rest of a line, or of `x - shift`, the same of a gate, and factor: (7, size)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, height = at < size, tl.load(shift + at, mask=at < size, other=0)
    if scale is None:
        _write(out + at, tl.full((BLOCK,), 1, tl.float64), -height, size, there, NUMBER)
    else:
        _write(out + at, tl.load(scale + at, mask=there, other=1), height, size, there, NUMBER)
    if gate_scale is not None:
        slope, height = tl.load(gate_scale + at, mask=there, other=1), tl.load(gate_shift + at, mask=there, other=0)
        _write(out + 3 * size + at, slope, height, size, there, NUMBER)
    if factor is not None:
        tl.store(out + 6 * size + at, tl.load(factor + at, mask=there, other=0).to(NUMBER), mask=there)


@triton.jit
def _write(at, slope, height, size, there, NUMBER: tl.constexpr):
    """Write a line; zero is 0 where the crossing is no finite number."""
    zero = (-height / slope).to(NUMBER)
    zero = tl.where(tl.abs(zero) < float("inf"), zero, 0)
    tl.store(at, zero, mask=there)
    tl.store(at + size, slope.to(NUMBER), mask=there)
    tl.store(at + 2 * size, (height + zero.to(tl.float64) * slope).to(NUMBER), mask=there)


@triton.jit
def _group(first, rows, pieces, width, BC: tl.constexpr):
    """Return this program's group, its columns, and the rows of parts that are the group's."""
    tiles = (width + BC - 1) // BC
    group = (tl.program_id(0) // tiles).to(tl.int64)
    column = (tl.program_id(0) % tiles * BC + tl.arange(0, BC))[None, :]
    if first is None:
        return group, column, group * 0, group * 0 + rows
    else:
        return group, column, tl.load(first + group) * pieces, tl.load(first + group + 1) * pieces


@triton.jit
def _part(parts, r, high, column, width, BR: tl.constexpr):
    """Return count, mean and m2 of rows that `_measure` wrote."""
    row = r + tl.arange(0, BR)[:, None]
    at, there = parts + 4 * row * width + column, (row < high) & (column < width)
    pivot, rest = tl.load(at + width, mask=there, other=0), tl.load(at + 2 * width, mask=there, other=0)
    number, m2 = tl.load(at, mask=there, other=0), tl.load(at + 3 * width, mask=there, other=0)
    return number.to(tl.float64), pivot.to(tl.float64) + rest.to(tl.float64), m2.to(tl.float64)


@triton.jit
def _merge(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Merge what `_measure` wrote, by group: (groups, 3, width)."""
    group, column, low, high = _group(first, rows, pieces, width, BC)
    count, total = tl.full((BR, BC), 0, tl.float64), tl.full((BR, BC), 0, tl.float64)
    m2 = tl.full((BR, BC), 0, tl.float64)
    for r in range(low, high, BR):
        number, mean, _m2 = _part(parts, r, high, column, width, BR)
        count += number
        total += number * mean
    count = tl.sum(count, 0, keep_dims=True)
    centre = tl.sum(total, 0, keep_dims=True) / tl.maximum(count, 1)
    for r in range(low, high, BR):
        number, mean, within = _part(parts, r, high, column, width, BR)
        m2 += within + number * (mean - centre) * (mean - centre)
    at, there = out + 3 * group * width + column, column < width
    tl.store(at, count, mask=there)
    tl.store(at + width, centre, mask=there)
    tl.store(at + 2 * width, tl.sum(m2, 0, keep_dims=True), mask=there)


@triton.jit
def _add(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Add what `_project` wrote, by group: (groups, 2, width)."""
    group, column, low, high = _group(first, rows, pieces, width, BC)
    total, product = tl.full((BR, BC), 0, tl.float64), tl.full((BR, BC), 0, tl.float64)
    for r in range(low, high, BR):
        row = r + tl.arange(0, BR)[:, None]
        at, there = parts + 2 * row * width + column, (row < high) & (column < width)
        total += tl.load(at, mask=there, other=0).to(tl.float64)
        product += tl.load(at + width, mask=there, other=0).to(tl.float64)
    at, there = out + 2 * group * width + column, column < width
    tl.store(at, tl.sum(total, 0, keep_dims=True), mask=there)
    tl.store(at + width, tl.sum(product, 0, keep_dims=True), mask=there)


# --- the contract


standardise, pull_back, follow = reference.standardise, reference.pull_back, reference.follow  # tables are small
fuses = reference.fuses


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor: on a GPU, or on the CPU if the kernels are interpreted."""
    device = "cuda" if isinstance(_affine, triton.JITFunction) else "cpu"
    return x.device.type == device and x.dtype in _DTYPES and x.numel() > 0 and x[0].numel() < _LARGEST


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    walk = _walk(x, cells)
    parts = walk.parts(x, 4)
    walk.run(_measure, walk.lay(x), parts, *walk.place, walk.width)
    count, mean, m2 = walk.merge(_merge, parts, 3)
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
    walk = _walk(x, cells)
    values, added = walk.lay(x), None if residual is None else walk.lay(residual)
    y, lines = torch.empty_like(values), walk.lines(scale, shift)
    walk.run(_affine, values, added, lines, y, *walk.place, walk.entries, BACKWARD=False, GATED=False, RECTIFY=rectify)
    return y


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    walk = _walk(x, cells)
    parts, lines = walk.parts(x, 2), walk.lines(None, mean, gate)
    arguments = (walk.lay(x), walk.lay(dy), lines, parts, *walk.place, walk.width, walk.entries)
    walk.run(_project, *arguments, GATED=gate is not None)
    total, product = walk.merge(_add, parts, 2)
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
    walk = _walk(x, cells)
    values = walk.lay(x)
    dx, lines = torch.empty_like(values), walk.lines(b, d, gate, a)
    arguments = (values, walk.lay(dy), lines, dx, *walk.place, walk.entries)
    walk.run(_affine, *arguments, BACKWARD=True, GATED=gate is not None, RECTIFY=False)
    return dx


@dataclass(frozen=True, eq=False)
class _Walk:
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
        """What `_program` and `_tile` ask for."""
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
        _launch(_lines, triton.cdiv(self.entries, _ENTRIES), out.device, *tables, out, self.entries, **options)
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


def _walk(x: Tensor, cells: Cells) -> _Walk:
    """Return how this tensor is walked; kept with the cells, so that backward finds it."""
    last = x.shape[2] == 1 or (not x.is_contiguous() and x.transpose(1, 2).is_contiguous())
    key = ("cuda", last, x.shape, x.dtype)
    if key not in cells.derived:
        cells.derived[key] = _plan(last, x, cells)
    return cells.derived[key]


def _plan(last: bool, x: Tensor, cells: Cells) -> _Walk:
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
    return _Walk(x.shape, last, number, cells.count, cells.steps, tile, size, positions * along, *grouped, mask)


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
