"""One pass as deployed and one with batch statistics over the data; every rule reads what they saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwise.audit.score import Scores, joined, score_batch
from normwise.care.recalibrate import batch_statistics
from normwise.core.moments import MIN_VALUES, ClusteredMoments, Moments, standardised_shift
from normwise.models.batch import batch_size, divisible, join_batches, take_samples
from normwise.models.observe import NormCall, Statistics, observing
from normwise.models.task import Task
from normwise.models.walk import NormLayer
from normwise.models.wiring import Wiring

TOGETHER = 1 << 15  # numbers in the tables kept before they are merged: half a megabyte a layer
MAX_PLACES = 8  # uses of a shared norm in one pass that are told apart; later ones count with the last
HELD_BACK = 4  # every fourth batch is kept for measuring what fixes recover
ENOUGH = 8  # samples up to which small batches are joined with the next
_SPLITTABLE = 4  # samples from which a single batch is split into two


@dataclass
class LayerTrace:
    """What the batch-statistics pass saw at one norm: moments by place (use within one pass), and sizes."""

    layer: NormLayer
    depth: int
    places: list[ClusteredMoments] = field(default_factory=list)
    bad_batch: int | None = None
    rank: int = 0
    waiting: dict[int, list[Moments]] = field(default_factory=dict, repr=False)

    def add(self, place: int, samples: Moments) -> None:
        """Take in the moments of some samples, tables `(n, c)`; a few at a time are worked into `places`."""
        waiting = self.waiting.setdefault(place, [])
        waiting.append(samples)
        if sum(part.mean.numel() for part in waiting) >= TOGETHER:
            self.work_in()

    def work_in(self) -> None:
        """Merge what waits into `places`."""
        for place, parts in sorted(self.waiting.items()):
            if not parts:
                continue
            clusters = ClusteredMoments.of(Moments.cat(parts))
            if place < len(self.places):
                self.places[place] = self.places[place].merge(clusters)
            else:
                self.places.append(clusters)
            parts.clear()

    def values_in(self, samples: int, domain: DomainTrace) -> float:
        """Return how many values a channel has in a batch of that many samples (all places taken apart)."""
        uses = max(len(self.places), 1)
        return samples * float(self.moments.values.count.max()) / domain.fit_samples / uses if self.places else math.inf

    @property
    def moments(self) -> ClusteredMoments:
        """Moments over all places."""
        merged = self.places[0]
        for place in self.places[1:]:
            merged = merged.merge(place)
        return merged

    @property
    def measured(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self.places) and float(self.moments.values.count) >= MIN_VALUES

    def shift(self) -> tuple[Tensor, Tensor]:
        """Return by channel the shift of the data from the running statistics (source sd) and the variance ratio."""
        observed = self.moments.values
        mean, variance = self.layer.running_mean, self.layer.running_var
        if mean is None or variance is None:
            return torch.zeros_like(observed.mean), torch.ones_like(observed.mean)
        source = Moments.from_variance(observed.count, mean.detach(), variance.detach())
        return standardised_shift(source, observed, self.layer.working_eps)


@dataclass
class DomainTrace:
    """One source of data: its samples, split into those measured on and those held back, and what was seen.

    Small batches are joined for measuring: statistics are the same samples' whatever the batch, while activations
    normalised by two samples are nobody's. `batch_sizes` are those of the loader, `origins` its batch of each sample.
    """

    fit: list[Any]
    held: list[Any]
    origins: list[list[int]]
    held_is_separate: bool
    batch_sizes: list[int]
    last_batch: int | None
    layers: dict[str, LayerTrace] = field(default_factory=dict)
    deployed: Scores | None = None
    batchwise: Scores | None = None

    @property
    def batches(self) -> int:
        """Number of batches read."""
        return len(self.batch_sizes)

    @property
    def fit_samples(self) -> int:
        """Number of samples measured on."""
        return sum(batch_size(batch) for batch in self.fit)

    @property
    def typical_batch(self) -> int:
        """Median batch size: what one process sees in a step."""
        return sorted(self.batch_sizes)[len(self.batch_sizes) // 2]


@dataclass
class Trace:
    """Everything rules may read. They change nothing."""

    model: nn.Module
    task: Task
    layers: list[NormLayer]
    wiring: Wiring
    data: DomainTrace | None = None
    target: DomainTrace | None = None
    optimizer: Optimizer | None = None
    role: str | None = None
    world_size: int = 1
    was_training: dict[str, bool] = field(default_factory=dict)
    would_train: dict[str, bool] = field(default_factory=dict)
    dropout_ratios: dict[str, float] = field(default_factory=dict)
    leak: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def moves(self, layer: NormLayer) -> bool:
        """Return whether `model.train()` and a forward pass would change the layer's running statistics."""
        return layer.learns_statistics and self.would_train.get(layer.name, True)

    def normalises_batches(self, layer: NormLayer) -> bool:
        """Return whether training uses the layer's batch statistics: it learns its running ones, or has none."""
        return layer.statistics is None or self.moves(layer)

    def ranks_of(self, name: str) -> set[int]:
        """Return the ranks of the inputs seen at a layer; empty without data."""
        return {domain.layers[name].rank for _, domain in self.domains if name in domain.layers}

    @property
    def domains(self) -> list[tuple[str, DomainTrace]]:
        """The sources of data there are, with their argument's name."""
        return [(n, d) for n, d in (("data", self.data), ("target", self.target)) if d is not None]


def split_batches(batches: list[Any], last_batch: int | None) -> DomainTrace:
    """Hold back every fourth batch, or half of a single one, for measuring what fixes recover; join small ones."""
    sizes = [batch_size(batch) for batch in batches]
    numbered = list(enumerate(batches))
    if len(batches) > 1:
        period = min(HELD_BACK, len(batches))
        held, fit = numbered[period - 1 :: period], [pair for pair in numbered if pair[0] % period != period - 1]
    elif sizes[0] >= _SPLITTABLE and divisible(batches[0]):
        half = sizes[0] // 2
        held, fit = ([(0, take_samples(batches[0], part))] for part in (slice(0, half), slice(half, None)))
    else:
        held = fit = numbered
    joined_fit, origins = _grouped(fit)
    joined_held, more = (joined_fit, []) if held is fit else _grouped(held)
    return DomainTrace(joined_fit, joined_held, origins + more, held is not fit, sizes, last_batch)


def _grouped(batches: list[tuple[int, Any]]) -> tuple[list[Any], list[list[int]]]:
    """Join neighbours of the same form until they hold enough samples; return them and the origin of each sample."""
    groups: list[Any] = []
    origins: list[list[int]] = []
    for number, batch in batches:
        size = batch_size(batch)
        together = join_batches(groups[-1], batch) if groups and len(origins[-1]) < ENOUGH else None
        if together is None:
            groups.append(batch)
            origins.append([number] * size)
        else:
            groups[-1] = together
            origins[-1] += [number] * size
    return groups, origins


def trace_domain(model: nn.Module, task: Task, domain: DomainTrace, tick: Callable[[], None]) -> None:
    """Run both passes over one source of data; the caller preserves the model."""
    batches = [*domain.fit, *domain.held] if domain.held_is_separate else domain.fit
    deployed, batchwise = [], []
    current = 0

    def visit(call: NormCall) -> Statistics | None:
        samples = call.sample_moments()
        pooled = samples.pool(0)
        seen = domain.layers.setdefault(call.layer.name, LayerTrace(call.layer, len(domain.layers)))
        seen.rank = call.x.ndim
        finite = bool(torch.isfinite(pooled.m2).all())
        if not finite:
            if seen.bad_batch is None:
                seen.bad_batch = _origin_of_bad(samples, domain.origins[current])
            return None
        if current < len(domain.fit):
            seen.add(min(call.index, MAX_PLACES - 1), samples)
        return batch_statistics(pooled)

    with torch.no_grad():
        model.eval()
        for batch in batches:
            deployed.append(score_batch(model, task, task.run(model, batch), batch))
            tick()
        with observing(model, visit) as watch:
            for current, batch in enumerate(batches):  # noqa: B007 read by `visit`
                watch.begin_pass()
                batchwise.append(score_batch(model, task, task.run(model, batch), batch))
                tick()
    for seen in domain.layers.values():
        seen.work_in()
    domain.deployed, domain.batchwise = joined(deployed), joined(batchwise)


def _origin_of_bad(samples: Moments, origins: list[int]) -> int:
    """Return the loader's batch that the first sample with values that are not finite came in."""
    bad = (~torch.isfinite(samples.m2)).any(1)
    first = int(bad.nonzero()[0]) * len(origins) // len(bad)
    return origins[first]
