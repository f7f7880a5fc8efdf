"""Which values share a statistic: groupings, and the one description of them that kernels read.

Kernels see a tensor as `(n, c, l)` and a `Cells`: every value falls into one cell or, if masked, into none.
A cell is the finest unit a layer needs; coarser groups are merges of cells (`Moments.merge_by`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from normwise.errors import ShapeError

_LEAST_DIMENSIONS = 2


@dataclass(frozen=True, eq=False)
class Cells:
    """The cell of each value of an `(n, c, l)` tensor: by sample, or by step, never by channel.

    count: number of cells g. sample: `(n,)` cell of each sample; None for all in cell 0. steps: the cell is the
    position l instead. mask: `(n, l)`, True where a value is valid; None for everywhere.
    """

    count: int = 1
    sample: Int[Tensor, " n"] | None = None
    steps: bool = False
    mask: Bool[Tensor, "n l"] | None = None


class Grouping(ABC):
    """A rule that says which values share a statistic."""

    @abstractmethod
    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return the cells of this tensor; raise `ShapeError` if the grouping does not fit it."""


@dataclass(frozen=True)
class Channelwise(Grouping):
    """All values of a channel, as `nn.BatchNorm` groups them."""

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return a single cell."""
        return Cells()


@dataclass(frozen=True, eq=False)
class Indexed(Grouping):
    """By sample: its domain, its graph, its class. `index` is `(n,)`, integer, in `[0, num_groups)`, in any order."""

    index: Tensor
    num_groups: int

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a group; groups may be empty."""
        if self.index.ndim != 1 or len(self.index) != len(x):
            raise ShapeError(
                f"index must have one entry a sample, ({len(x)},), got {tuple(self.index.shape)}; "
                "pass the group of each row of the batch"
            )
        if self.index.is_floating_point() or self.index.dtype == torch.bool:
            raise ShapeError(f"index must be of an integer dtype, got {self.index.dtype}; call .long() on it")
        if len(self.index) and not (0 <= int(self.index.min()) and int(self.index.max()) < self.num_groups):
            raise ShapeError(
                f"index must lie in [0, {self.num_groups}), got values from {int(self.index.min())} "
                f"to {int(self.index.max())}; raise the number of groups or renumber them"
            )
        return Cells(self.num_groups, self.index.to(device=x.device, dtype=torch.long))


@dataclass(frozen=True, eq=False)
class Prefix(Grouping):
    """All valid values of a channel: the first `lengths[i]` positions of sample i, or those a mask names."""

    lengths: Int[Tensor, " n"] | None = None
    mask: Bool[Tensor, "n l"] | None = None

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return a single cell and the mask."""
        return Cells(mask=valid_positions(x, lengths=self.lengths, mask=self.mask))


@dataclass(frozen=True, eq=False)
class Steps(Grouping):
    """By position l (a time step), over the samples that are still alive there."""

    lengths: Int[Tensor, " n"] | None = None

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a step."""
        mask = None if self.lengths is None else valid_positions(x, lengths=self.lengths)
        return Cells(x.shape[-1], steps=True, mask=mask)


@dataclass(frozen=True)
class Ghost(Grouping):
    """By contiguous split of the batch into `splits` parts of equal size, the last one possibly smaller.

    As `torch.chunk` splits: parts hold `ceil(n / splits)` samples, so there may be fewer of them than asked for.
    """

    splits: int

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a split."""
        if not 1 <= self.splits <= len(x):
            raise ShapeError(
                f"splits must lie in [1, {len(x)}], the number of samples, got {self.splits}; use a larger batch"
            )
        size = -(-len(x) // self.splits)
        index = torch.arange(len(x), device=x.device) // size
        return Cells(-(-len(x) // size), index)


def valid_positions(
    x: Float[Tensor, "n c l"], *, lengths: Int[Tensor, " n"] | None = None, mask: Tensor | None = None
) -> Bool[Tensor, "n l"]:
    """Return the `(n, l)` mask of valid positions given either lengths or a mask; raise `ShapeError` if neither fits."""
    n, _, positions = x.shape
    if (lengths is None) == (mask is None):
        raise ShapeError("exactly one of lengths and mask must be given; pass lengths=... or mask=...")
    if lengths is not None:
        if lengths.shape != (n,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ShapeError(f"lengths must be {n} integers, one a sample, got {lengths.dtype} {tuple(lengths.shape)}")
        if n and (int(lengths.min()) < 1 or int(lengths.max()) > positions):
            raise ShapeError(
                f"lengths must lie in [1, {positions}], the padded length, got {int(lengths.min())} "
                f"to {int(lengths.max())}"
            )
        return torch.arange(positions, device=x.device) < lengths.to(x.device).unsqueeze(1)
    if mask is None or mask.shape != (n, positions):
        raise ShapeError(
            f"mask must be ({n}, {positions}), True where valid, got {mask if mask is None else tuple(mask.shape)}"
        )
    return mask.to(device=x.device, dtype=torch.bool)


def canonical(x: Tensor) -> Float[Tensor, "n c l"]:
    """View `(n, c, *)` as `(n, c, l)`; rows `(n, c)` get l = 1."""
    if x.ndim < _LEAST_DIMENSIONS:
        raise ShapeError(f"x must be (n, c, *), got {tuple(x.shape)}; add a batch axis with x.unsqueeze(0)")
    return x.reshape(x.shape[0], x.shape[1], -1) if x.numel() else x.reshape(x.shape[0], x.shape[1], 0)
