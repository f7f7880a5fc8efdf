"""A standardisation's forward and backward pass, in one call each.

By columns: channels of planes, or columns of rows. Planes do not go channel by channel through the cache, for channels
lie too far apart in memory: it was measured, and is slower even where the cache holds them. By groups: rows that lie
group by group; a group is read again, to be scaled and shifted, while it lies in the cache.

reduce, apply: addresses of the loops over memory (see `team.address`). by_group, in_place: what these need to know of
the cells.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false

from __future__ import annotations

from normwise.core.kernels.compiled import tables
from normwise.core.kernels.compiled.loop import loop
from normwise.core.kernels.compiled.team import call

_centre, _spread, _standardise = tables.centre, tables.spread, tables.standardise
_backward_of_moments, _about_mean = tables.backward_of_moments, tables.about_mean


@loop
def forward_columns(
    low, high, reduce, apply, extent, x, by_group, in_place,
    count, mean, m2, weight, bias, share, eps, scale, shift, zero, slope, rest, residual, add, rectify, y,
):  # fmt: skip
    """Measure, standardise and apply columns `[low, high)`. extent: how many samples or rows there are."""
    groups = len(scale)
    call(reduce, low, high, (x, *by_group, mean, m2))
    _standardise(0, groups, low, high, count, mean, m2, weight, bias, share, eps, scale, shift)
    _centre(0, groups, low, high, scale, shift, zero, slope, rest)
    call(apply, 0, extent, (x, low, high, *in_place, zero, slope, rest, residual, add, rectify, y))


@loop
def backward_columns(
    low, high, reduce, apply, extent, dy, x, by_group, in_place,
    count, mean, m2, weight, share, eps, scale, gate, total, product, tilt, constant, middle, factor, zero, slope, rest, dx,
):  # fmt: skip
    """Sum, take what comes through the moments, and write dx of columns `[low, high)`."""
    groups = len(total)
    _spread(0, groups, low, high, mean, middle)
    call(reduce, low, high, (dy, x, *by_group, middle, *gate, total, product))
    _about_mean(0, groups, low, high, mean, middle, total, product)
    _backward_of_moments(
        0, groups, low, high, total, product, count, mean, m2, weight, share, eps, scale, tilt, constant
    )
    _spread(0, groups, low, high, scale, factor)
    _centre(0, groups, low, high, tilt, constant, zero, slope, rest)
    call(apply, 0, extent, (dy, x, low, high, *in_place, factor, zero, slope, rest, *gate, dx))


@loop
def forward_groups(
    low, high, reduce, apply, x, start, in_place,
    count, mean, m2, weight, bias, share, eps, scale, shift, zero, slope, rest, residual, add, rectify, y,
):  # fmt: skip
    """Measure, standardise and apply the groups that start in rows `[low, high)`, one at a time."""
    columns = x.shape[1]
    for g in range(len(scale)):
        if low <= start[g] < high and start[g] < start[g + 1]:
            call(reduce, 0, columns, (x, g, g + 1, start, mean, m2))
            _standardise(g, g + 1, 0, columns, count, mean, m2, weight, bias, share, eps, scale, shift)
            _centre(g, g + 1, 0, columns, scale, shift, zero, slope, rest)
            given = (x, 0, columns, *in_place, zero, slope, rest, residual, add, rectify, y)
            call(apply, start[g], start[g + 1], given)


@loop
def backward_groups(
    low, high, reduce, apply, dy, x, start, in_place,
    count, mean, m2, weight, share, eps, scale, gate, total, product, tilt, constant, middle, factor, zero, slope, rest, dx,
):  # fmt: skip
    """Sum, take what comes through the moments, and write dx of the groups that start in rows `[low, high)`."""
    columns = x.shape[1]
    for g in range(len(total)):
        if low <= start[g] < high and start[g] < start[g + 1]:
            _spread(g, g + 1, 0, columns, mean, middle)
            call(reduce, 0, columns, (dy, x, g, g + 1, start, middle, *gate, total, product))
            _about_mean(g, g + 1, 0, columns, mean, middle, total, product)
            _backward_of_moments(
                g, g + 1, 0, columns, total, product, count, mean, m2, weight, share, eps, scale, tilt, constant
            )
            _spread(g, g + 1, 0, columns, scale, factor)
            _centre(g, g + 1, 0, columns, tilt, constant, zero, slope, rest)
            given = (dy, x, 0, columns, *in_place, factor, zero, slope, rest, *gate, dx)
            call(apply, start[g], start[g + 1], given)
