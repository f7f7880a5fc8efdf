"""Which values share a statistic: groupings, and the one description of them that kernels read.

Kernels see a tensor as `(n, c, l)` and a `Cells`: every value falls into one cell or, if masked, into none.
A cell is the finest unit a layer needs; coarser groups are merges of cells (`Moments.pool`, `Moments.merge_by`).
What an index, a length or a mask holds is looked at, except while `torch.compile` traces, which cannot look, and on the
meta device, where there is nothing to look at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch._subclasses import FakeTensor

from normwise.core.moments import MIN_VALUES
from normwise.errors import ShapeError

_LEAST_DIMENSIONS = 2


@dataclass(frozen=True, eq=False)
class Cells:
    """The cell of each value of an `(n, c, l)` tensor: by sample, or by step, never by channel.

    count: number of cells g. sample: `(n,)` cell of each sample; None for all in cell 0. steps: the cell is the
    position l instead. mask: `(n, l)`, True where a value is valid; None for everywhere. derived: what a backend worked
    out from these, kept for the backward pass.
    """

    count: int = 1
    sample: Int[Tensor, " n"] | None = None
    steps: bool = False
    mask: Bool[Tensor, "n l"] | None = None
    derived: dict[Any, Any] = field(default_factory=dict, repr=False)  # pyright: ignore[reportUnknownVariableType]


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
    """By sample: its domain, its graph, its class. `index` is `(n,)`, integer, in `[0, num_groups)`, in any order.

    num_groups: None for whatever the index needs. name: what errors call the index.
    """

    index: Tensor
    num_groups: int | None
    name: str = "index"

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a group; groups may be empty."""
        check_side(self.name, self.index, x)
        if self.index.ndim != 1 or len(self.index) != len(x):
            raise ShapeError(
                f"{self.name} must have one entry a sample, ({len(x)},), got {tuple(self.index.shape)}; "
                "pass the group of each row of the batch"
            )
        if self.index.is_floating_point() or self.index.dtype == torch.bool:
            raise ShapeError(f"{self.name} must be of an integer dtype, got {self.index.dtype}; call .long() on it")
        index, num_groups = self.index, self.num_groups
        if num_groups is None:
            num_groups = len(index) if not _has_numbers(index) else int(index.max()) + 1 if len(index) else 0
        _check_range(self.name, index, 0, num_groups - 1, "raise the number of groups or renumber them")
        if self.num_groups is None and num_groups > len(x):  # wide gaps: no more rows than samples are needed
            known = cast("Tensor", torch.unique(index))  # pyright: ignore[reportUnknownMemberType]
            index, num_groups = torch.searchsorted(known, index), len(x)
        return Cells(num_groups, index.to(device=x.device, dtype=torch.long, copy=True))  # whose values may be changed


@dataclass(frozen=True)
class Samplewise(Grouping):
    """By sample: each its own group."""

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a sample."""
        return Cells(len(x), torch.arange(len(x), device=x.device))


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
    """By position l (a time step), over the samples that are valid there; all of them without lengths or mask."""

    lengths: Int[Tensor, " n"] | None = None
    mask: Bool[Tensor, "n l"] | None = None

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a step."""
        everywhere = self.lengths is None and self.mask is None
        mask = None if everywhere else valid_positions(x, lengths=self.lengths, mask=self.mask)
        return Cells(x.shape[-1], steps=True, mask=mask)


@dataclass(frozen=True)
class Ghost(Grouping):
    """By contiguous split of the batch into `splits` parts of equal size, the last one possibly smaller.

    As `torch.chunk` splits: parts hold `ceil(n / splits)` samples, so there may be fewer of them than asked for.
    A part of a single value is refused.
    """

    splits: int

    def cells(self, x: Float[Tensor, "n c l"]) -> Cells:
        """Return one cell a split."""
        if not 1 <= self.splits <= len(x):
            raise ShapeError(
                f"splits must lie in [1, {len(x)}], the number of samples, got {self.splits}; use a larger batch"
            )
        size = -(-len(x) // self.splits)
        last = (len(x) - 1) % size + 1
        if last * x.shape[-1] < MIN_VALUES:
            raise ShapeError(
                f"x must split into parts of more than 1 value per channel, got a last part of {last} of {len(x)} "
                f"samples at splits={self.splits}; use a batch size that splits evenly, or drop_last=True"
            )
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
        check_side("lengths", lengths)
        if lengths.shape != (n,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ShapeError(
                f"lengths must be {n} integers, one a sample, got {lengths.dtype} {tuple(lengths.shape)}; "
                "pass the number of valid positions of each sample"
            )
        if lengths.is_meta and not x.is_meta:
            raise ShapeError(f"lengths must hold values that x on {x.device} can be cut by, got meta; move them")
        remedy = f"{positions} is the padded length; leave empty samples out of the batch"
        _check_range("lengths", lengths, 1, positions, remedy)
        return torch.arange(positions, device=x.device) < lengths.to(x.device).unsqueeze(1)
    if mask is not None:
        check_side("mask", mask, x)
    if mask is None or mask.shape != (n, positions) or mask.is_floating_point():
        got = mask if mask is None else f"{mask.dtype} {tuple(mask.shape)}"
        raise ShapeError(f"mask must be ({n}, {positions}) of bool, True where valid, got {got}; call .bool() on it")
    return mask.to(device=x.device, dtype=torch.bool, copy=True)  # the caller may change its own


def check_side(name: str, values: object, x: Tensor | None = None) -> None:
    """Raise `ShapeError` for side information that is no tensor, or lies on another device than x.

    Lengths may: packing wants them on the CPU, and so they are there in most programs.
    """
    if not isinstance(values, Tensor):
        raise ShapeError(f"{name} must be a tensor, got {type(values).__name__}; pass torch.as_tensor({name})")
    if x is not None and values.device != x.device:
        raise ShapeError(f"{name} must be on the device of x, {x.device}, got {values.device}; move one of them")


def _check_range(name: str, values: Tensor, least: int, most: int, remedy: str) -> None:
    """Raise `ShapeError` for integers outside `[least, most]`."""
    if not len(values) or not can_look(values):
        return
    low, high = int(values.min()), int(values.max())
    if low < least or high > most:
        raise ShapeError(f"{name} must lie in [{least}, {most}], got values from {low} to {high}; {remedy}")


def can_look(values: Tensor) -> bool:
    """Return whether the values of a tensor can be read: not while `torch.compile` traces, nor where it has none."""
    return not torch.compiler.is_compiling() and _has_numbers(values)


def _has_numbers(values: Tensor) -> bool:
    return not values.is_meta and not isinstance(values, FakeTensor)


def canonical(x: Tensor) -> Float[Tensor, "n c l"]:
    """View `(n, c, *)` as `(n, c, l)`; rows `(n, c)` get l = 1."""
    if x.ndim < _LEAST_DIMENSIONS:
        raise ShapeError(f"x must be (n, c, *), got {tuple(x.shape)}; add a batch axis with x.unsqueeze(0)")
    return x.reshape(x.shape[0], x.shape[1], -1) if x.numel() else x.reshape(x.shape[0], x.shape[1], 0)


def canonical_mask(mask: Tensor, x: Tensor) -> Bool[Tensor, "n l"]:
    """View the mask `(n, *)` of a tensor `(n, c, *)` as `(n, l)`."""
    expected = (x.shape[0], *x.shape[2:])
    if mask.shape != expected:
        raise ShapeError(f"mask must be {expected}, x without its channels, got {tuple(mask.shape)}")
    return mask.reshape(len(x), -1) if mask.numel() else mask.reshape(len(x), 0)
