"""What a model's outputs are worth, sample by sample: accuracy, loss, or agreement of eval with train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from normwise.care.recalibrate import batch_statistics
from normwise.models.observe import NormCall, Statistics, observing
from normwise.models.preserve import preserved
from normwise.models.task import Task, prediction

RESAMPLES = 2000
MANY = 500  # samples from which the mean is as good as normal


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


def score_batch(model: nn.Module, task: Task, output: Any, batch: Any) -> tuple[str, Tensor] | None:
    """Score one batch's output by accuracy, else by loss; None where there are no labels."""
    right = task.correct(model, output, batch)
    if right is not None:
        return "accuracy", right.double().cpu()
    losses = task.losses(model, output, batch)
    return None if losses is None else ("loss", losses.detach().double().cpu())


def joined(parts: list[tuple[str, Tensor] | None]) -> Scores | None:
    """Return the scores of several batches as one; None unless all were scored, and alike."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts) or len({name for name, _ in known}) > 1:
        return None
    return Scores(known[0][0], torch.cat([values for _, values in known]).numpy())


def evaluate(model: nn.Module, task: Task, batches: list[Any]) -> Scores:
    """Run a model as deployed and score it; without labels, by how far its eval output is from its train output."""
    with preserved(model), torch.no_grad():
        model.eval()
        scores = joined([score_batch(model, task, task.run(model, batch), batch) for batch in batches])
        if scores is not None and (scores.name == "accuracy" or np.isfinite(scores.values).all()):
            return scores
        return Scores("divergence", np.concatenate(_divergences(model, task, batches)))


def _divergences(model: nn.Module, task: Task, batches: list[Any]) -> list[NDArray[np.float64]]:
    """Run every batch with running and with batch statistics, and compare."""
    as_trained = False

    def visit(call: NormCall) -> Statistics | None:
        return batch_statistics(call.sample_moments().pool(0)) if as_trained else None

    found = []
    with observing(model, visit) as watch:
        for batch in batches:
            outputs = []
            for as_trained in (False, True):  # noqa: B007 read by `visit`
                watch.begin_pass()
                outputs.append(prediction(task.run(model, batch)).double().flatten(1))
            found.append(divergence(*outputs))
    return found


def divergence(outputs: Tensor, reference: Tensor) -> NDArray[np.float64]:
    """Return for each sample `|e - t| / (|e - m| + |t - m|)` with m the mean of the reference: in [0, 1].

    Shape: both `(n, features)`; result `(n,)`. Values that are not finite count as 1.
    """
    centre = reference.mean(0)
    gap = (outputs - reference).norm(dim=1)
    scale = (outputs - centre).norm(dim=1) + (reference - centre).norm(dim=1)
    share = torch.where(gap > 0, gap / scale.clamp_min(torch.finfo(scale.dtype).tiny), gap)
    return torch.nan_to_num(share, nan=1.0, posinf=1.0).clamp(0, 1).cpu().numpy()


def compare(before: Scores, after: Scores) -> Recovery:
    """Return the gain from before to after, samples paired."""
    gain = after.values - before.values if before.higher_is_better else before.values - after.values
    if len(gain) > MANY:  # the bootstrap's own limit, for the price of one pass
        spread = 1.96 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
        low, high = gain.mean() - spread, gain.mean() + spread
    else:
        draws = np.random.default_rng(0).integers(0, len(gain), (RESAMPLES, len(gain)))
        low, high = np.quantile(gain[draws].mean(1), (0.025, 0.975))
    return Recovery(before.mean, after.mean, float(gain.mean()), float(low), float(high))
