"""Recalibration: running statistics measured anew, exactly."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from normwise.core.moments import MIN_VALUES, Moments, standardised_shift
from normwise.errors import DataError
from normwise.models.batch import batch_size, read_batches
from normwise.models.observe import NormCall, Statistics, observing
from normwise.models.preserve import preserved
from normwise.models.task import Task
from normwise.models.walk import NormLayer, require_norm_layers

_FORGOTTEN = 0.05  # share of the initial value below which a running average counts as grown up


@dataclass(frozen=True, eq=False)
class LayerRecalibration:
    """What was measured at one layer, and how far its old statistics were off (source sd; variance ratio)."""

    moments: Moments
    shift: float
    variance_ratio: float


@dataclass(frozen=True, eq=False)
class Recalibration:
    """The outcome: layers by name, the amount of data, and the layers no batch reached (unchanged)."""

    layers: dict[str, LayerRecalibration]
    unreached: tuple[str, ...]
    batches: int
    samples: int

    def __str__(self) -> str:
        """Say in one line what was done."""
        worst = max(self.layers, key=lambda name: self.layers[name].shift, default="")
        text = f"{len(self.layers)} layers recalibrated on {self.samples} samples in {self.batches} batches"
        if worst:
            text += f"; largest shift {self.layers[worst].shift:.2f} sd at {worst}"
        return text + (f"; not reached: {', '.join(self.unreached)}" if self.unreached else "")


def recalibrate(
    model: nn.Module,
    data: Iterable[Any],
    *,
    task: Task | None = None,
    max_batches: int | None = None,
    layers: Collection[str] | None = None,
) -> Recalibration:
    """Measure the running statistics of a trained model anew, in place.

    Every norm normalises with the batch's own statistics, as in training, while everything else stays in evaluation
    mode; each layer's moments are merged exactly over all values of all batches, so that unequal batches count by
    their size and the variance between batches is kept. Running variances are unbiased, as torch's. `layers` limits
    the measurement to some layers, the others keep normalising with what they have. Instance norms are left alone:
    their running statistics are averages over single samples. Our own layers are measured as they group: valid
    positions only, each domain or step by itself (groups of no data stay as they are).

    Nothing but these buffers changes: modes, momentum and random states are restored, and on an exception the
    buffers too. `num_batches_tracked` becomes the number of batches under momentum None; otherwise it is raised, if it
    must be, to a count at which the initial value is forgotten, which it is.

    Raises: `ModelError` for a model without running statistics, `DataError` for batches that are empty, do not fit or
    are not finite.

    Reference: Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3 (PreciseBN), with exact merging.
    """
    everything = [layer for layer in require_norm_layers(model) if not layer.per_sample]
    chosen = {layer.name: layer for layer in everything if layers is None or layer.name in layers}
    measured, batches, samples = measure(model, data, task=task or Task(), max_batches=max_batches, layers=set(chosen))
    outcome = {name: _compare(chosen[name], moments) for name, moments in measured.items()}
    for name, moments in measured.items():
        _write(chosen[name], moments, batches)
    unreached = tuple(name for name in chosen if name not in measured)
    return Recalibration(outcome, unreached, batches, samples)


def measure(
    model: nn.Module,
    data: Iterable[Any],
    *,
    task: Task,
    max_batches: int | None = None,
    layers: Collection[str],
) -> tuple[dict[str, Moments], int, int]:
    """Return the moments of each layer's input over all batches, the batches and the samples; the model is restored.

    Tables are `(c,)`, those of layers with statistics by group `(g, c)`.
    """
    merged: dict[str, Moments] = {}
    batches = samples = 0

    def visit(call: NormCall) -> Statistics | None:
        name = call.layer.name
        if name not in layers:
            return None
        by_group = call.group_moments()
        moments = call.sample_moments().pool(0) if by_group is None else by_group
        _require_finite(moments, name, batches)
        merged[name] = moments if name not in merged else merged[name].merge(moments)
        return batch_statistics(moments) if by_group is None else _statistics_by_group(by_group, call.layer)

    with preserved(model), torch.no_grad(), observing(model, visit, grouped=True) as watch:
        for batch in read_batches(data, max_batches=max_batches):
            watch.begin_pass()
            task.run(model, batch)
            batches, samples = batches + 1, samples + batch_size(batch)
    return {k: v for k, v in merged.items() if float(v.count.max()) >= MIN_VALUES}, batches, samples


def batch_statistics(moments: Moments) -> Statistics | None:
    """Return what training would normalise this batch with, or None for a single value, which training refuses."""
    if float(moments.count.max()) < MIN_VALUES:
        return None
    return moments.mean, moments.variance


def _statistics_by_group(moments: Moments, layer: NormLayer) -> Statistics | None:
    """Return the same by group, flat: the running ones where this batch says nothing of a group."""
    if layer.running_mean is None or layer.running_var is None:
        return None
    measured = (moments.count >= MIN_VALUES).expand_as(moments.mean).flatten()
    return (
        torch.where(measured, moments.mean.flatten(), layer.running_mean),
        torch.where(measured, moments.variance.flatten(), layer.running_var),
    )


def _require_finite(moments: Moments, name: str, batch: int) -> None:
    if not bool(torch.isfinite(moments.m2).all()):
        raise DataError(
            f"data: expected finite values, batch {batch} (from 0) gives NaN or Inf at the input of layer '{name}'; "
            "look at that batch, or run normwise audit"
        )


def _compare(layer: NormLayer, moments: Moments) -> LayerRecalibration:
    if layer.running_mean is None or layer.running_var is None:
        return LayerRecalibration(moments, math.nan, math.nan)
    tables = (table.view_as(moments.mean) for table in (layer.running_mean, layer.running_var))
    shift, ratio = standardised_shift(Moments.from_variance(moments.count, *tables), moments, layer.working_eps)
    known = (moments.count >= MIN_VALUES).expand_as(shift)
    return LayerRecalibration(
        moments, float(shift[known].square().mean().sqrt()), float(ratio[known].log().mean().exp())
    )


@torch.no_grad()
def _write(layer: NormLayer, moments: Moments, batches: int) -> None:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        return
    known = (moments.count >= MIN_VALUES).expand_as(moments.mean)
    mean.view_as(known)[known] = moments.mean[known].to(mean.dtype)
    variance.view_as(known)[known] = moments.unbiased_variance[known].to(variance.dtype)
    counter = getattr(layer.module, "num_batches_tracked", None)
    if counter is None:
        return
    reached = known[..., 0]
    if layer.momentum is None:
        counter[reached] = batches
    elif 0 < layer.momentum < 1:
        counter[reached] = counter[reached].clamp_min(math.ceil(math.log(_FORGOTTEN) / math.log1p(-layer.momentum)))
