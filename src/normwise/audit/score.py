"""What a model's outputs are worth, sample by sample: accuracy, loss, or agreement of eval with train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from normwise.care.recalibrate import batch_statistics
from normwise.core.moments import ClusteredMoments
from normwise.models.observe import NormCall, Statistics, observing
from normwise.models.preserve import preserved
from normwise.models.task import Task, prediction

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Scores:
    """One value a sample. `name` is accuracy (share right), loss, or divergence (0 same, 1 unrelated)."""

    name: str
    values: NDArray[np.float64]

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better."""
        return self.name == "accuracy"

    @property
    def mean(self) -> float:
        """The score over all samples."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Recovery:
    """How much better one set of scores is than another, with a 95% bootstrap interval over samples."""

    before: float
    after: float
    recovered: float
    low: float
    high: float


def score_outputs(model: nn.Module, task: Task, outputs: list[Any], batches: list[Any]) -> Scores | None:
    """Score outputs by accuracy, else by loss; None where there are no labels."""
    for name, function in (("accuracy", task.correct), ("loss", task.losses)):
        if name == "accuracy" and task.loss is not None and task.labels(model, batches[0]) is None:
            continue
        parts = [function(model, output, batch) for output, batch in zip(outputs, batches, strict=True)]
        known = [part for part in parts if part is not None]
        if known and len(known) == len(parts):
            return Scores(name, torch.cat(known).double().cpu().numpy())
    return None


def evaluate(model: nn.Module, task: Task, batches: list[Any]) -> Scores:
    """Run a model as deployed and score it; without labels, by how far its eval output is from its train output."""
    with preserved(model), torch.no_grad():
        model.eval()
        outputs = [task.run(model, batch) for batch in batches]
        scores = score_outputs(model, task, outputs, batches)
        if scores is not None and (scores.name == "accuracy" or np.isfinite(scores.values).all()):
            return scores
        trained = []
        with observing(model, _batchwise) as watch:
            for batch in batches:
                watch.begin_pass()
                trained.append(task.run(model, batch))
        return Scores("divergence", divergence(_flat(outputs), _flat(trained)))


def divergence(outputs: Tensor, reference: Tensor) -> NDArray[np.float64]:
    """Return for each sample `|e - t| / (|e - m| + |t - m|)` with m the mean of the reference: in [0, 1]."""
    centre = reference.mean(0)
    gap = (outputs - reference).norm(dim=1)
    scale = (outputs - centre).norm(dim=1) + (reference - centre).norm(dim=1)
    share = torch.where(gap > 0, gap / scale.clamp_min(torch.finfo(scale.dtype).tiny), gap)
    return torch.nan_to_num(share, nan=1.0, posinf=1.0).clamp(0, 1).cpu().numpy()


def compare(before: Scores, after: Scores) -> Recovery:
    """Return the gain from before to after, samples paired."""
    gain = after.values - before.values if before.higher_is_better else before.values - after.values
    draws = np.random.default_rng(0).integers(0, len(gain), (RESAMPLES, len(gain)))
    low, high = np.quantile(gain[draws].mean(1), (0.025, 0.975))
    return Recovery(before.mean, after.mean, float(gain.mean()), float(low), float(high))


def _batchwise(call: NormCall) -> Statistics | None:
    return batch_statistics(ClusteredMoments.of(call.sample_moments()).values)


def _flat(outputs: list[Any]) -> Tensor:
    return torch.cat([prediction(output).double().flatten(1) for output in outputs])
