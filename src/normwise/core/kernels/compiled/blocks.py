"""Sums of a block of values, how blocks are merged, and what is worked out before a loop over memory."""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from normwise.core.kernels.compiled.loop import loop

BLOCK = 4096  # values summed in their own dtype before a merge
ROWS = 256  # rows summed in their own dtype before a merge
PIVOT = 8  # values that a first pivot is made of


def pick(condition: Any, value: Any) -> Any:
    """Return the value, or 0 where the condition does not hold: by its bits, for not every processor selects as fast."""
    raise NotImplementedError("compiled code only")


@overload(pick)
def _pick(condition, value):
    number, bits = (np.float32, np.uint32) if value is types.float32 else (np.float64, np.uint64)

    def by_bits(condition, value):
        return bits(number(value).view(bits) & bits(bits(0) - bits(condition))).view(number)

    return by_bits


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
def find_ends(mask, end, count):
    """Write one past the last valid position of each sample of a boolean `(n, l)` mask, and how many are valid.

    Return whether the valid ones always come first.
    """
    first = True
    for i in range(mask.shape[0]):
        last, valid = 0, 0
        for p in range(mask.shape[1]):
            if mask[i, p]:
                last = p + 1
                valid += 1
        end[i], count[i] = last, valid
        first = first and last == valid
    return first


@loop
def flush(before, count, pivot, total, square, mean, m2, sums, g, low):
    """Merge every channel's block of `count` values, if any, into the `before` values of its entry `(g, low + c)`.

    A block is its sums about `pivot`, which moves to the mean so far.
    """
    if count == 0:
        return
    width, number = len(pivot), pivot.dtype.type
    means, spreads = mean[g, low : low + width], m2[g, low : low + width]
    part, share = 1 / count, count / (before + count)
    for c in range(width):
        s, p = np.float64(total[c]), np.float64(pivot[c])
        spread = np.float64(square[c]) - s * s * part
        spread = 0.0 if spread < 0 else spread
        gap = p + s * part - means[c]
        means[c] += gap * share
        spreads[c] += spread + gap * gap * before * share
        sums[c] += count * p + s
        pivot[c] = means[c] if abs(means[c]) < np.inf else number(0)
        total[c] = square[c] = 0


@loop
def finish(count, sums, mean, g, low):
    """Take the mean from the sum where it is not finite: merged means give infinity minus infinity."""
    for c in range(len(sums)):
        if not np.isfinite(mean[g, low + c]) and count > 0:
            mean[g, low + c] = sums[c] / count


@loop
def first_pivot(values):
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


@loop
def lean(pivot, row, count):
    """Add a row's share to a pivot that is the mean of `count` rows, but for what is not finite."""
    number = row.dtype.type
    share = number(1 / count)
    for j in range(len(pivot)):
        part = row[j] * share
        pivot[j] += part if abs(part) < np.inf else number(0)
