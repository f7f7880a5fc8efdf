"""The compiled loops behind `cpu`: numba, float32 or float64.

Two families, by what a statistic belongs to, with two kinds of sums each:

    planes (n, c, l)  a group and channel: positions are summed, those a mask `(n, l)` says where there is one
    rows   (r, k)     a group and column: nothing inside a row is summed; rows lie group by group, or are scattered

`low, high` is a range of the axis that threads share (channels, columns, samples or rows); no result depends on how it
is shared. Planes come in the order of their groups, `order[start[g]:start[g + 1]]`, an empty order being the natural
one; so do rows that lie `start[g]:start[g + 1]`, while scattered ones keep up the sums of all groups at once. `end[i]`
is one past the last valid position of plane i; a mask `(1, 0)` stands for none.

Slices are taken once and indexed from 0, and loops stand inline: otherwise they are not vectorised.

Sums run over blocks in the dtype of the values, about a pivot near the mean, and blocks are merged in float64 (Chan,
Golub and LeVeque 1979). `x * scale + shift` is computed as `(x - zero) * slope + rest` with `zero` near the crossing,
so that an offset of x costs no digits. NaN and infinity survive: no fast-math flag assumes them away.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false
# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

BLOCK = 4096  # values summed in their own dtype before a merge
ROWS = 256  # rows summed in their own dtype before a merge
COLUMNS = 1024  # columns worked on at a time, so that their sums stay in the fastest cache
PIVOT = 8  # values that a first pivot is made of

loop: Callable[[Any], Any] = njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract", "arcp"})


# --- preparation


@loop
def order_by_group(index, order, start):
    """Sort samples by group, stably; a negative group is none. Return whether they are sorted as they come."""
    natural, last = True, 0
    for group in index:
        if group >= 0:
            start[group + 1] += 1
        natural = natural and group >= last
        last = group
    for g in range(1, len(start)):
        start[g] += start[g - 1]
    place = start[:-1].copy()
    for i in range(len(index)):
        if index[i] >= 0:
            order[place[index[i]]] = i
            place[index[i]] += 1
    return natural


@loop
def find_ends(mask, end):
    """Write one past the last valid position of each sample of a boolean `(n, l)` mask."""
    for i in range(mask.shape[0]):
        end[i] = 0
        for p in range(mask.shape[1]):
            if mask[i, p]:
                end[i] = p + 1


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
    """Return the mean of the first few values but the largest and the smallest, or 0 where that is not finite."""
    count = min(PIVOT, len(values))
    total = values.dtype.type(0)
    least = most = values[0]
    for i in range(count):
        total += values[i]
        least, most = min(least, values[i]), max(most, values[i])
    if count > 2:
        total, count = total - least - most, count - 2
    total /= values.dtype.type(count)
    return total if np.isfinite(total) else values.dtype.type(0)


# --- planes


@loop
def reduce_planes(low, high, x, order, start, mean, m2):
    width, number, length = high - low, x.dtype.type, x.shape[2]
    total, square, pivot = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    sums = np.zeros(width)
    for g in range(len(start) - 1):
        before, count = 0, 0
        sums[:] = 0
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, length, BLOCK):
                stop = min(length, p + BLOCK)
                if before + count == 0:
                    for c in range(width):
                        pivot[c] = _pivot(x[i, low + c, p:stop])
                for c in range(width):
                    piece = x[i, low + c, p:stop]
                    middle, s, q = pivot[c], number(0), number(0)
                    for j in range(stop - p):
                        d = piece[j] - middle
                        s += d
                        q += d * d
                    total[c] += s
                    square[c] += q
                count += stop - p
                if count >= BLOCK:
                    _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
                    before, count = before + count, 0
        _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
        _finish(before + count, sums, mean, g, low)


@loop
def reduce_masked(low, high, x, order, start, mask, end, mean, m2):
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
                        pivot[c] = _pivot(x[i, low + c, p:stop][valid])
                for c in range(width):
                    piece = x[i, low + c, p:stop]
                    middle, s, q = pivot[c], number(0), number(0)
                    for j in range(stop - p):
                        d = piece[j] - middle if valid[j] else number(0)
                        s += d
                        q += d * d
                    total[c] += s
                    square[c] += q
                count += here
                if count >= BLOCK:
                    _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
                    before, count = before + count, 0
        _flush(before, count, pivot, total, square, mean, m2, sums, g, low)
        _finish(before + count, sums, mean, g, low)


@loop
def _flush(before, count, pivot, total, square, mean, m2, sums, g, low):
    """Merge every channel's block of `count` values, if any, and move its pivot to the mean so far."""
    if count == 0:
        return
    for c in range(len(pivot)):
        sums[c] += _merge(before, count, pivot[c], total[c], square[c], mean, m2, g, low + c)
        pivot[c] = mean[g, low + c]
        if not np.isfinite(pivot[c]):
            pivot[c] = 0
        total[c] = square[c] = 0


@loop
def apply_planes(low, high, x, index, mask, end, zero, slope, rest, residual, add, rectify, y):
    number, masked = x.dtype.type, mask.shape[1] > 0
    for i in range(low, high):
        g, stop = index[i] if len(index) else 0, end[i]
        valid = mask[i if masked else 0]
        for c in range(x.shape[1]):
            z, a, d = zero[g, c], slope[g, c], rest[g, c]
            values, out, after = x[i, c, :stop], y[i, c, :stop], y[i, c, stop:]
            if add:
                added = residual[i, c, :stop]
                for j in range(stop):
                    out[j] = (values[j] - z) * a + (d + added[j])
            else:
                for j in range(stop):
                    out[j] = (values[j] - z) * a + d
            if rectify:
                for j in range(stop):
                    out[j] = number(0) if out[j] <= 0 else out[j]
            if masked:
                for j in range(stop):
                    out[j] = out[j] if valid[j] else number(0)
                for j in range(len(after)):
                    after[j] = 0


@loop
def reduce_backward_planes(low, high, dy, x, order, start, mean, gated, zero, slope, rest, total, product):
    number, length = x.dtype.type, x.shape[2]
    kept = np.empty(BLOCK, x.dtype)
    for g in range(len(start) - 1):
        for place in range(start[g], start[g + 1]):
            i = order[place] if len(order) else place
            for p in range(0, length, BLOCK):
                stop = min(length, p + BLOCK)
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
def reduce_backward_masked(low, high, dy, x, order, start, mask, end, mean, gated, zero, slope, rest, total, product):
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
                            kept[j] = number(0) if (values[j] - z) * a + d <= 0 else slopes[j]
                        for j in range(stop - p):
                            w = kept[j] if valid[j] else number(0)
                            s += w
                            t += w * (values[j] - middle if valid[j] else number(0))
                    else:
                        for j in range(stop - p):
                            w = slopes[j] if valid[j] else number(0)
                            s += w
                            t += w * (values[j] - middle if valid[j] else number(0))
                    total[g, c] += s
                    product[g, c] += t


@loop
def apply_backward_planes(
    low, high, dy, x, index, mask, end, factor, zero, slope, rest, gated, gate_zero, gate_slope, gate_rest, dx
):
    number, masked = x.dtype.type, mask.shape[1] > 0
    for i in range(low, high):
        g, stop = index[i] if len(index) else 0, end[i]
        valid = mask[i if masked else 0]
        for c in range(x.shape[1]):
            f, z, b, d = factor[g, c], zero[g, c], slope[g, c], rest[g, c]
            values, slopes, out, after = x[i, c, :stop], dy[i, c, :stop], dx[i, c, :stop], dx[i, c, stop:]
            if gated:
                gz, ga, gd = gate_zero[g, c], gate_slope[g, c], gate_rest[g, c]
                for j in range(stop):
                    kept = number(0) if (values[j] - gz) * ga + gd <= 0 else slopes[j]
                    out[j] = kept * f + ((values[j] - z) * b + d)
            else:
                for j in range(stop):
                    out[j] = slopes[j] * f + ((values[j] - z) * b + d)
            if masked:
                for j in range(stop):
                    out[j] = out[j] if valid[j] else number(0)
                for j in range(len(after)):
                    after[j] = 0


# --- rows


@loop
def reduce_rows(low, high, x, start, mean, m2):
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        total, square = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
        pivot, sums = np.zeros(width, x.dtype), np.zeros(width)
        for g in range(len(start) - 1):
            before, count = 0, 0
            sums[:] = pivot[:] = 0
            few = min(PIVOT, start[g + 1] - start[g])
            for i in range(start[g], start[g] + few):
                _lean(pivot, x[i, left:right], few)
            for i in range(start[g], start[g + 1]):
                row = x[i, left:right]
                for j in range(width):
                    d = row[j] - pivot[j]
                    total[j] += d
                    square[j] += d * d
                count += 1
                if count == ROWS:
                    _flush(before, count, pivot, total, square, mean, m2, sums, g, left)
                    before, count = before + count, 0
            _flush(before, count, pivot, total, square, mean, m2, sums, g, left)
            _finish(before + count, sums, mean, g, left)


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
                _lean(pivot[g], x[i, left:right], min(PIVOT, start[g + 1] - start[g]))
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
                _flush(before[g], ROWS, pivot[g], total[g], square[g], mean, m2, sums[g], g, left)
                before[g] += ROWS
                count[g] = 0
        for g in range(groups):
            _flush(before[g], count[g], pivot[g], total[g], square[g], mean, m2, sums[g], g, left)
            _finish(before[g] + count[g], sums[g], mean, g, left)


@loop
def _lean(pivot, row, count):
    """Add a row's share to a pivot that is the mean of `count` rows, but for what is not finite."""
    for j in range(len(pivot)):
        part = row[j] / row.dtype.type(count)
        pivot[j] += part if np.isfinite(part) else row.dtype.type(0)


@loop
def apply_rows(low, high, x, index, zero, slope, rest, residual, add, rectify, y):
    columns = x.shape[1]
    for left in range(0, columns, COLUMNS):
        right = min(columns, left + COLUMNS)
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
                    out[j] = x.dtype.type(0) if out[j] <= 0 else out[j]


@loop
def reduce_backward_rows(low, high, dy, x, start, mean, gated, zero, slope, rest, total, product):
    number = x.dtype.type
    for left in range(low, high, COLUMNS):
        right = min(high, left + COLUMNS)
        width = right - left
        s, t, kept = np.zeros(width, x.dtype), np.zeros(width, x.dtype), np.empty(width, x.dtype)
        for g in range(len(start) - 1):
            middle = mean[g, left:right]
            for block in range(start[g], start[g + 1], ROWS):
                for i in range(block, min(start[g + 1], block + ROWS)):
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
def reduce_backward_scattered(low, high, dy, x, start, index, mean, gated, zero, slope, rest, total, product):
    number, groups = x.dtype.type, len(start) - 1
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
                    kept[j] = number(0) if (values[j] - z[j]) * a[j] + d[j] <= 0 else slopes[j]
                for j in range(width):
                    s[j] += kept[j]
                    t[j] += kept[j] * (values[j] - middle[j])
            else:
                for j in range(width):
                    s[j] += slopes[j]
                    t[j] += slopes[j] * (values[j] - middle[j])
            count[g] += 1
            if count[g] == ROWS:
                _settle(s, t, total, product, g, left)
                count[g] = 0
        for g in range(groups):
            _settle(totals[g], products[g], total, product, g, left)


@loop
def _settle(s, t, total, product, g, left):
    """Add sums of a block to the tables and start anew."""
    for j in range(len(s)):
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
                    kept = number(0) if (values[j] - gz[j]) * ga[j] + gd[j] <= 0 else slopes[j]
                    out[j] = kept * f[j] + ((values[j] - z[j]) * b[j] + d[j])
            else:
                for j in range(right - left):
                    out[j] = slopes[j] * f[j] + ((values[j] - z[j]) * b[j] + d[j])
