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
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: D103, E741

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
from normwise.core.moments import Moments

Gate = tuple[Tensor, Tensor]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TILE = 2048  # values of a tile: 16 for each thread of 4 warps
_CHANNELS = 128  # channels of a tile where they lie side by side; more would not be read faster
_POSITIONS = 512  # positions of a tile where they lie side by side
_PROGRAMS = 1024  # programs from which on each gets several tiles: enough to fill a large GPU
_MOST = 64  # tiles of a program, and so values that a slot sums
_MERGED = 32  # rows, and columns, of parts that are merged at a time
_LARGEST = 2**31  # offsets inside a sample are 32 bits


# --- where a program works


@triton.jit
def _program(blocks, n, c, l, size, piece, STEPS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr):
    """Return samples from and to, first position, channels, row of parts, cells in the tables, columns, their limits."""
    program, tiles, pieces = tl.program_id(0), (c + BL - 1) // BL, (l + piece - 1) // piece
    channel = (program % tiles * BL + tl.arange(0, BL))[None, None, :]
    row, low = program // tiles, program // tiles % pieces * piece
    block = (row // pieces).to(tl.int64)
    if blocks is None:
        start, stop, group = block * size, tl.minimum(block * size + size, n), block * 0
    else:
        start, stop, group = tl.load(blocks + 3 * block), tl.load(blocks + 3 * block + 1), tl.load(blocks + 3 * block + 2)
    if STEPS:
        position = (low + tl.arange(0, BP))[None, :, None]
        return start, stop, low, channel, block, position * c + channel, position * c + channel, (position < l) & (channel < c)
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
def _line(scale, shift, cell, there, NUMBER: tl.constexpr):
    """Return zero, slope and rest with which `x * scale + shift` is `(x - zero) * slope + rest`."""
    slope = tl.load(scale + cell, mask=there, other=0)
    height = tl.load(shift + cell, mask=there, other=0)
    zero = (-height / slope).to(NUMBER)
    zero = tl.where(tl.abs(zero) < float("inf"), zero, 0)
    return zero, slope.to(NUMBER), (height + zero.to(tl.float64) * slope).to(NUMBER)


@triton.jit
def _over(values, STEPS: tl.constexpr):
    """Sum a tile over its samples and, unless each step has its own column, its positions."""
    values = tl.sum(values, 0, keep_dims=True)
    if not STEPS:
        values = tl.sum(values, 1, keep_dims=True)
    return values


# --- walks


@triton.jit
def _measure(
    x, parts, order, blocks, mask, n, c, l, size, piece, width,
    NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr,
    BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write count, a value of the group, the mean less that value, and m2: (rows, 4, width)."""
    start, stop, low, channel, row, _, column, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    count, first = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    total, square = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, _, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            first = tl.where(valid & (count == 0) & (tl.abs(value) < float("inf")), value, first)
            gap = tl.where(valid, value - first, 0)
            total += gap
            square += gap * gap
            count += valid.to(NUMBER)
    number = _over(count, STEPS)
    pivot = tl.max(tl.where(count > 0, first, float("-inf")), 0, keep_dims=True)
    if not STEPS:
        pivot = tl.max(pivot, 1, keep_dims=True)
    pivot = tl.where(number > 0, pivot, 0)
    means = tl.where(count > 0, first - pivot + total / tl.maximum(count, 1), 0)
    mean = _over(count * means, STEPS) / tl.maximum(number, 1)
    spread = square - total * total / tl.maximum(count, 1)
    m2 = _over(tl.where(spread < 0, 0, spread) + count * (means - mean) * (means - mean), STEPS)
    at = parts + 4 * row * width + column
    tl.store(at, number, mask=there)
    tl.store(at + width, pivot, mask=there)
    tl.store(at + 2 * width, mean, mask=there)
    tl.store(at + 3 * width, m2, mask=there)


@triton.jit
def _products(
    dy, x, mean, scale, shift, parts, order, blocks, mask, n, c, l, size, piece, width,
    NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr,
    BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write the sums of dy and of dy times the centred input: (rows, 2, width)."""
    start, stop, low, channel, row, cell, column, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    exact = tl.load(mean + cell, mask=there, other=0)
    middle = exact.to(NUMBER)
    remainder = (exact - middle.to(tl.float64)).to(NUMBER)
    if scale is not None:
        zero, slope, rest = _line(scale, shift, cell, there, NUMBER)
    total, product = tl.full((BS, BP, BL), 0, NUMBER), tl.full((BS, BP, BL), 0, NUMBER)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, _, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            slopes = tl.load(dy + offset, mask=valid, other=0).to(NUMBER)
            if scale is not None:
                slopes = tl.where((value - zero) * slope + rest <= 0, 0, slopes)
            total += slopes
            product += tl.where(valid, slopes * (value - middle - remainder), 0)
    at = parts + 2 * row * width + column
    tl.store(at, _over(total, STEPS), mask=there)
    tl.store(at + width, _over(product, STEPS), mask=there)


@triton.jit
def _affine(
    x, scale, shift, other, factor, gate_scale, gate_shift, out, order, blocks, mask, n, c, l, size, piece,
    RECTIFY: tl.constexpr, NUMBER: tl.constexpr, LAST: tl.constexpr, STEPS: tl.constexpr,
    BS: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Write `x * scale + shift + other * factor`, other gated or the result rectified; 0 where masked."""
    start, stop, low, channel, _, cell, _, there = _program(blocks, n, c, l, size, piece, STEPS, BP, BL)
    zero, slope, rest = _line(scale, shift, cell, there, NUMBER)
    if factor is not None:
        weight = tl.load(factor + cell, mask=there, other=0).to(NUMBER)
    if gate_scale is not None:
        gate_zero, gate_slope, gate_rest = _line(gate_scale, gate_shift, cell, there, NUMBER)
    for s in range(start, stop, BS):
        for p in range(low, tl.minimum(low + piece, l), BP):
            offset, inside, valid = _tile(order, mask, s, stop, p, channel, c, l, LAST, BS, BP)
            value = tl.load(x + offset, mask=valid, other=0).to(NUMBER)
            y = (value - zero) * slope + rest
            if other is not None:
                added = tl.load(other + offset, mask=valid, other=0).to(NUMBER)
                if gate_scale is not None:
                    added = tl.where((value - gate_zero) * gate_slope + gate_rest <= 0, 0, added)
                if factor is not None:
                    added = added * weight
                y += added
            if RECTIFY:
                y = tl.where(y <= 0, 0, y)
            tl.store(out + offset, tl.where(valid, y, 0).to(out.dtype.element_ty), mask=inside)


# --- merges


@triton.jit
def _rows(first, rows, pieces, width, BC: tl.constexpr):
    """Return this program's place in the result, its columns, and its group's rows of parts."""
    tiles = (width + BC - 1) // BC
    group = (tl.program_id(0) // tiles).to(tl.int64)
    column = (tl.program_id(0) % tiles * BC + tl.arange(0, BC))[None, :]
    if first is None:
        low, high = group * 0, group * 0 + rows
    else:
        low, high = tl.load(first + group) * pieces, tl.load(first + group + 1) * pieces
    return group, column, low, high


@triton.jit
def _merge(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Merge rows of `_measure` by group: count, mean and m2, (groups, 3, width)."""
    group, column, low, high = _rows(first, rows, pieces, width, BC)
    count, total, m2 = (tl.full((BR, BC), 0, tl.float64), tl.full((BR, BC), 0, tl.float64), tl.full((BR, BC), 0, tl.float64))
    for r in range(low, high, BR):
        row = r + tl.arange(0, BR)[:, None]
        there = (row < high) & (column < width)
        at = parts + 4 * row * width + column
        number = tl.load(at, mask=there, other=0).to(tl.float64)
        mean = tl.load(at + width, mask=there, other=0).to(tl.float64) + tl.load(at + 2 * width, mask=there, other=0)
        count += number
        total += number * mean
    count = tl.sum(count, 0, keep_dims=True)
    centre = tl.sum(total, 0, keep_dims=True) / tl.maximum(count, 1)
    for r in range(low, high, BR):
        row = r + tl.arange(0, BR)[:, None]
        there = (row < high) & (column < width)
        at = parts + 4 * row * width + column
        number = tl.load(at, mask=there, other=0).to(tl.float64)
        mean = tl.load(at + width, mask=there, other=0).to(tl.float64) + tl.load(at + 2 * width, mask=there, other=0)
        within = tl.load(at + 3 * width, mask=there, other=0).to(tl.float64)
        m2 += tl.where(there, within + number * (mean - centre) * (mean - centre), 0)
    at = out + 3 * group * width + column
    tl.store(at, count, mask=column < width)
    tl.store(at + width, centre, mask=column < width)
    tl.store(at + 2 * width, tl.sum(m2, 0, keep_dims=True), mask=column < width)


@triton.jit
def _add(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Add rows by group: (groups, width)."""
    group, column, low, high = _rows(first, rows, pieces, width, BC)
    total = tl.full((BR, BC), 0, tl.float64)
    for r in range(low, high, BR):
        row = r + tl.arange(0, BR)[:, None]
        total += tl.load(parts + row * width + column, mask=(row < high) & (column < width), other=0)
    tl.store(out + group * width + column, tl.sum(total, 0, keep_dims=True), mask=column < width)


# --- the contract


def supports(x: Tensor) -> bool:
    """Return whether this backend takes the tensor; interpreted, it takes those on the CPU."""
    device = "cuda" if isinstance(_affine, triton.JITFunction) else "cpu"
    return x.device.type == device and x.dtype in _DTYPES and x.numel() > 0 and x[0].numel() < _LARGEST


def reduce(x: Float[Tensor, "n c l"], cells: Cells) -> Moments:
    """Measure the moments of every cell; tables `(g, c)`, counts `(g, 1)`."""
    walk = _walk(x, cells)
    parts = walk.parts(x, 4)
    walk.launch(_measure, walk.laid(x), parts, *walk.arguments, walk.width, **walk.options(x.dtype))
    count, mean, m2 = walk.merged(_merge, parts, 3)
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
    return _combine(x, (scale, shift), residual, None, None, cells, rectify=rectify)


def reduce_backward(
    dy: Float[Tensor, "n c l"],
    x: Float[Tensor, "n c l"],
    mean: Float[Tensor, "g c"],
    cells: Cells,
    gate: Gate | None = None,
) -> tuple[Float[Tensor, "g c"], Float[Tensor, "g c"]]:
    """Return `S = sum dy` and `T = sum dy * (x - mean[g])`; tables `(g, c)`."""
    walk = _walk(x, cells)
    parts = walk.parts(x, 2)
    ...


def _combine():
    ...
