"""A discriminator that is linear in batch-normalised features: how reals move with the fakes of their batch, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, DomainBatchNorm
from normwise.studies import gans
from normwise.studies.estimate import Estimate, dots

HALF, MANY = 64, 4  # reals, and as many fakes, of a batch; times as many of both where fakes are drawn anew
MOVES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the fakes, in standard deviations of the reals
_CHANNELS = 16  # features


def magnitude(values: Any) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def some(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw so many images, with replacement."""
    return pixels[torch.randint(len(pixels), (count,), generator=generator)]


def fakes(count: int, generator: torch.Generator) -> Tensor:
    """Return images of a generator that has not learnt anything yet."""
    return gans.generator_net()(torch.randn(count, gans.LATENT, generator=generator)).detach()


def shift(model: nn.Module, real: Tensor, fake: Tensor, other: Tensor) -> Tensor:
    """Return by how much real logits move when the fakes are replaced by others."""
    with torch.no_grad():
        return gans.judge(model, real, other)[0] - gans.judge(model, real, fake)[0]


def look_at_linear(
    pixels: Tensor, *, draws: int, replicates: int, generator: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Any], dict[str, Any]]:
    """Return what is measured of a discriminator linear in normalised features of digits, what it was given, and a figure's."""
    filters = torch.randn(gans.PIXELS, _CHANNELS, generator=generator)
    noise = torch.rand(HALF, gans.PIXELS, generator=generator)
    batches = (some(pixels, HALF, generator), noise, fakes(HALF, generator))
    real, fake, other = ((x @ filters).double() for x in batches)
    last = nn.Linear(_CHANNELS, 1, dtype=torch.float64)
    norm = BatchNorm(_CHANNELS, dtype=torch.float64)
    models = {
        "joint": nn.Sequential(norm, last),
        "separate": nn.Sequential(DomainBatchNorm(_CHANNELS, num_domains=2, dtype=torch.float64), last),
    }
    exact = {
        "shift": magnitude(shift(models["joint"], real, fake, other)),
        "shift, apart": magnitude(shift(models["separate"], real, fake, other)),
        "through": gans.through_statistics(models["joint"], real, fake, torch.mean),
        "through, apart": gans.through_statistics(models["separate"], real, fake, torch.mean),
        "steepest": _steepest(norm, torch.cat([real, fake])),
    }
    estimates = {name: Estimate(value, 0.0) for name, value in exact.items()}
    fresh = [_drawn_anew(models["joint"], real, draws, generator) for _ in range(replicates)]
    moved = [fake + move * real.std(0, unbiased=False) for move in MOVES]
    shown = {
        name: dots(MOVES, [Estimate(magnitude(shift(model, real, fake, x)), 0.0) for x in moved])
        for name, model in models.items()
    }
    tensors = {"real": real, "fake": fake, "other": other, "weight": last.weight.detach()[0]}
    given = {name: x.tolist() for name, x in tensors.items()} | {"eps": norm.eps}
    return {**estimates, "fresh": Estimate.of(fresh)}, given, shown


def _drawn_anew(model: nn.Module, real: Tensor, draws: int, generator: torch.Generator) -> float:
    """Return the variance of real logits' shift when Gaussian fakes of the reals' moments are drawn anew."""
    mean, deviation = real.mean(0), real.std(0, unbiased=False)
    many, shape = real.repeat(MANY, 1), (MANY * HALF, _CHANNELS)
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
