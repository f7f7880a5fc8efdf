"""A discriminator that is linear in batch-normalised features: how reals move with the fakes of their batch, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, DomainBatchNorm
from normwise.studies.discriminator_coupling.games import PIXELS
from normwise.studies.discriminator_coupling.looks import HALF, fakes, some
from normwise.studies.discriminator_coupling.predict import FRESH, SHIFT, SHIFT_APART, STEEPEST, THROUGH, THROUGH_APART
from normwise.studies.discriminator_coupling.probes import shift, through_statistics
from normwise.studies.estimate import Estimate, dots, root_mean_square

MOVES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the fakes, in standard deviations of the reals
_MANY = 4  # times as many of both, where fakes are drawn anew
_CHANNELS = 16  # features


def look_at_linear(
    pixels: Tensor, *, draws: int, replicates: int, generator: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Any], dict[str, Any]]:
    """Return what is measured of a discriminator linear in normalised features of digits, what it was given, and a figure's."""
    filters = torch.randn(PIXELS, _CHANNELS, generator=generator)
    noise = torch.rand(HALF, PIXELS, generator=generator)
    batches = (some(pixels, HALF, generator), noise, fakes(HALF, generator))
    real, fake, other = ((x @ filters).double() for x in batches)
    last = nn.Linear(_CHANNELS, 1, dtype=torch.float64)
    norm = BatchNorm(_CHANNELS, dtype=torch.float64)
    joint = nn.Sequential(norm, last)
    separate = nn.Sequential(DomainBatchNorm(_CHANNELS, num_domains=2, dtype=torch.float64), last)
    exact = {
        SHIFT: root_mean_square(shift(joint, real, fake, other)),
        SHIFT_APART: root_mean_square(shift(separate, real, fake, other)),
        THROUGH: through_statistics(joint, real, fake, torch.mean),
        THROUGH_APART: through_statistics(separate, real, fake, torch.mean),
        STEEPEST: _steepest(norm, torch.cat([real, fake])),
    }
    fresh = [_drawn_anew(joint, real, draws, generator) for _ in range(replicates)]
    moved = [fake + move * real.std(0, unbiased=False) for move in MOVES]
    shown = {
        name: dots(MOVES, [Estimate(root_mean_square(shift(model, real, fake, x)), 0.0) for x in moved])
        for name, model in (("joint", joint), ("separate", separate))
    }
    tensors = {"real": real, "fake": fake, "other": other, "weight": last.weight.detach()[0]}
    given = {name: x.tolist() for name, x in tensors.items()} | {"eps": norm.eps, "batch drawn anew": 2 * _MANY * HALF}
    estimates = {name: Estimate(value, 0.0) for name, value in exact.items()}
    return {**estimates, FRESH: Estimate.of(fresh)}, given, shown


def _drawn_anew(model: nn.Module, real: Tensor, draws: int, generator: torch.Generator) -> float:
    """Return the variance of real logits' shift when Gaussian fakes of the reals' moments are drawn anew."""
    mean, deviation = real.mean(0), real.std(0, unbiased=False)
    many, shape = real.repeat(_MANY, 1), (_MANY * HALF, _CHANNELS)
    squares = []
    for _ in range(draws):
        before, after = (
            mean + deviation * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
        )
        squares.append(float(shift(model, many, before, after).square().mean()))
    return float(np.mean(squares))


def _steepest(norm: nn.Module, batch: Tensor) -> float:
    """Return the largest singular value of a norm's Jacobian over its batch; channels do not meet in it."""
    batch = batch.clone().requires_grad_()
    rows = [torch.autograd.grad(row.sum(), batch, retain_graph=True)[0] for row in norm(batch)]
    return float(torch.linalg.matrix_norm(torch.stack(rows).permute(2, 0, 1), 2).max())
