"""Loops over rows `(r, k)`: a statistic belongs to a group and column, nothing inside a row is summed."""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from normwise.core.kernels.compiled.blocks import PIVOT, ROWS, finish, flush, lean, pick
from normwise.core.kernels.compiled.loop import loop

COLUMNS = 1024  # columns worked on at a time, so that their sums stay in the fastest cache


@loop
def reduce_rows(low, high, x, first, last, start, mean, m2):
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        total, square = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
        pivot, sums = np.zeros(width, x.dtype), np.zeros(width)
        for g in range(first, last):
            before, count = 0, 0
            sums[:] = pivot[:] = 0
            few = min(PIVOT, start[g + 1] - start[g])
            for i in range(start[g], start[g] + few):
                lean(pivot, x[i, left:right], few)
            for i in range(start[g], start[g + 1]):
                row = x[i, left:right]
                for j in range(width):
                    d = row[j] - pivot[j]
                    total[j] += d
                    square[j] += d * d
                count += 1
                if count == ROWS:
                    flush(before, count, pivot, total, square, mean, m2, sums, g, left)
                    before, count = before + count, 0
            flush(before, count, pivot, total, square, mean, m2, sums, g, left)
            finish(before + count, sums, mean, g, left)


@loop
def reduce_scattered(low, high, x, start, index, mean, m2):
    groups = len(start) - 1
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        total, square = np.zeros((groups, width), x.dtype), np.zeros((groups, width), x.dtype)
        pivot, sums = np.zeros((groups, width), x.dtype), np.zeros((groups, width))
        before, count = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
        for i in range(len(x)):
            g = index[i]
            if g >= 0 and count[g] < PIVOT:
                lean(pivot[g], x[i, left:right], min(PIVOT, start[g + 1] - start[g]))
                count[g] += 1
        count[:] = 0
        for i in range(len(x)):
            g = index[i]
            if g < 0:
                continue
            row, middle, s, q = x[i, left:right], pivot[g], total[g], square[g]
            for j in range(width):
                d = row[j] - middle[j]
                s[j] += d
                q[j] += d * d
            count[g] += 1
            if count[g] == ROWS:
                flush(before[g], ROWS, pivot[g], total[g], square[g], mean, m2, sums[g], g, left)
                before[g] += ROWS
                count[g] = 0
        for g in range(groups):
            flush(before[g], count[g], pivot[g], total[g], square[g], mean, m2, sums[g], g, left)
            finish(before[g] + count[g], sums[g], mean, g, left)


@loop
def apply_rows(low, high, x, first, last, index, zero, slope, rest, residual, add, rectify, y):
    for left in range(first, last, COLUMNS):
        right = min(last, left + COLUMNS)
        here = 0
        z, a, d = zero[0, left:right], slope[0, left:right], rest[0, left:right]
        for i in range(low, high):
            g = index[i] if len(index) else 0
            out = y[i, left:right]
            if g < 0:
                for j in range(right - left):
                    out[j] = 0
                continue
            if g != here:
                here = g
                z, a, d = zero[g, left:right], slope[g, left:right], rest[g, left:right]
            values = x[i, left:right]
            if add:
                added = residual[i, left:right]
                for j in range(right - left):
                    out[j] = (values[j] - z[j]) * a[j] + (d[j] + added[j])
            else:
                for j in range(right - left):
                    out[j] = (values[j] - z[j]) * a[j] + d[j]
            if rectify:
                for j in range(right - left):
                    out[j] = pick(not (out[j] <= 0), out[j])


@loop
def reduce_backward_rows(low, high, dy, x, first, last, start, mean, gated, zero, slope, rest, total, product):
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        s, t, kept = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.empty(width, x.dtype)
        for g in range(first, last):
            middle = mean[g, left:right]
            for block in range(start[g], start[g + 1], ROWS):
                for i in range(block, min(start[g + 1], block + ROWS)):
                    values, slopes = x[i, left:right], dy[i, left:right]
                    if gated:
                        z, a, d = zero[g, left:right], slope[g, left:right], rest[g, left:right]
                        for j in range(width):
                            kept[j] = pick(not ((values[j] - z[j]) * a[j] + d[j] <= 0), slopes[j])
                        for j in range(width):
                            s[j] += kept[j]
                            t[j] += kept[j] * (values[j] - middle[j])
                    else:
                        for j in range(width):
                            s[j] += slopes[j]
                            t[j] += slopes[j] * (values[j] - middle[j])
                for j in range(width):
                    total[g, left + j] += s[j]
                    product[g, left + j] += t[j]
                    s[j] = t[j] = 0


@loop
def reduce_backward_scattered(low, high, dy, x, start, index, mean, gated, zero, slope, rest, total, product):
    groups = len(start) - 1
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        totals, products = np.zeros((groups, width), x.dtype), np.zeros((groups, width), x.dtype)
        kept, count = np.empty(width, x.dtype), np.zeros(groups, np.int64)
        for i in range(len(x)):
            g = index[i]
            if g < 0:
                continue
            values, slopes, middle = x[i, left:right], dy[i, left:right], mean[g, left:right]
            s, t = totals[g], products[g]
            if gated:
                z, a, d = zero[g, left:right], slope[g, left:right], rest[g, left:right]
                for j in range(width):
                    kept[j] = pick(not ((values[j] - z[j]) * a[j] + d[j] <= 0), slopes[j])
                for j in range(width):
                    s[j] += kept[j]
                    t[j] += kept[j] * (values[j] - middle[j])
            else:
                for j in range(width):
                    s[j] += slopes[j]
                    t[j] += slopes[j] * (values[j] - middle[j])
            count[g] += 1
            if count[g] == ROWS:
                settle(s, t, total, product, g, left)
                count[g] = 0
        for g in range(groups):
            settle(totals[g], products[g], total, product, g, left)


@loop
def settle(s, t, total, product, g, left):
    """Add sums of a block to the tables and start anew."""
    for j in range(len(s)):
        total[g, left + j] += s[j]
        product[g, left + j] += t[j]
        s[j] = t[j] = 0


@loop
def apply_backward_rows(
    low, high, dy, x, first, last, index, factor, zero, slope, rest, gated, gate_zero, gate_slope, gate_rest, dx
):
    for left in range(first, last, COLUMNS):
        right = min(last, left + COLUMNS)
        here = 0
        f, z, b, d = factor[0, left:right], zero[0, left:right], slope[0, left:right], rest[0, left:right]
        for i in range(low, high):
            g = index[i] if len(index) else 0
            out = dx[i, left:right]
            if g < 0:
                for j in range(right - left):
                    out[j] = 0
                continue
            if g != here:
                here = g
                f, z, b, d = factor[g, left:right], zero[g, left:right], slope[g, left:right], rest[g, left:right]
            values, slopes = x[i, left:right], dy[i, left:right]
            if gated:
                gz, ga, gd = gate_zero[g, left:right], gate_slope[g, left:right], gate_rest[g, left:right]
                for j in range(right - left):
                    kept = pick(not ((values[j] - gz[j]) * ga[j] + gd[j] <= 0), slopes[j])
                    out[j] = kept * f[j] + ((values[j] - z[j]) * b[j] + d[j])
            else:
                for j in range(right - left):
                    out[j] = slopes[j] * f[j] + ((values[j] - z[j]) * b[j] + d[j])
