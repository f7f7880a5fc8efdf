"""A standardisation in one go forward, and one back."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels.compiled import fused, planes, rows, team
from normwise.core.kernels.compiled.tables import backward_of_affine
from normwise.core.kernels.cpu_walk import Layout, Walk, check_alike, walk_of

_GROUPS = 2  # of rows that a thread should have, where groups are shared
LOOPS = {
    "planes": (planes.reduce_planes, planes.apply_planes, planes.reduce_backward_planes, planes.apply_backward_planes),
    "rows": (rows.reduce_rows, rows.apply_rows, rows.reduce_backward_rows, rows.apply_backward_rows),
    "scattered": (rows.reduce_scattered, rows.apply_rows, rows.reduce_backward_scattered, rows.apply_backward_rows),
}
Affine = tuple[Float[Tensor, "... c"] | None, Float[Tensor, "... c"] | None, Float[Tensor, "... c"] | None]


def fuses(x: Float[Tensor, "n c l"], cells: Cells) -> bool:
    """Return whether columns, or groups of rows, are enough for all threads: what lies between them is not shared."""
    walk = walk_of(x, cells)
    if walk.layout is Layout.WIDE and not cells.steps:
        return False  # a statistic is of several columns
    threads = torch.get_num_threads()
    return threads == 1 or walk.width >= walk.least * threads or _by_groups(walk)


class Standardisation:
    """One pass over a tensor, forward and then back; moments: those that were taken, once forward has run."""

    def __init__(self, cells: Cells, affine: Affine, *, eps: float, pooled: bool = False) -> None:
        """Take weight, bias and share; pooled: by one statistic for all cells."""
        self._cells, self._affine, self._eps, self._pooled = cells, affine, float(eps), pooled

    def forward(
        self, x: Float[Tensor, "n c l"], residual: Float[Tensor, "n c l"] | None, rectify: bool
    ) -> Float[Tensor, "n c l"]:
        """Measure x, standardise it, add the residual, rectify."""
        check_alike(x, residual)
        walk = self._walk = walk_of(x, self._cells)
        source = walk_of(x, Cells(mask=self._cells.mask), walk.layout) if self._pooled else walk
        self._groupwise = not self._pooled and _by_groups(walk)
        values, (y, out) = walk.view(x), walk.empty(x)
        mean, m2, scale, shift = source.table(), source.table(), walk.table(), walk.table()
        self._statistics, self._scale, self._shift = (source.counts, mean, m2), scale, shift
        line = [np.empty(scale.shape, values.dtype) for _ in range(3)]
        passed = (*line, values if residual is None else walk.view(residual), residual is not None, rectify, out)
        self._arrays = [walk.affine(table) for table in self._affine]
        small = (*self._statistics, *self._arrays, self._eps, scale, shift, *passed)
        reduce, apply, _, _ = LOOPS[source.kind]
        reduce = team.address(reduce, "", values, (values, *source.by_group, mean, m2))
        apply = team.address(apply, "", values, (values, 0, 0, *walk.in_place, *passed))
        if self._groupwise:
            given = (reduce, apply, values, walk.start, walk.in_place, *small)
            team.share(fused.forward_groups, "", len(values), values, given)
        else:
            given = (reduce, apply, len(values), values, source.by_group, walk.in_place, *small)
            team.share(fused.forward_columns, source.kind + walk.kind, walk.width, values, given)
        self.moments = source.moments(mean, m2)
        return walk.like(x, y)

    @property
    def tables(self) -> tuple[Float[Tensor, "... c"], Float[Tensor, "... c"]]:
        """Return scale and shift, `(g, c)` or `(1, c)`."""
        return self._walk.collect(self._scale), self._walk.collect(self._shift)

    def backward(
        self, dy: Float[Tensor, "n c l"], x: Float[Tensor, "n c l"], *, rectified: bool
    ) -> tuple[Float[Tensor, "n c l"], list[Tensor | None]]:
        """Return the gradients of x and of weight, bias and share; rectified: dy has yet to go back through that."""
        walk, mean = self._walk, self._statistics[1]
        values, slopes, (dx, out) = walk.view(x), walk.view(dy), walk.empty(x)
        gate = walk.gate(self.tables if rectified else None, values.dtype)
        sums, tilt, constant = (walk.table(), walk.table()), np.zeros(mean.shape), np.zeros(mean.shape)
        middle, *own = [np.empty(self._scale.shape, values.dtype) for _ in range(5)]
        weight, _, share = self._arrays
        small = (
            *self._statistics,
            weight,
            share,
            self._eps,
            self._scale,
            gate,
            *sums,
            tilt,
            constant,
            middle,
            *own,
            out,
        )
        _, _, reduce, apply = LOOPS[walk.kind]
        reduce = team.address(reduce, "", values, (slopes, values, *walk.by_group, middle, *gate, *sums))
        apply = team.address(apply, "", values, (slopes, values, 0, 0, *walk.in_place, *own, *gate, out))
        if self._groupwise:
            given = (reduce, apply, slopes, values, walk.start, walk.in_place, *small)
            team.share(fused.backward_groups, "", len(values), values, given)
        else:
            given = (reduce, apply, len(values), slopes, values, walk.by_group, walk.in_place, *small)
            team.share(fused.backward_columns, walk.kind, walk.width, values, given)
        found = [np.zeros(table.shape) for table in self._arrays]
        backward_of_affine(*sums, *self._statistics, weight, share, self._eps, *found)
        gradients = [
            None if table is None else walk.collect_affine(sum_, table)
            for table, sum_ in zip(self._affine, found, strict=True)
        ]
        return walk.like(x, dx), gradients


def _by_groups(walk: Walk) -> bool:
    """Return whether to go group by group: there are several, and enough for all threads."""
    return walk.kind == "rows" and walk.groups >= _GROUPS * torch.get_num_threads()
