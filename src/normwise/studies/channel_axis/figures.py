"""What correlation, one loud channel, and both do to either axis; and what small networks learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.channel_axis.measure import NOISE
from normwise.studies.channel_axis.predict import CHANNELS, EPS, LOUDEST, scales
from normwise.studies.estimate import overlapping, told
from normwise.studies.study import Measurement
from normwise.theory import channels as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES = {"by": ("per channel", style.GREEN, -2), "across": ("across\nchannels", style.PURPLE, 2)}


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the made maps, then the networks."""
    return {
        "loud": _loud(result),
        "both": _both(result),
        "correlation": _correlation(result),
        "shared": _shared(result),
        "accuracy": _accuracy(result),
        "noise": _noise(result),
    }


def _outputs(loudness: float, correlation: float, count: int = CHANNELS) -> np.ndarray:
    """Return the output variance of every channel across channels."""
    covariance = theory.uniform_covariance(scales(loudness, count), correlation)
    return np.asarray(theory.across_channel_output(covariance, eps=EPS).variance)


def _loud(result: Measurement) -> Figure:
    made, axes = style.figure(
        "A loud channel drowns its neighbours",
        f"scale of one channel, of the {CHANNELS - 1} others 1",
        "variance of the output",
        log="y",
    )
    loudness = np.linspace(1, LOUDEST, 40)
    _drawn(made, result, "alone", loudness, np.array([_outputs(k, 0.0) for k in loudness]))
    axes.set_xticks(result.series["across, loud alone"]["x"])
    return made


def _both(result: Measurement) -> Figure:
    made, _ = style.figure(
        "Correlated neighbours drown deeper",
        f"correlation between {CHANNELS} channels, one of scale {LOUDEST:g}, the others 1",
        "variance of the output",
        log="y",
    )
    rho = np.linspace(0, 0.95, 40)
    _drawn(made, result, "both", rho, np.array([_outputs(LOUDEST, one) for one in rho]))
    return made


def _drawn(made: Figure, result: Measurement, which: str, x: np.ndarray, outputs: np.ndarray) -> None:
    """Draw the loud channel and its neighbours across channels, and the neighbours per channel."""
    axes = made.axes[0]
    style.curve(axes, x, outputs[:, 0], color=style.ORANGE)
    style.curve(axes, x, np.full_like(x, theory.per_channel_output(1.0, EPS).variance), color=style.GREEN)
    style.curve(axes, x, outputs[:, 1], color=style.PURPLE)
    style.points(axes, result.series[f"across, loud {which}"], "loud one,\nacross\nchannels", color=style.ORANGE)
    style.points(axes, result.series[f"by, texture {which}"], "any one,\nper channel", color=style.GREEN)
    style.points(axes, result.series[f"across, texture {which}"], "neighbour,\nacross\nchannels", color=style.PURPLE)


def _correlation(result: Measurement) -> Figure:
    made, axes = style.figure(
        "Correlation eats the variance across channels",
        "correlation between channels",
        "variance of the input at one position",
    )
    rho = np.linspace(0, 0.95, 40)
    spread = [theory.across_channel_variance(theory.uniform_covariance(scales(1.0), r)) for r in rho]
    style.curve(axes, rho, spread, "theory,\n1 - rho")
    style.points(axes, result.series["spread"], "measured", color=style.PURPLE)
    return made


def _shared(result: Measurement) -> Figure:
    made, axes = style.figure(
        "Across channels what they share is removed", "correlation between channels", "correlation after normalization"
    )
    rho = np.linspace(0, 0.95, 40)
    style.curve(axes, rho, np.full_like(rho, theory.correlation_across_channels(CHANNELS)), color=style.PURPLE)
    style.curve(axes, rho, rho, color=style.GREEN)
    for axis, (label, color, _) in _AXES.items():
        style.points(axes, result.series[f"{axis}, shared"], label, color=color)
    return made


def _accuracy(result: Measurement) -> Figure:
    made, axes = style.figure(
        "A small network learns digits with either axis",
        "axis that shares a statistic",
        f"accuracy on held-back digits after {result.series['epochs']} epochs",
    )
    for place, (axis, (_, color, _)) in enumerate(_AXES.items()):
        style.points(axes, {**result.series["accuracy"][axis], "x": [place]}, color=color)
    style.categories(axes, [label.replace("\n", " ") for label, _, _ in _AXES.values()])
    return made


def _noise(result: Measurement) -> Figure:
    made, axes = style.figure(
        "Loud noise harms statistics across channels",
        "scale of one channel of noise, of seven filtered digits 1",
        f"accuracy on held-back digits after {result.series['epochs']} epochs",
    )
    for axis, (label, color, aside) in _AXES.items():
        style.points(axes, result.series["noise"][axis], label, color=color, aside=aside)
    style.categories(axes, [f"{loudness:g}" for loudness in NOISE])
    return made


def seen(result: Measurement) -> str:
    """Say how either axis learns, of channels that are alike and beside noise."""
    alike, noise, epochs = (result.series[name] for name in ("accuracy", "noise", "epochs"))
    far = "whose 95% intervals overlap" if _overlap(alike["by"], alike["across"]) else "whose 95% intervals are apart"
    return (
        f"A small convolutional network was right on {told(alike['by'])} of held-back digits with statistics per channel, on "
        f"{told(alike['across'])} with statistics across channels, after {epochs} epochs, {far}. Where a channel of noise "
        f"stands beside seven filtered digits as loud, {told(noise['by'], 0)} and {told(noise['across'], 0)}; where it is "
        f"{NOISE[-1]:g} times as loud, {told(noise['by'])} and {told(noise['across'])}."
    )


def _overlap(one: dict[str, list[float]], other: dict[str, list[float]]) -> bool:
    return overlapping({name: one[name] + other[name] for name in ("y", "interval")})


def sliders(_: Measurement) -> list[Slider]:
    """Return the outputs of a loud channel and of its neighbours, by the number of channels and by their correlation."""

    def outputs(x: np.ndarray, count: float = CHANNELS, correlation: float = 0.0) -> np.ndarray:
        return np.array([_outputs(k, correlation, int(count)) for k in x])

    x = np.linspace(1, LOUDEST, 19)
    colors, words = {"loud one": "orange", "neighbour": "purple", "per channel": "green"}, "variance of the output"
    return [
        Slider(
            parameter="channels",
            positions=[3, 4, 6, 8, 12, 16, 32],
            start=3,
            x=x,
            curves={
                "loud one": lambda x, count: outputs(x, count)[:, 0],
                "neighbour": lambda x, count: outputs(x, count)[:, 1],
                "per channel": lambda x, count: np.ones_like(x),
            },
            colors=colors,
            x_label="scale of one channel, the others 1",
            y_label=words,
            told=lambda count: (
                f"{count:g} channels: at scale {LOUDEST:g} a neighbour keeps "
                f"{outputs(np.array([LOUDEST]), count)[0, 1]:.2f} of its variance"
            ),
        ),
        Slider(
            parameter="correlation between channels",
            positions=[0.0, 0.2, 0.4, 0.6, 0.8, 0.95],
            x=x,
            curves={
                "loud one": lambda x, rho: outputs(x, correlation=rho)[:, 0],
                "neighbour": lambda x, rho: outputs(x, correlation=rho)[:, 1],
                "per channel": lambda x, rho: np.ones_like(x),
            },
            colors=colors,
            x_label="scale of one channel, the others 1",
            y_label=words,
            told=lambda rho: (
                f"correlation {rho:g}: at scale {LOUDEST:g} a neighbour keeps "
                f"{outputs(np.array([LOUDEST]), correlation=rho)[0, 1]:.2f} of its variance"
            ),
        ),
    ]
