"""Many batches, Gaussian, in clusters, of digits and of photographs; torch's own layer averages them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normwise.studies.estimate import Estimate, dots, root_mean
from normwise.studies.small_batch import populations
from normwise.studies.small_batch.predict import (
    CLUSTERS,
    CORRELATION,
    FEATURES,
    LARGE,
    LEFT,
    M_CLUSTERS,
    M_IMAGES,
    M_STEADY,
    MOMENTUM,
    NOISE,
    PATCHES,
    POSITIONS,
    SHARED,
    SMALL,
    STEADY_MEAN,
    STEADY_VARIANCE,
    UPDATES,
    V_CLUSTERS,
    V_IMAGES,
    V_PIXELS,
    V_SHARED,
    V_STEADY,
)
from normwise.studies.study import Measurement, Progress, tracked

BATCHES = (2, 4, 8, 16, 32, 64)
CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_OFFSET = 5.0
_HISTORY = (1, 5, 10, 20, 29, 40, 60)
_GROUPS = 20  # replicates, over which a standard error is taken
_DRAWS = {"tiny": 100, "quick": 1000, "full": 6000}  # batches in each replicate
Deviations = dict[tuple[str, float], Callable[[], Tensor]]  # each gives a statistic's relative deviations


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Draw batches and see how far their statistics lie from those of everything."""
    generator, draws = torch.Generator().manual_seed(seed), _DRAWS[size]
    pixels = populations.pixels()
    images = {
        FEATURES: populations.standardised(populations.features()),
        PATCHES: populations.standardised(populations.patches()),
    }
    given = {
        "pixel kurtosis": float(populations.excess_kurtosis(pixels).mean()),
        "moments": {name: populations.moments(values) for name, values in images.items()},
        "correlation": {name: populations.correlation(values) for name, values in images.items()},
    }
    batches = _synthetic(draws, generator)
    for m in BATCHES:
        batches["pixels", m] = lambda m=m: _of(pixels, m, draws, generator).var(1) / pixels.var(0, unbiased=False) - 1
    for name, values in images.items():
        parts = torch.stack([values.mean(2), values.square().mean(2)], -1)  # all that a batch's statistics need
        for m in BATCHES:
            batches[f"mean of {name}", m] = lambda p=parts, m=m: _of(p, m, draws, generator)[..., 0].mean(1)
            batches[f"variance of {name}", m] = lambda p=parts, m=m: _about(_variance(_of(p, m, draws, generator)))
    squares: dict[tuple[str, float], list[float]] = {}
    history: list[list[float]] = []
    noise: list[float] = []
    for _ in tracked(range(_GROUPS), progress):
        for key, deviations in batches.items():
            squares.setdefault(key, []).append(float(deviations().double().square().mean()))
        left, spread = _running(draws, generator)
        history.append(left)
        noise.append(spread)
    error = {key: Estimate.jackknife(root_mean, one) for key, one in squares.items()}
    left = [Estimate.of([one[i] for one in history]) for i in range(len(_HISTORY))]
    estimates = {
        M_STEADY: error["means", STEADY_MEAN],
        V_STEADY: error["values", STEADY_VARIANCE],
        V_SHARED: error["shared", SHARED],
        M_CLUSTERS: error["mean", CORRELATION],
        V_CLUSTERS: error["variance", CORRELATION],
        V_PIXELS: error["pixels", SMALL],
        **{M_IMAGES[name]: error[f"mean of {name}", SMALL] for name in images},
        **{V_IMAGES[name]: error[f"variance of {name}", SMALL] for name in images},
        LEFT: left[_HISTORY.index(UPDATES)],
        NOISE: Estimate.jackknife(root_mean, noise),
    }
    by_size = ("values", "pixels", *(f"{of} of {name}" for of in ("mean", "variance") for name in images))
    shown = {name: dots(BATCHES, [error[name, m] for m in BATCHES]) for name in by_size}
    shown |= {name: dots(CORRELATIONS, [error[name, rho] for rho in CORRELATIONS]) for name in ("mean", "variance")}
    return Measurement(estimates, given, {**shown, "history": dots(_HISTORY, left)})


def _synthetic(draws: int, generator: torch.Generator) -> Deviations:
    """Return what draws Gaussian batches: of independent values, and in clusters."""
    batches: Deviations = {}
    for m in (*BATCHES, STEADY_VARIANCE):
        batches["values", m] = lambda m=m: torch.randn(m, draws, generator=generator).var(0) - 1
    batches["means", STEADY_MEAN] = lambda: torch.randn(STEADY_MEAN, draws, generator=generator).mean(0)
    for rho in CORRELATIONS:
        batches["mean", rho] = lambda rho=rho: _clusters(CLUSTERS, POSITIONS, rho, draws, generator).mean(1)
        batches["variance", rho] = lambda rho=rho: _about(_clusters(CLUSTERS, POSITIONS, rho, draws, generator).var(1))
    batches["shared", SHARED] = lambda: _about(_clusters(1, LARGE, SHARED, draws, generator).var(1))
    return batches


def _about(values: Tensor) -> Tensor:
    """Return deviations from the values' own mean over draws, relative to it."""
    return values / values.mean(0) - 1


def _clusters(clusters: int, size: int, correlation: float, draws: int, generator: torch.Generator) -> Tensor:
    """Draw `(draws, clusters * size)` Gaussian values of variance 1, correlated inside a cluster."""
    common = torch.randn(draws, clusters, 1, generator=generator) * correlation**0.5
    return (common + torch.randn(draws, clusters, size, generator=generator) * (1 - correlation) ** 0.5).flatten(1)


def _of(population: Tensor, m: int, draws: int, generator: torch.Generator) -> Tensor:
    """Draw `(draws, m, ...)` members with replacement."""
    return population[torch.randint(len(population), (draws, m), generator=generator)]


def _variance(parts: Tensor) -> Tensor:
    """Return each batch's variance from its images' means and mean squares `(draws, m, c, 2)`."""
    mean, square = parts.mean(1).unbind(-1)
    return square - mean.square()


def _running(channels: int, generator: torch.Generator) -> tuple[list[float], float]:
    """Update torch's layer; return the share of its initial value left over time, and its mean squared deviation."""
    norm = nn.BatchNorm1d(channels, momentum=MOMENTUM)
    left, noise = [], 0.0
    for update in range(1, max(_HISTORY) + 1):
        norm(_OFFSET + torch.randn(SMALL, channels, generator=generator))
        running = norm.get_buffer("running_mean").double() / _OFFSET
        if update in _HISTORY:
            left.append(float(1 - running.mean()))
        if update == UPDATES:
            noise = float((_OFFSET * (running - running.mean())).square().mean())
    return left, noise
