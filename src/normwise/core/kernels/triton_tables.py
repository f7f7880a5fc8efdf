"""Triton kernels on small tables, in float64: what a walk reads, and what its programs wrote, merged by group.

The rows of a group are merged in a fixed order and without atomics, so that the same input gives the same bits.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def prepare(scale, shift, gate_scale, gate_shift, factor, out, size, NUMBER: tl.constexpr, BLOCK: tl.constexpr):
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
    """Return count, mean and m2 of rows that `triton_walks.measure` wrote."""
    row = r + tl.arange(0, BR)[:, None]
    at, there = parts + 4 * row * width + column, (row < high) & (column < width)
    pivot, rest = tl.load(at + width, mask=there, other=0), tl.load(at + 2 * width, mask=there, other=0)
    number, m2 = tl.load(at, mask=there, other=0), tl.load(at + 3 * width, mask=there, other=0)
    return number.to(tl.float64), pivot.to(tl.float64) + rest.to(tl.float64), m2.to(tl.float64)


@triton.jit
def merge(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Merge what `triton_walks.measure` wrote, by group: (groups, 3, width)."""
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
def add(parts, first, out, rows, pieces, width, BR: tl.constexpr, BC: tl.constexpr):
    """Add what `triton_walks.project` wrote, by group: (groups, 2, width)."""
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
