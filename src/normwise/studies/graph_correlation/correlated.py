"""Batches of values whose correlation is known: what our layers make of them and keep of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from normwise.care.recalibrate import recalibrate
from normwise.layers import BatchNorm, GraphBatchNorm

NODES, CHANNELS = 32, 64
MOMENTUM = 0.1
_SETTLED = 120  # batches after which 3e-6 of the initial value is left


def draw(rho: float, generator: torch.Generator, *, count: int = NODES) -> Tensor:
    """Draw a batch `(count, c)` of values of variance 1, any two of a channel correlated by rho.

    The mean of a batch has variance `(1 + (count - 1) rho) / count`, and the deviations from it `(1 - rho)`: that is
    all there is, and rho may go down to where the mean has none.
    """
    own = torch.randn(count, CHANNELS, generator=generator)
    mean = torch.randn(1, CHANNELS, generator=generator) * max(0.0, (1 + (count - 1) * rho) / count) ** 0.5
    return mean + (own - own.mean(0)) * (1 - rho) ** 0.5


def variances(rho: float, count: int, draws: int, generator: torch.Generator) -> tuple[float, float]:
    """Return Bessel's and the population variance of batches of few values, on average."""
    found = torch.stack([draw(rho, generator, count=count) for _ in range(draws)]).double()
    return float(found.var(1).mean()), float(found.var(1, unbiased=False).mean())


def trained_and_kept(rho: float, batches: int, generator: torch.Generator) -> dict[str, float]:
    """Return the mean square that our BatchNorm puts out in training, and what it keeps: averaged, and recalibrated."""
    data = [draw(rho, generator) for _ in range(batches)]
    model = nn.Sequential(BatchNorm(CHANNELS, momentum=None))
    with torch.no_grad():
        trained = torch.stack([model(x).double().square().mean() for x in data]).mean()
        running = float(model[0].get_buffer("running_var").mean())
        recalibrate(model, data)
    merged = float(model[0].get_buffer("running_var").mean())
    return {"train": float(trained), "running": running, "merged": merged}


def evaluated(rho: float, batches: int, generator: torch.Generator) -> float:
    """Return the mean square in evaluation, on new values, of a BatchNorm that has averaged so many batches."""
    norm = BatchNorm(CHANNELS, momentum=None)
    with torch.no_grad():
        for _ in range(batches):
            norm(draw(rho, generator))
        norm.eval()
        outputs = [norm(draw(rho, generator)).double().square().mean() for _ in range(batches)]
    return float(torch.stack(outputs).mean())


def exponentially(rho: float, batches: int, generator: torch.Generator) -> float:
    """Return the running variance of GraphBatchNorm, averaged over time once its initial value is gone."""
    layer, kept = GraphBatchNorm(CHANNELS, momentum=MOMENTUM), []
    with torch.no_grad():
        for step in range(_SETTLED + batches):
            layer(draw(rho, generator))
            if step >= _SETTLED:
                kept.append(float(layer.module.get_buffer("running_var").mean()))
    return float(np.mean(kept))
