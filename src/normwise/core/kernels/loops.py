"""The compiled loops behind `cpu`: numba, float32 or float64.

Two families, by what a statistic belongs to:

    planes (n, c, l)  a group and channel: positions are summed
    rows   (r, k)     a group and column: nothing inside a row is summed

`low, high` is a range of the axis that threads share (channels, columns, samples or rows); no result depends on how it
is shared. Samples come in the order of their groups, `order[start[g]:start[g + 1]]`, an empty order being the natural
one; valid positions come as runs, sample i holding `begin[k]:end[k]` for k in `first[i]:first[i + 1]`.

Sums run over blocks in the dtype of the values, about a pivot near the mean, and blocks are merged in float64 (Chan,
Golub and LeVeque 1979). `x * scale + shift` is computed as `(x - zero) * slope + rest` with `zero` near the crossing,
so that an offset of x costs no digits. NaN and infinity survive: no fast-math flag assumes them away.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: D103

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 2048  # values summed in their own dtype before a merge
ROWS = 256  # rows summed in their own dtype before a merge
COLUMNS = 1024  # columns worked on at a time, so that their sums stay in the fastest cache
PIVOT = 8  # values that a first pivot is the mean of

loop = njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract", "arcp"})


# --- preparation


@loop
def order_by_group(index, order, start):
    """Sort samples by group, stably; a negative group is none."""
    for group in index:
        if group >= 0:
            start[group + 1] += 1
    for g in range(1, len(start)):
        start[g] += start[g - 1]
    place = start[:-1].copy()
    for i in range(len(index)):
        if index[i] >= 0:
            order[place[index[i]]] = i
            place[index[i]] += 1


@loop
def find_runs(mask, first, begin, end):
    """Write the runs of a boolean `(n, l)` mask; `begin` and `end` must have room for all of them."""
    k = 0
    for i in range(mask.shape[0]):
        inside = False
        for p in range(mask.shape[1]):
            if mask[i, p] and not inside:
                begin[k] = p
            elif inside and not mask[i, p]:
                end[k] = p
                k += 1
            inside = mask[i, p]
        if inside:
            end[k] = mask.shape[1]
            k += 1
        first[i + 1] = k


@loop
def centre(scale, shift, zero, slope, rest):
    """Rewrite `x * scale + shift` as `(x - zero) * slope + rest`, in the dtype of the results."""
    for g in range(scale.shape[0]):
        for c in range(scale.shape[1]):
            zero[g, c] = -shift[g, c] / scale[g, c] if scale[g, c] != 0 else 0.0
            if not np.isfinite(zero[g, c]):
                zero[g, c] = 0
            slope[g, c] = scale[g, c]
            rest[g, c] = shift[g, c] + np.float64(zero[g, c]) * scale[g, c]


# --- one table entry


@loop
def _merge(before, count, pivot, total, square, mean, m2, g, c):
    """Merge `count` values, with these sums about `pivot`, into the `before` values of entry (g, c); return the sum."""
    total = np.float64(total)
    spread = np.float64(square) - total * total / count
    if spread < 0:
        spread = 0.0
    gap = pivot + total / count - mean[g, c]
    share = count / (before + count)
    mean[g, c] += gap * share
    m2[g, c] += spread + gap * gap * before * share
    return count * np.float64(pivot) + total


@loop
def _finish(count, sums, mean, g, low):
    """Take the mean from the sum where it is not finite: merged means give infinity minus infinity."""
    for c in range(len(sums)):
        if not np.isfinite(mean[g, low + c]) and count > 0:
            mean[g, low + c] = sums[c] / count


@loop
def _pivot(values):
    """Return the mean of the first few values, or 0 where that is not finite."""
    total = values.dtype.type(0)
    count = min(PIVOT, len(values))
    for i in range(count):
        total += values[i]
    total /= values.dtype.type(count)
    return total if np.isfinite(total) else values.dtype.type(0)


# --- planes


@loop
def reduce_planes(low, high, x, order, start, first, begin, end, mean, m2):
    width, number = high - low, x.dtype.type
    total, square, pivot = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    sums = np.zeros(width)
    for g in range(len(start) - 1):
        before, count, fresh = 0, 0, True
        sums[:] = 0
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for k in range(first[i], first[i + 1]):
                for p in range(begin[k], end[k], BLOCK):
                    stop = min(end[k], p + BLOCK)
                    for c in range(width):
                        piece = x[i, low + c, p:stop]
                        if fresh:
                            pivot[c] = _pivot(piece)
                        middle, s, q = pivot[c], number(0), number(0)
                        for j in range(stop - p):
                            d = piece[j] - middle
                            s += d
                            q += d * d
                        total[c] += s
                        square[c] += q
                    fresh = False
                    count += stop - p
                    if count >= BLOCK:
                        _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
                        before, count = before + count, 0
        if count:
            _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
        _finish(before + count, sums, mean, g, low)


@loop
def _flush(before, count, pivot, total, square, mean, m2, sums, g, low):
    """Merge every channel's block and move its pivot to the mean so far."""
    for c in range(len(pivot)):
        sums[c] += _merge(before, count, pivot[c], total[c], square[c], mean, m2, g, low + c)
        pivot[c] = mean[g, low + c]
        if not np.isfinite(pivot[c]):
            pivot[c] = 0
        total[c] = square[c] = 0


@loop
def apply_planes(low, high, x, index, first, begin, end, zero, slope, rest, residual, add, rectify, y):
    for i in range(low, high):
        g = index[i] if len(index) else 0
        for c in range(x.shape[1]):
            z, a, d = zero[g, c], slope[g, c], rest[g, c]
            done = 0
            for k in range(first[i], first[i + 1]):
                p, stop = begin[k], end[k]
                for j in range(done, p):
                    y[i, c, j] = 0
                values, out = x[i, c, p:stop], y[i, c, p:stop]
                if add:
                    added = residual[i, c, p:stop]
                    for j in range(stop - p):
                        out[j] = (values[j] - z) * a + (d + added[j])
                else:
                    for j in range(stop - p):
                        out[j] = (values[j] - z) * a + d
                if rectify:
                    for j in range(stop - p):
                        out[j] = x.dtype.type(0) if out[j] <= 0 else out[j]
                done = stop
            for j in range(done, x.shape[2]):
                y[i, c, j] = 0


@loop
def reduce_backward_planes(
    low, high, dy, x, order, start, first, begin, end, mean, gated, zero, slope, rest, total, product
):
    number = x.dtype.type
    kept = np.empty(BLOCK, x.dtype)
    for g in range(len(start) - 1):
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for k in range(first[i], first[i + 1]):
                for p in range(begin[k], end[k], BLOCK):
                    stop = min(end[k], p + BLOCK)
                    for c in range(low, high):
                        values, slopes = x[i, c, p:stop], dy[i, c, p:stop]
                        middle, s, t = mean[g, c], number(0), number(0)
                        if gated:
                            z, a, d = zero[g, c], slope[g, c], rest[g, c]
                            for j in range(stop - p):
                                kept[j] = number(0) if (values[j] - z) * a + d <= 0 else slopes[j]
                            for j in range(stop - p):
                                s += kept[j]
                                t += kept[j] * (values[j] - middle)
                        else:
                            for j in range(stop - p):
                                s += slopes[j]
                                t += slopes[j] * (values[j] - middle)
                        total[g, c] += s
                        product[g, c] += t


@loop
def apply_backward_planes(
    low, high, dy, x, index, first, begin, end, factor, zero, slope, rest, gated, gate_zero, gate_slope, gate_rest, dx
):
    number = x.dtype.type
    for i in range(low, high):
        g = index[i] if len(index) else 0
        for c in range(x.shape[1]):
            f, z, b, d = factor[g, c], zero[g, c], slope[g, c], rest[g, c]
            done = 0
            for k in range(first[i], first[i + 1]):
                p, stop = begin[k], end[k]
                for j in range(done, p):
                    dx[i, c, j] = 0
                values, slopes, out = x[i, c, p:stop], dy[i, c, p:stop], dx[i, c, p:stop]
                if gated:
                    gz, ga, gd = gate_zero[g, c], gate_slope[g, c], gate_rest[g, c]
                    for j in range(stop - p):
                        kept = number(0) if (values[j] - gz) * ga + gd <= 0 else slopes[j]
                        out[j] = kept * f + ((values[j] - z) * b + d)
                else:
                    for j in range(stop - p):
                        out[j] = slopes[j] * f + ((values[j] - z) * b + d)
                done = stop
            for j in range(done, x.shape[2]):
                dx[i, c, j] = 0


# --- rows


@loop
def reduce_rows(low, high, x, order, start, mean, m2):
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        total, square = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
        pivot, sums = np.zeros(width, x.dtype), np.zeros(width)
        for g in range(len(start) - 1):
            before, count = 0, 0
            sums[:] = 0
            _first_rows(x, order, start[g], start[g + 1], left, pivot)
            for place in range(start[g], start[g + 1]):
                row = x[order[place] if len(order) else place, left:right]
                for j in range(width):
                    d = row[j] - pivot[j]
                    total[j] += d
                    square[j] += d * d
                count += 1
                if count == ROWS:
                    _flush(before, count, pivot, total, square, mean, m2, sums, g, left)
                    before, count = before + count, 0
            if count:
                _flush(before, count, pivot, total, square, mean, m2, sums, g, left)
            _finish(before + count, sums, mean, g, left)


@loop
def _first_rows(x, order, begin, end, left, pivot):
    """Set the pivot to the mean of a group's first few rows."""
    pivot[:] = 0
    count = min(PIVOT, end - begin)
    for place in range(begin, begin + count):
        row = x[order[place] if len(order) else place, left : left + len(pivot)]
        for j in range(len(pivot)):
            pivot[j] += row[j] / x.dtype.type(count)
    for j in range(len(pivot)):
        if not np.isfinite(pivot[j]):
            pivot[j] = 0


@loop
def apply_rows(low, high, x, index, zero, slope, rest, residual, add, rectify, y):
    columns = x.shape[1]
    for left in range(0, columns, COLUMNS):
        right = min(columns, left + COLUMNS)
        for i in range(low, high):
            g = index[i] if len(index) else 0
            out = y[i, left:right]
            if g < 0:
                for j in range(right - left):
                    out[j] = 0
                continue
            values, z, a, d = x[i, left:right], zero[g, left:right], slope[g, left:right], rest[g, left:right]
            if add:
                added = residual[i, left:right]
                for j in range(right - left):
                    out[j] = (values[j] - z[j]) * a[j] + (d[j] + added[j])
            else:
                for j in range(right - left):
                    out[j] = (values[j] - z[j]) * a[j] + d[j]
            if rectify:
                for j in range(right - left):
                    out[j] = x.dtype.type(0) if out[j] <= 0 else out[j]


@loop
def reduce_backward_rows(low, high, dy, x, order, start, mean, gated, zero, slope, rest, total, product):
    number = x.dtype.type
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        s, t, kept = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.empty(width, x.dtype)
        for g in range(len(start) - 1):
            middle = mean[g, left:right]
            for block in range(start[g], start[g + 1], ROWS):
                for place in range(block, min(start[g + 1], block + ROWS)):
                    i = order[place] if len(order) else place
                    values, slopes = x[i, left:right], dy[i, left:right]
                    if gated:
                        z, a, d = zero[g, left:right], slope[g, left:right], rest[g, left:right]
                        for j in range(width):
                            kept[j] = number(0) if (values[j] - z[j]) * a[j] + d[j] <= 0 else slopes[j]
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
def apply_backward_rows(
    low, high, dy, x, index, factor, zero, slope, rest, gated, gate_zero, gate_slope, gate_rest, dx
):
    number = x.dtype.type
    columns = x.shape[1]
    for left in range(0, columns, COLUMNS):
        right = min(columns, left + COLUMNS)
        for i in range(low, high):
            g = index[i] if len(index) else 0
            out = dx[i, left:right]
            if g < 0:
                for j in range(right - left):
                    out[j] = 0
                continue
            values, slopes, f = x[i, left:right], dy[i, left:right], factor[g, left:right]
            z, b, d = zero[g, left:right], slope[g, left:right], rest[g, left:right]
            if gated:
                gz, ga, gd = gate_zero[g, left:right], gate_slope[g, left:right], gate_rest[g, left:right]
                for j in range(right - left):
                    kept = number(0) if (values[j] - gz[j]) * ga[j] + gd[j] <= 0 else slopes[j]
                    out[j] = kept * f[j] + ((values[j] - z[j]) * b[j] + d[j])
            else:
                for j in range(right - left):
                    out[j] = slopes[j] * f[j] + ((values[j] - z[j]) * b[j] + d[j])
