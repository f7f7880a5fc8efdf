"""A unit of an LSTM that hears speech: its moments by step, how they vary from batch to batch, and what is left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from normwise.layers import MaskedBatchNorm, TimewiseBatchNorm
from normwise.studies.sequence_drift.recogniser import Recogniser
from normwise.studies.sequence_drift.vowels import Utterances

SPOKEN = 128  # utterances a batch
_LEAST = 2  # values of a step, below which time-wise statistics do not take it


def drifting_unit(model: Recogniser, x: Utterances, late: int) -> Tensor:
    """Return `(n, t)` of the LSTM's unit whose mean goes farthest from one side, early, to the other at step `late`."""
    steps = int(x.lengths.max())
    features, alive = model.features(x).double()[:, :, :steps], _alive(x.lengths, steps).unsqueeze(1)
    counts = alive.sum(0).double()
    means = features.sum(0) / counts
    variances = ((features - means).square() * alive).sum(0) / counts
    weights = counts.squeeze(0) / counts.sum()
    early, late_mean = (means[:, step] - means @ weights for step in (0, late - 1))
    return features[:, int((-early * late_mean / (variances @ weights)).argmax())]


def moments(unit: Tensor, lengths: Tensor) -> dict[str, Any]:
    """Return a unit's moments by step over all utterances, and the scatter of a batch's standardised sums."""
    alive = _alive(lengths, unit.shape[1])
    counts = alive.sum(0).double()
    mean = unit.sum(0) / counts
    variance = ((unit - mean).square() * alive).sum(0) / counts
    grand = unit.sum() / counts.sum()
    z = (unit - grand) * alive
    z = z / (z.square().sum() / counts.sum()).sqrt()
    total, square = z.sum(1), z.square().sum(1) - lengths

    def scatter(one: Tensor, other: Tensor) -> Any:
        each = (one - one.mean(0)).view(len(unit), -1) * (other - other.mean()).unsqueeze(1)
        return (SPOKEN * each.mean(0)).squeeze(0).tolist()

    return {
        "batch": SPOKEN,
        "utterances": len(unit),
        "least": _LEAST,
        "eps": MaskedBatchNorm(1).eps,
        "step means": mean.tolist(),
        "step variances": variance.tolist(),
        "step counts": counts.tolist(),
        "slope": float(np.polyfit(np.arange(unit.shape[1]), mean.numpy(), 1)[0]),
        "spread": float((counts * variance).sum() / counts.sum()),
        "scatter": {
            "mean": scatter(total, total),
            "square": scatter(square, square),
            "mean_square": scatter(total, square),
            "mean_values": scatter(total, lengths.double()),
            "square_values": scatter(square, lengths.double()),
            "step_square": scatter(z, square),
            "counts_mean": scatter(alive.double(), total),
        },
    }


def outputs(unit: Tensor, lengths: Tensor, batches: int, generator: torch.Generator) -> dict[str, Any]:
    """Return sums over many batches of utterances, each a pair of values and of how many there are, by step `(t, 2)`.

    Of the unit's pooled and time-wise outputs, and of the squared error of a step's own mean, in its own variance.
    """
    steps = unit.shape[1]
    masked, timewise = MaskedBatchNorm(1, affine=False), TimewiseBatchNorm(1, steps, momentum=1.0, affine=False)
    known = _alive(lengths, steps)
    mean = unit.sum(0) / known.sum(0)
    variance = ((unit - mean).square() * known).sum(0) / known.sum(0)
    sums = torch.zeros(3, steps, 2, dtype=torch.float64)
    for _ in range(batches):
        chosen = torch.randint(len(unit), (SPOKEN,), generator=generator)
        values, ends = unit[chosen].float().unsqueeze(1), lengths[chosen]
        counts = _alive(ends, steps).sum(0)
        taken = counts >= _LEAST
        pooled, own = (norm(values, ends).double().sum((0, 1)) for norm in (masked, timewise))
        square = (timewise.get_buffer("running_mean")[:, 0].double() - mean).square() / variance
        pairs = ((pooled, counts), (own, counts), (square * taken, taken))
        sums += torch.stack([torch.stack(pair, 1) for pair in pairs])
    return dict(zip(("spoken", "spoken, time-wise", "spoken noise"), sums.tolist(), strict=True))


def _alive(lengths: Tensor, steps: int) -> Tensor:
    return torch.arange(steps) < lengths.unsqueeze(1)
