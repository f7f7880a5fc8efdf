"""Triton kernels that walk through a tensor: measured, projected for the backward pass, or turned into another.

Every kernel walks a tensor `(n, c, l)` the same way. A program owns a block of samples of one group, a piece of the
positions and a tile of channels, and goes through them in tiles of (samples, positions, channels). A statistic has a
column: a channel or, by step, a step and channel. What a program measured is one row of `parts`.

Inside a program numbers are float32, or float64 for float64 tensors. Each slot of a tile sums differences from the
first value it meets, and slots are merged by their means (Chan, Golub and LeVeque 1979); `x * scale + shift` is
computed as `(x - zero) * slope + rest` with `zero` near the crossing. So an offset of x costs no digits.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportOperatorIssue=false
# ruff: noqa: E741

from __future__ import annotations

import triton
import triton.language as tl

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
    """Return what `triton_tables.prepare` wrote: `x * scale + shift` is `(x - zero) * slope + rest`."""
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


# --- the walks


@triton.jit
def measure(
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
def project(
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
def affine(
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
