"""Sequences whose mean drifts by construction, and what our layers leave of the drift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwise.layers import BatchNorm, MaskedBatchNorm, TimewiseBatchNorm

DRIFT, STEPS, SEQUENCES = 0.3, 20, 64  # standard deviations a step; steps of the longest; sequences a batch
LENGTHS = torch.arange(5, STEPS + 1).repeat_interleave(SEQUENCES // (STEPS - 4))
_CHANNELS = 64


def drifted(batches: int, generator: torch.Generator) -> dict[str, Any]:
    """Return what our layers leave at each step of made sequences, and how far a step's own mean is from the truth."""
    masked, padded = MaskedBatchNorm(_CHANNELS, affine=False), BatchNorm(_CHANNELS, affine=False)
    timewise = TimewiseBatchNorm(_CHANNELS, STEPS, momentum=1.0, affine=False)
    drift, whole = DRIFT * torch.arange(STEPS), torch.full((SEQUENCES,), STEPS)
    sums: dict[str, list[Tensor]] = {}
    for _ in range(batches):
        x = drift + torch.randn(SEQUENCES, _CHANNELS, STEPS, generator=generator)
        alive = torch.arange(STEPS) < LENGTHS.view(-1, 1, 1)
        y = masked(x, LENGTHS)
        one = {
            "even": _step_means(padded(x), whole),
            "masked": _step_means(y, LENGTHS),
            "padded": _step_means(padded(x * alive) * alive, LENGTHS),
            "time-wise": _step_means(timewise(x, LENGTHS), LENGTHS),
            "spread": y[:, :, 0].double().var(0).mean(),
            "noise": (timewise.get_buffer("running_mean").T - drift).double().square().mean(0),
        }
        for name, value in one.items():
            sums.setdefault(name, []).append(value)
    return {name: torch.stack(values).mean(0).tolist() for name, values in sums.items()}


def _step_means(y: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over sequences that are alive and over channels, `(t,)`, of `(n, c, t)` with zeros elsewhere."""
    counts = (lengths.unsqueeze(1) > torch.arange(y.shape[2])).sum(0)
    return y.double().sum(0).mean(0) / counts.clamp_min(1)
