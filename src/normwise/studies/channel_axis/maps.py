"""Feature maps whose correlation and scales are known, real ones, and what a norm leaves of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import BatchNorm


def draw(scales: np.ndarray, correlation: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw `(count, c, 8, 8)` Gaussian maps whose channels have these scales and one correlation between any two."""
    shape = (count, len(scales), 8, 8)
    common = torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64) * correlation**0.5
    values = common + torch.randn(shape, generator=generator, dtype=torch.float64) * (1 - correlation) ** 0.5
    return values * torch.as_tensor(scales).view(-1, 1, 1)


def variances(y: Tensor) -> Tensor:
    """Return the variance of each channel, `(c,)`."""
    return y.transpose(0, 1).flatten(1).var(1, unbiased=False)


def shared(y: Tensor) -> float:
    """Return the mean correlation between two channels of the output."""
    correlations = torch.corrcoef(y.transpose(0, 1).flatten(1))
    return float((correlations.sum() - len(correlations)) / (len(correlations) * (len(correlations) - 1)))


def loud_and_texture(norm: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the output variance of the first channel, and the mean of all others'."""
    found = variances(norm(x))
    return float(found[0]), float(found[1:].mean())


def features(images: Tensor, count: int) -> Tensor:
    """Return digits under filters of very different gain: edges at two scales, smooth parts, fine texture."""
    kernels = torch.randn(count, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    kernels *= torch.logspace(-1, 0.5, count).view(-1, 1, 1, 1)
    return functional.conv2d(images, kernels, padding=1)


def loudest_over_quietest(maps: Tensor, replicates: int, generator: torch.Generator) -> list[float]:
    """Return the output variance of the loudest over that of the quietest channel of all, of batches of 256."""
    norm, of_all, found = BatchNorm(maps.shape[1], affine=False, dtype=torch.float64), variances(maps), []
    for _ in range(replicates):
        chosen = maps[torch.randint(len(maps), (256,), generator=generator)]
        each = variances(norm(chosen.double()))
        found.append(float(each[of_all.argmax()] / each[of_all.argmin()]))
    return found
