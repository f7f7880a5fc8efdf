"""Loops over planes `(n, c, l)`: a statistic belongs to a group and channel, positions are summed."""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from normwise.core.kernels.compiled.blocks import BLOCK, finish, first_pivot, flush, pick
from normwise.core.kernels.compiled.loop import loop


@loop
def _span(stop, start, length):
    """Return how many values to read of a block whose valid ones end at `stop`: all, unless most are padding."""
    there = min(length, start + BLOCK) - start
    return there if 2 * (stop - start) >= there else stop - start


@loop
def _reduce_whole(low, high, x, order, start, end, mean, m2):
    width, number = high - low, x.dtype.type
    total, square, pivot = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    sums = np.zeros(width)
    for g in range(len(start) - 1):
        before, count = 0, 0
        sums[:] = 0
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, end[i], BLOCK):
                stop = min(end[i], p + BLOCK)
                valid, span, limit = stop - p, _span(stop, p, x.shape[2]), np.int32(stop - p)
                if before + count == 0:
                    for c in range(width):
                        pivot[c] = first_pivot(x[i, low + c, p:stop])
                for c in range(width):
                    piece = x[i, low + c, p : p + span]
                    middle, s, q = pivot[c], number(0), number(0)
                    if span == valid:
                        for j in range(span):
                            d = piece[j] - middle
                            s += d
                            q += d * d
                    else:
                        for j in range(span):
                            d = pick(np.int32(j) < limit, piece[j] - middle)
                            s += d
                            q += d * d
                    total[c] += s
                    square[c] += q
                count += stop - p
                if count >= BLOCK:
                    flush(before, count, pivot, total, square, mean, m2, sums, g, low)
                    before, count = before + count, 0
        flush(before, count, pivot, total, square, mean, m2, sums, g, low)
        finish(before + count, sums, mean, g, low)


@loop
def _reduce_masked(low, high, x, order, start, end, mask, mean, m2):
    width, number = high - low, x.dtype.type
    total, square, pivot = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    sums = np.zeros(width)
    for g in range(len(start) - 1):
        before, count = 0, 0
        sums[:] = 0
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, end[i], BLOCK):
                stop, here = min(end[i], p + BLOCK), 0
                valid = mask[i, p:stop]
                for j in range(stop - p):
                    here += valid[j]
                if here == 0:
                    continue
                if before + count == 0:
                    for c in range(width):
                        pivot[c] = first_pivot(x[i, low + c, p:stop][valid])
                for c in range(width):
                    piece = x[i, low + c, p:stop]
                    middle, s, q = pivot[c], number(0), number(0)
                    for j in range(stop - p):
                        d = pick(valid[j], piece[j] - middle)
                        s += d
                        q += d * d
                    total[c] += s
                    square[c] += q
                count += here
                if count >= BLOCK:
                    flush(before, count, pivot, total, square, mean, m2, sums, g, low)
                    before, count = before + count, 0
        flush(before, count, pivot, total, square, mean, m2, sums, g, low)
        finish(before + count, sums, mean, g, low)


@loop
def reduce_planes(low, high, x, order, start, end, mask, mean, m2):
    if mask.shape[1] > 0:
        _reduce_masked(low, high, x, order, start, end, mask, mean, m2)
    else:
        _reduce_whole(low, high, x, order, start, end, mean, m2)


@loop
def apply_planes(low, high, x, first, last, index, end, mask, zero, slope, rest, residual, add, rectify, y):
    number, masked = x.dtype.type, mask.shape[1] > 0
    for i in range(low, high):
        g, stop, limit = index[i] if len(index) else 0, end[i], np.int32(end[i])
        for c in range(first, last):
            z, a, d = zero[g, c], slope[g, c], rest[g, c]
            values, out, after = x[i, c, :stop], y[i, c, :stop], y[i, c, stop:]
            if add:
                added = residual[i, c, :stop]
                if rectify:
                    for j in range(stop):
                        v = (values[j] - z) * a + (d + added[j])
                        out[j] = pick(not (v <= 0), v)
                else:
                    for j in range(stop):
                        out[j] = (values[j] - z) * a + (d + added[j])
            elif rectify:
                for j in range(stop):
                    v = (values[j] - z) * a + d
                    out[j] = pick(not (v <= 0), v)
            elif stop < x.shape[2] <= 2 * stop:
                values, out, after = x[i, c], y[i, c], after[:0]
                for j in range(x.shape[2]):
                    out[j] = pick(np.int32(j) < limit, (values[j] - z) * a + d)
            else:
                for j in range(stop):
                    out[j] = (values[j] - z) * a + d
            if masked:
                valid = mask[i, :stop]
                for j in range(stop):
                    out[j] = out[j] if valid[j] else number(0)
            for j in range(len(after)):
                after[j] = 0


@loop
def _reduce_backward_whole(low, high, dy, x, order, start, end, mean, gated, zero, slope, rest, total, product):
    number = x.dtype.type
    kept = np.empty(BLOCK, x.dtype)
    for g in range(len(start) - 1):
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, end[i], BLOCK):
                stop = min(end[i], p + BLOCK)
                valid, span, limit = stop - p, _span(stop, p, x.shape[2]), np.int32(stop - p)
                for c in range(low, high):
                    values, slopes = x[i, c, p : p + span], dy[i, c, p : p + span]
                    middle, s, t = mean[g, c], number(0), number(0)
                    if gated:
                        z, a, d = zero[g, c], slope[g, c], rest[g, c]
                        for j in range(stop - p):
                            kept[j] = pick(not ((values[j] - z) * a + d <= 0), slopes[j])
                        for j in range(stop - p):
                            s += kept[j]
                            t += kept[j] * (values[j] - middle)
                    elif span == valid:
                        for j in range(span):
                            s += slopes[j]
                            t += slopes[j] * (values[j] - middle)
                    else:
                        for j in range(span):
                            w = pick(np.int32(j) < limit, slopes[j])
                            s += w
                            t += w * pick(np.int32(j) < limit, values[j] - middle)
                    total[g, c] += s
                    product[g, c] += t


@loop
def _reduce_backward_masked(low, high, dy, x, order, start, end, mask, mean, gated, zero, slope, rest, total, product):
    number = x.dtype.type
    kept = np.empty(BLOCK, x.dtype)
    for g in range(len(start) - 1):
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, end[i], BLOCK):
                stop = min(end[i], p + BLOCK)
                valid = mask[i, p:stop]
                for c in range(low, high):
                    values, slopes = x[i, c, p:stop], dy[i, c, p:stop]
                    middle, s, t = mean[g, c], number(0), number(0)
                    if gated:
                        z, a, d = zero[g, c], slope[g, c], rest[g, c]
                        for j in range(stop - p):
                            kept[j] = pick(not ((values[j] - z) * a + d <= 0), slopes[j])
                        for j in range(stop - p):
                            w = pick(valid[j], kept[j])
                            s += w
                            t += w * pick(valid[j], values[j] - middle)
                    else:
                        for j in range(stop - p):
                            w = pick(valid[j], slopes[j])
                            s += w
                            t += w * pick(valid[j], values[j] - middle)
                    total[g, c] += s
                    product[g, c] += t


@loop
def reduce_backward_planes(low, high, dy, x, order, start, end, mask, mean, gated, zero, slope, rest, total, product):
    if mask.shape[1] > 0:
        _reduce_backward_masked(
            low, high, dy, x, order, start, end, mask, mean, gated, zero, slope, rest, total, product
        )
    else:
        _reduce_backward_whole(low, high, dy, x, order, start, end, mean, gated, zero, slope, rest, total, product)


@loop
def apply_backward_planes(
    low,
    high,
    dy,
    x,
    first,
    last,
    index,
    end,
    mask,
    factor,
    zero,
    slope,
    rest,
    gated,
    gate_zero,
    gate_slope,
    gate_rest,
    dx,
):
    number, masked = x.dtype.type, mask.shape[1] > 0
    for i in range(low, high):
        g, stop, limit = index[i] if len(index) else 0, end[i], np.int32(end[i])
        for c in range(first, last):
            f, z, b, d = factor[g, c], zero[g, c], slope[g, c], rest[g, c]
            values, slopes, out, after = x[i, c, :stop], dy[i, c, :stop], dx[i, c, :stop], dx[i, c, stop:]
            if gated:
                gz, ga, gd = gate_zero[g, c], gate_slope[g, c], gate_rest[g, c]
                for j in range(stop):
                    kept = pick(not ((values[j] - gz) * ga + gd <= 0), slopes[j])
                    out[j] = kept * f + ((values[j] - z) * b + d)
            elif stop < x.shape[2] <= 2 * stop:
                values, slopes, out, after = x[i, c], dy[i, c], dx[i, c], after[:0]
                for j in range(x.shape[2]):
                    out[j] = pick(np.int32(j) < limit, slopes[j] * f + ((values[j] - z) * b + d))
            else:
                for j in range(stop):
                    out[j] = slopes[j] * f + ((values[j] - z) * b + d)
            if masked:
                valid = mask[i, :stop]
                for j in range(stop):
                    out[j] = out[j] if valid[j] else number(0)
            for j in range(len(after)):
                after[j] = 0
