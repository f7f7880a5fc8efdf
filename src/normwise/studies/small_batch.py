"""How wrong the statistics of small batches are: independent values, clusters, real images, running averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, dots, root_mean, told
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import small_batch as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BATCHES = (2, 4, 8, 16, 32, 64)
_SMALL, _LARGE, _SHARED = 8, 64, 0.5
_CLUSTERS, _POSITIONS, _CORRELATION = 32, 64, 0.1
_CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_MOMENTUM, _UPDATES, _OFFSET = 0.1, 29, 5.0
_HISTORY = (1, 5, 10, 20, 29, 40, 60)
_GROUPS = 20  # replicates, over which a standard error is taken
_VARIED = 0.05  # variance of a pixel in [0, 1] below which nearly every digit has the same
_DRAWS = {"tiny": 100, "quick": 1000, "full": 6000}  # batches in each replicate
_V_SMALL = f"variance of {_SMALL} values"
_V_SHARED = f"variance of {_LARGE} values, all correlated by {_SHARED:g}"
_M_CLUSTERS = f"mean of {_CLUSTERS} x {_POSITIONS} values, correlated by {_CORRELATION:g} inside a cluster"
_V_CLUSTERS = f"variance of {_CLUSTERS} x {_POSITIONS} values, correlated by {_CORRELATION:g} inside a cluster"
_V_PIXELS = f"variance of {_SMALL} digits' pixels"
_M_FEATURES = f"mean of {_SMALL} digits' convolutional features"
_LEFT = f"initial value left in running_mean after {_UPDATES} updates"
_NOISE = f"error of running_mean, batches of {_SMALL}"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return relative errors of batch statistics, and what running averages make of them; rivals confuse the sizes."""
    count, images = _CLUSTERS * _POSITIONS, _SMALL * _POSITIONS
    worth = theory.effective_size_of_mean(count, _POSITIONS, _CORRELATION)
    shared = theory.effective_size_of_mean(_LARGE, _LARGE, _SHARED)
    features = theory.effective_size_of_mean(images, _POSITIONS, given["feature correlation"])
    mean, variance = theory.relative_error_of_mean, theory.relative_error_of_variance
    clustered = theory.relative_error_of_clustered_variance
    noise = theory.variance_of_running_average(_MOMENTUM, 1 / _SMALL, _UPDATES) ** 0.5
    predicted = {
        _V_SMALL: (variance(_SMALL), mean(_SMALL)),
        _V_SHARED: (clustered(1, _LARGE, _SHARED), mean(shared)),
        _M_CLUSTERS: (mean(worth), mean(count)),
        _V_CLUSTERS: (clustered(_CLUSTERS, _POSITIONS, _CORRELATION), variance(worth)),
        _V_PIXELS: (variance(_SMALL, given["pixel kurtosis"]), variance(_SMALL)),
        _M_FEATURES: (mean(features), mean(images)),
        _LEFT: (theory.remaining_weight(_MOMENTUM, _UPDATES), 1 / (_UPDATES + 1)),  # one share of many
        _NOISE: (noise, mean(_SMALL * _UPDATES)),  # all batches alike
    }
    return {name: Prediction(float(value), rival=float(rival)) for name, (value, rival) in predicted.items()}


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Draw many batches: Gaussian, in clusters, of digits; and let torch's own layer average them."""
    generator, draws = torch.Generator().manual_seed(seed), _DRAWS[size]
    pixels, features = _real()
    given = {
        "pixel kurtosis": float(_excess_kurtosis(pixels).mean()),
        "feature correlation": float(_intraclass_correlation(features).mean()),
    }
    batches: dict[tuple[str, float], Callable[[], Tensor]] = {}  # each gives the statistic's relative deviations
    for m in _BATCHES:
        batches["values", m] = lambda m=m: torch.randn(m, draws, generator=generator).var(0) - 1
        batches["pixels", m] = lambda m=m: _of(pixels, m, draws, generator).var(1) / pixels.var(0, unbiased=False) - 1
        batches["features", m] = lambda m=m: _shift(features, m, draws, generator)
    for rho in _CORRELATIONS:
        batches["mean", rho] = lambda rho=rho: _clusters(_CLUSTERS, _POSITIONS, rho, draws, generator).mean(1)
        batches["variance", rho] = lambda rho=rho: _about(
            _clusters(_CLUSTERS, _POSITIONS, rho, draws, generator).var(1)
        )
    batches["shared", _SHARED] = lambda: _about(_clusters(1, _LARGE, _SHARED, draws, generator).var(1))
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
        _V_SMALL: error["values", _SMALL],
        _V_SHARED: error["shared", _SHARED],
        _M_CLUSTERS: error["mean", _CORRELATION],
        _V_CLUSTERS: error["variance", _CORRELATION],
        _V_PIXELS: error["pixels", _SMALL],
        _M_FEATURES: error["features", _SMALL],
        _LEFT: left[_HISTORY.index(_UPDATES)],
        _NOISE: Estimate.jackknife(root_mean, noise),
    }
    shown = {name: dots(_BATCHES, [error[name, m] for m in _BATCHES]) for name in ("values", "pixels", "features")}
    shown |= {name: dots(_CORRELATIONS, [error[name, rho] for rho in _CORRELATIONS]) for name in ("mean", "variance")}
    return Measurement(estimates, given, {**shown, "history": dots(_HISTORY, left)})


def _about(values: Tensor) -> Tensor:
    """Return deviations from the values' own mean, relative to it."""
    return values / values.mean() - 1


def _clusters(clusters: int, size: int, correlation: float, draws: int, generator: torch.Generator) -> Tensor:
    """Draw `(draws, clusters * size)` Gaussian values of variance 1, correlated inside a cluster."""
    common = torch.randn(draws, clusters, 1, generator=generator) * correlation**0.5
    return (common + torch.randn(draws, clusters, size, generator=generator) * (1 - correlation) ** 0.5).flatten(1)


def _real() -> tuple[Tensor, Tensor]:
    """Return digits' pixels that vary `(n, pixels)`, and features of a random convolution `(n, channels, positions)`."""
    images, _ = digits()
    pixels = images.flatten(1)
    weight = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    features = torch.relu(functional.conv2d(images - images.mean(), weight, padding=1))
    return pixels[:, pixels.var(0) > _VARIED], features.flatten(2)


def _of(population: Tensor, m: int, draws: int, generator: torch.Generator) -> Tensor:
    """Draw `(draws, m, ...)` members with replacement."""
    return population[torch.randint(len(population), (draws, m), generator=generator)]


def _shift(features: Tensor, m: int, draws: int, generator: torch.Generator) -> Tensor:
    """Return how far batch means of m images lie from all images' mean, in standard deviations of the values."""
    mean, deviation = features.mean((0, 2)), features.std((0, 2), unbiased=False)
    return (_of(features.mean(2), m, draws, generator).mean(1) - mean) / deviation


def _excess_kurtosis(values: Tensor) -> Tensor:
    deviations = values.double() - values.double().mean(0)
    return deviations.pow(4).mean(0) / deviations.square().mean(0).square() - 3


def _intraclass_correlation(features: Tensor) -> Tensor:
    """Return the mean correlation of two positions of an image, by channel."""
    size, values = features.shape[2], features.double()
    between = values.mean(2).var(0, unbiased=False) / values.var((0, 2), unbiased=False)
    return (size * between - 1) / (size - 1)


def _running(channels: int, generator: torch.Generator) -> tuple[list[float], float]:
    """Update torch's layer; return the share of its initial value left over time, and its mean squared deviation."""
    norm = nn.BatchNorm1d(channels, momentum=_MOMENTUM)
    left, noise = [], 0.0
    for update in range(1, max(_HISTORY) + 1):
        norm(_OFFSET + torch.randn(_SMALL, channels, generator=generator))
        running = norm.get_buffer("running_mean").double() / _OFFSET
        if update in _HISTORY:
            left.append(float(1 - running.mean()))
        if update == _UPDATES:
            noise = float((_OFFSET * (running - running.mean())).square().mean())
    return left, noise


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw errors over batch size and correlation, of Gaussian values and of digits, and the memory of an average."""
    shown, made = result.series, {}
    batches, rho = np.geomspace(2, 64, 60), np.linspace(0, 0.8, 60)
    error, count = "relative standard error", _CLUSTERS * _POSITIONS
    made["variance"], axes = style.figure("The variance of a small batch", "values in the batch", error, log="xy")
    for name, label, kurtosis, color in (
        ("values", "Gaussian", 0.0, style.GREEN),
        ("pixels", "digits'\npixels", result.given["pixel kurtosis"], style.PURPLE),
    ):
        style.curve(axes, batches, theory.relative_error_of_variance(batches, kurtosis), color=color)
        style.points(axes, shown[name], label, color=color)
    made["clusters"], axes = style.figure(
        f"{_CLUSTERS} clusters of {_POSITIONS} values", "correlation inside a cluster", error
    )
    worth = theory.effective_size_of_mean(count, _POSITIONS, rho)
    sized = theory.relative_error_of_variance(worth)
    style.curve(axes, rho, sized, "a variance,\nwere it sized\nas a mean", color=style.SOFT, dashed=True)
    style.curve(axes, rho, theory.relative_error_of_mean(worth), color=style.GREEN)
    clustered = theory.relative_error_of_clustered_variance(_CLUSTERS, _POSITIONS, rho)
    style.curve(axes, rho, clustered, color=style.PURPLE)
    style.points(axes, shown["mean"], "mean", color=style.GREEN)
    style.points(axes, shown["variance"], "variance", color=style.PURPLE)
    made["features"], axes = style.figure("The mean of digits' features", "images in the batch", error, log="xy")
    values = batches * _POSITIONS
    worth = theory.effective_size_of_mean(values, _POSITIONS, result.given["feature correlation"])
    style.curve(
        axes,
        batches,
        theory.relative_error_of_mean(values),
        "were positions\nindependent",
        color=style.SOFT,
        dashed=True,
    )
    style.curve(axes, batches, theory.relative_error_of_mean(worth), "theory")
    style.points(axes, shown["features"], "measured")
    made["history"], axes = style.figure("What a running average remembers", "updates", "share of the initial value")
    updates = np.arange(0, 61)
    style.curve(axes, updates, theory.remaining_weight(_MOMENTUM, updates), "theory")
    style.points(axes, shown["history"], "measured")
    return made


def seen(result: Measurement) -> str:
    """Say what positions of real features are worth."""
    correlation, values = result.given["feature correlation"], _SMALL * _POSITIONS
    worth = float(theory.effective_size_of_mean(values, _POSITIONS, correlation))
    return (
        f"Two positions of an image correlate by {correlation:.4f} in the mean of digits' convolutional features, so that "
        f"{_SMALL} images of {_POSITIONS} positions are worth {worth:.0f} values for a mean, "
        f"{'no fewer' if worth >= values else 'fewer'} than their {values}; that mean was seen to err by "
        f"{told(result.series['features'], _BATCHES.index(_SMALL))} standard deviations."
    )


def sliders(_: Measurement) -> list[Slider]:
    """Return what a running average remembers at any momentum, and errors at any correlation inside images."""
    images = np.arange(2, 65)
    values = images * _POSITIONS

    def memory(momentum: float) -> str:
        worth = 1 / theory.variance_of_running_average(momentum, 1.0)
        gone = next(k for k in range(10_000) if theory.remaining_weight(momentum, k) < 0.05)
        return f"momentum {momentum:g}: under 5% after {gone} updates; as good as {worth:.0f} batches, never better"

    return [
        Slider(
            parameter="momentum",
            positions=[0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9],
            start=5,
            x=np.arange(0, 101),
            curves={"left": lambda x, momentum: theory.remaining_weight(momentum, x)},
            x_label="updates",
            y_label="share of the initial value",
            told=memory,
        ),
        Slider(
            parameter="correlation inside an image",
            positions=[round(0.05 * step, 2) for step in range(20)],
            start=2,
            x=images,
            curves={
                "mean": lambda _, rho: theory.relative_error_of_mean(
                    theory.effective_size_of_mean(values, _POSITIONS, rho)
                ),
                "variance": lambda x, rho: theory.relative_error_of_clustered_variance(x, _POSITIONS, rho),
            },
            colors={"mean": "green", "variance": "purple"},
            x_label=f"images of {_POSITIONS} positions",
            y_label="relative standard error",
            told=lambda rho: (
                f"correlation {rho:g}: 32 images are worth "
                f"{theory.effective_size_of_mean(32 * _POSITIONS, _POSITIONS, rho):.0f} values for a mean, "
                f"{theory.effective_size_of_variance(32 * _POSITIONS, _POSITIONS, rho):.0f} for a variance"
            ),
        ),
    ]


STUDY = Study(
    name="small-batch",
    heading=Heading.TRANSFER,
    title="How noisy the statistics of small batches are",
    claim=(
        "“If a pre-trained model is fine-tuned on a small target dataset, updating the BN layers with small "
        "mini-batches yields noisy and unreliable statistics, which can destabilize training.”"
    ),
    theory=(
        "A mean of m independent values errs by 1/√m standard deviations, a variance by √(2/(m - 1) + kappa/m) of itself, "
        "kappa the excess kurtosis. Of n values in clusters of L, correlated by rho inside, a mean is worth n/(1 + (L - 1) rho) "
        "values and a variance about n/(1 + (L - 1) rho²): positions of an image say much more about the variance than about "
        "the mean. A correlation that the whole batch shares does not make the variance noisier at all. A running "
        "average of momentum a still holds (1 - a)^k of its initial value after k updates, and is never better than "
        "(2 - a)/a batches."
    ),
    outcome="To be said.",
    advice=(
        "Count independent values, which are images where an image's positions resemble each other and positions "
        "where they do not, as in the features here; with fewer than 16, whose mean errs by more than a quarter "
        "of a standard deviation and from which rule NW203 warns, consider freezing the statistics or "
        "recalibrating them exactly after training, and do not read a running average before 30 updates at "
        "momentum 0.1."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
