"""What the benchmark compares: cases, and contenders that compute them.

A case is one problem and the ways to compute it; the first way is the baseline, torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from normwise.reporting.bench import OURS

_SMALLEST = (64, 6, 5, 5)  # the extents of a case that is checked, not timed


def same(result: Tensor) -> Tensor:
    """Return a result as it is: what `Contender.view` is where layouts agree."""
    return result


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to compute a case.

    name: "normwise" for ours. module: called with `inputs`, which want gradients, and `side`. dy: the gradient of its
    output. view: brings its output, and gradients of its input, into the form they have in common with ours.
    equal: whether it computes what ours does; a yardstick (plain batch normalization of the same tensor) does not.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    dy: Tensor
    side: tuple[Any, ...] = ()
    view: Callable[[Tensor], Tensor] = same
    equal: bool = True

    @property
    def wanted(self) -> list[Tensor]:
        """What gradients are taken with respect to: inputs and parameters."""
        return [*self.inputs, *self.module.parameters()]

    def forward(self) -> Tensor:
        """Return the output."""
        return self.module(*self.inputs, *self.side)


@dataclass(frozen=True)
class Absent:
    """A contender that cannot run, and the package to install for it."""

    name: str
    package: str


@dataclass(frozen=True)
class Target:
    """What forward and backward together should take at most, over the baseline or over another contender."""

    limit: float
    against: str | None = None


@dataclass(frozen=True)
class Case:
    """One problem: a family, a name, a shape, the ways to compute it at a shape, and what ours should reach."""

    family: str
    name: str
    shape: tuple[int, ...]
    contenders: Callable[[tuple[int, ...]], Iterable[Contender | Absent]]
    targets: tuple[Target, ...] = ()

    @property
    def title(self) -> str:
        """Name and shape."""
        return f"{self.name} {'x'.join(map(str, self.shape))}".lstrip()

    def small(self) -> Case:
        """Return the case at a size to check numbers at."""
        return replace(self, shape=tuple(map(min, self.shape, _SMALLEST)))


def differences(contenders: Sequence[Contender]) -> dict[str, float]:
    """Return how far each contender's output and input gradients lie from ours, in units of our largest value.

    Only of those that compute the same. Calls each of them once.
    """
    ours = next(one for one in contenders if one.name == OURS)
    expected = _results(ours)
    found = {}
    for one in contenders:
        if one.equal and one is not ours:
            gaps = zip(_results(one), expected, strict=True)
            found[one.name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in gaps)
    return found


def _results(one: Contender) -> list[Tensor]:
    y = one.forward()
    gradients = torch.autograd.grad(y, one.inputs, one.dy)
    return [one.view(value).detach().clone() for value in (y, *gradients)]


def saved_share(one: Contender) -> float:
    """Return the bytes a forward pass keeps for the backward pass over those of its (first) input.

    Memory is counted once however many tensors view it; parameters and buffers, which are there anyway, are not.
    """
    owned = (*one.module.parameters(), *one.module.buffers())
    there = {value.untyped_storage().data_ptr() for value in owned}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value  # held on to, so that its address stays its own
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, same):
        y = one.forward()
    total = sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in there)
    del y
    return total / (one.inputs[0].numel() * one.inputs[0].element_size())
