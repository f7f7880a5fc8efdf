"""Pictures of errors over batch size and correlation, and of an average's memory; the sliders; what is seen besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import told
from normwise.studies.small_batch.measure import BATCHES
from normwise.studies.small_batch.predict import (
    CLUSTERS,
    FEATURES,
    MEAN_WITHIN,
    MOMENTUM,
    PATCHES,
    POSITIONS,
    SMALL,
    VARIANCE_WITHIN,
    mean_error,
    variance_error,
)
from normwise.studies.study import Measurement
from normwise.theory import small_batch as theory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZES = np.geomspace(BATCHES[0], BATCHES[-1], 60)
_OF_MEAN, _OF_VARIANCE = "standard error, in standard deviations", "standard error, over the variance"
_COLORS = {FEATURES: style.SKY, PATCHES: style.ORANGE}
_NAMES = {FEATURES: "digits'\nfeatures", PATCHES: "photographs'\npatches"}


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw errors of Gaussian values, of digits and of photographs, and the memory of an average."""
    shown, made = result.series, {}
    made["variance"], axes = style.figure(
        "The variance of a small batch is noisy", "values in the batch", _OF_VARIANCE, log="xy"
    )
    for name, label, kurtosis, color in (
        ("values", "Gaussian\nvalues", 0.0, style.GREEN),
        ("pixels", "digits'\npixels", result.given["pixel kurtosis"], style.PURPLE),
    ):
        style.curve(axes, _SIZES, theory.relative_error_of_variance(_SIZES, kurtosis), color=color)
        style.points(axes, shown[name], label, color=color)
    _limit(axes, VARIANCE_WITHIN)
    made["clusters"] = _of_clusters(result)
    for of, title, unit, within, theirs, independent in (
        (
            "mean",
            "How far the mean of a few images is off",
            _OF_MEAN,
            MEAN_WITHIN,
            mean_error,
            theory.relative_error_of_mean,
        ),
        (
            "variance",
            "How far the variance of a few images is off",
            _OF_VARIANCE,
            VARIANCE_WITHIN,
            variance_error,
            theory.relative_error_of_variance,
        ),
    ):
        made[f"{of}-of-images"], axes = style.figure(
            title, f"images of {POSITIONS} positions in the batch", unit, log="xy"
        )
        _limit(axes, within)
        values = independent(_SIZES * POSITIONS)
        style.curve(axes, _SIZES, values, f"{POSITIONS} independent\nvalues an image", color=style.SOFT, dashed=True)
        for name in (FEATURES, PATCHES):
            style.curve(axes, _SIZES, theirs(_SIZES, result.given["moments"][name]), color=_COLORS[name])
            style.points(axes, shown[f"{of} of {name}"], _NAMES[name], color=_COLORS[name])
    made["history"], axes = style.figure(
        "A running average forgets its initial value slowly",
        f"updates, of momentum {MOMENTUM:g}",
        "share of the initial value that is left",
    )
    updates = np.arange(0, 61)
    style.curve(axes, updates, theory.remaining_weight(MOMENTUM, updates), "theory")
    style.points(axes, shown["history"], "running_mean")
    return made


def _of_clusters(result: Measurement) -> Figure:
    rho, count = np.linspace(0, 0.8, 60), CLUSTERS * POSITIONS
    made, axes = style.figure(
        "Weak correlation costs a mean\nmore than a variance",
        f"correlation inside each of {CLUSTERS} clusters of {POSITIONS} values",
        "standard error, in standard deviations or over the variance",
    )
    worth = theory.effective_size_of_mean(count, POSITIONS, rho)
    sized = theory.relative_error_of_variance(worth)
    style.curve(axes, rho, sized, "a variance,\nwere it sized\nas a mean", color=style.SOFT, dashed=True)
    style.curve(axes, rho, theory.relative_error_of_mean(worth), color=style.GREEN)
    clustered = theory.relative_error_of_variance_of_gaussian_clusters(CLUSTERS, POSITIONS, rho)
    style.curve(axes, rho, clustered, color=style.PURPLE)
    style.points(axes, result.series["mean"], "mean", color=style.GREEN)
    style.points(axes, result.series["variance"], "variance", color=style.PURPLE)
    return made


def _limit(axes: Axes, within: float) -> None:
    """Draw the error above which rule NW203 warns."""
    style.curve(axes, _SIZES, np.full(len(_SIZES), within), "rule NW203\nwarns above", color=style.INK, dashed=True)


def seen(result: Measurement) -> str:
    """Say what images are worth."""
    parts = []
    for name in (FEATURES, PATCHES):
        moments = result.given["moments"][name]
        worth = 1 / mean_error(1, moments) ** 2
        needed = [_needed(error, moments, within) for error, within in _LIMITS]
        parts.append(
            f"{name}, whose positions correlate by {result.given['correlation'][name]:.3f}, are worth {worth:.3g} values an "
            f"image for a mean, and by theory {needed[0]} of them keep the error of the mean "
            f"within the threshold of rule NW203 and {needed[1]} that of the variance; {SMALL} of them were seen to err by "
            f"{_told(result, 'mean', name)} standard deviations in the mean and by {_told(result, 'variance', name)} of the "
            "variance"
        )
    return f"Images of {POSITIONS} positions: {'; '.join(parts)}."


_LIMITS = ((mean_error, MEAN_WITHIN), (variance_error, VARIANCE_WITHIN))


def _needed(error: Any, moments: Any, within: float) -> int:
    """Return the fewest images whose statistic errs by no more."""
    return next(images for images in range(1, 10_000) if error(images, moments) <= within)


def _told(result: Measurement, of: str, name: str) -> str:
    return told(result.series[f"{of} of {name}"], BATCHES.index(SMALL))


def sliders(_: Measurement) -> list[Slider]:
    """Return what a running average remembers at any momentum, and errors at any correlation inside images."""
    images = np.arange(2, 65)
    values = images * POSITIONS

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
                    theory.effective_size_of_mean(values, POSITIONS, rho)
                ),
                "variance": lambda x, rho: theory.relative_error_of_variance_of_gaussian_clusters(x, POSITIONS, rho),
            },
            colors={"mean": "green", "variance": "purple"},
            x_label=f"images of {POSITIONS} positions",
            y_label="relative standard error",
            told=lambda rho: (
                f"correlation {rho:g}: 32 images are worth "
                f"{theory.effective_size_of_mean(32 * POSITIONS, POSITIONS, rho):.0f} values for a mean, "
                f"{theory.effective_size_of_variance(32 * POSITIONS, POSITIONS, rho):.0f} for a variance"
            ),
        ),
    ]
