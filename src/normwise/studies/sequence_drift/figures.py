"""The bias along made sequences and in an LSTM, the price of removing it, and who recognises speakers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import overlapping, told
from normwise.studies.sequence_drift.predict import alive, line, padded, spoken_bias, spoken_error
from normwise.studies.study import Measurement
from normwise.theory import sequence as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw what was measured: speech and the recognisers only where there was speech."""
    made = {"bias": _bias(result), "noise": _noise(result)}
    if "speech" in result.given:
        made |= {"speech": _speech(result), "speech-noise": _speech_noise(result), "accuracy": _accuracy(result)}
    return made


def _bias(result: Measurement) -> Figure:
    shown, given = result.series, result.given
    step = np.arange(1, given["steps"] + 1)
    made, axes = style.figure(
        "Statistics pooled over steps leave a drift,\nmore of it where sequences end early",
        f"step; the mean rises by {given['drift']:g} standard deviations a step",
        "output mean, in standard deviations; lines are theory, dots measured",
    )
    equal = theory.linear_drift_bias(step - 1, given["steps"], given["drift"])
    style.curve(axes, step, equal, color=style.CLAIM, dashed=True)
    style.curve(axes, step, theory.drawn_output(line(given), alive(given)).mean)
    style.curve(axes, step, padded(given).mean, color=style.PURPLE)
    style.curve(axes, step, np.zeros(len(step)), color=style.GREEN)
    style.points(axes, shown["even"], "pooled, 20\nsteps each", color=style.CLAIM, hollow=True)
    style.points(axes, shown["masked"], "pooled,\n5 to 20 steps", color=style.THEORY)
    style.points(axes, shown["padded"], "pooled,\npadding counted", color=style.PURPLE)
    style.points(axes, shown["time-wise"], "time-wise", color=style.GREEN)
    _count_steps(axes, len(step))
    return made


def _noise(result: Measurement) -> Figure:
    counts, lengths = alive(result.given), result.given["lengths"]
    return _noisy(
        "A time step's own mean is noisy\nwhere few sequences are alive",
        f"step of {len(lengths)} made sequences, {min(lengths)} to {len(counts)} steps long",
        result.series["noise"],
        theory.timewise_error(counts),
        len(lengths),
    )


def _noisy(title: str, x: str, measured: Mapping[str, Any], error: np.ndarray, sequences: int) -> Figure:
    """Draw the error of each step's own mean, and what it were if all the sequences had all the steps."""
    step = np.array(measured["x"])
    made, axes = style.figure(title, x, "error of the step's mean, in standard deviations")
    style.curve(axes, step, error[: len(step)], "theory,\n1/√alive")
    everyone = np.full(len(step), theory.timewise_error(sequences))
    style.curve(axes, step, everyone, f"theory, if all\nhad {len(step)} steps", color=style.SOFT, dashed=True)
    style.points(axes, measured, "measured")
    axes.set_ylim(bottom=0)
    _count_steps(axes, len(step))
    return made


def _speech(result: Measurement) -> Figure:
    speech, shown = result.given["speech"], result.series
    step = np.array(shown["spoken"]["x"])
    made, axes = style.figure(
        "An LSTM's unit drifts while it hears speech,\nand pooled statistics leave it the drift",
        f"step of an utterance, shown where {speech['voices']} or more of {speech['utterances']} last",
        "output mean of the unit, in standard deviations",
    )
    straight = theory.linear_drift_bias(step - 1, len(speech["step means"]), speech["slope"], speech["spread"])
    style.curve(axes, step, straight, "claim: a line,\nequal lengths", color=style.CLAIM, dashed=True)
    style.curve(axes, step, spoken_bias(speech)[: len(step)], "theory, pooled")
    style.curve(axes, step, np.zeros(len(step)), color=style.GREEN)
    style.points(axes, shown["spoken"], "measured,\npooled")
    style.points(axes, shown["spoken, time-wise"], "measured,\ntime-wise", color=style.GREEN)
    _count_steps(axes, len(step))
    return made


def _speech_noise(result: Measurement) -> Figure:
    speech = result.given["speech"]
    return _noisy(
        "Few utterances last: late steps' own means\nare noisy in an LSTM that hears speech",
        f"step of {speech['batch']} utterances, {len(speech['step means'])} steps at most",
        result.series["spoken noise"],
        spoken_error(speech),
        speech["batch"],
    )


def _accuracy(result: Measurement) -> Figure:
    shown = result.series["accuracy"]
    made, axes = style.figure(
        "Nine speakers told apart: an LSTM's accuracy\nby the norm between its two layers",
        "norm",
        "share of held-back utterances named rightly",
    )
    style.points(axes, shown)
    style.categories(axes, shown["names"])
    return made


def _count_steps(axes: Any, steps: int) -> None:
    axes.set_xticks([1, *range(5, steps + 1, 5)])


def seen(result: Measurement) -> str:
    """Say who recognises speakers."""
    if "accuracy" not in result.series:
        return ""
    accuracy = result.series["accuracy"]
    names = [name.replace("-\n", "-").replace("\n", " ") for name in accuracy["names"]]
    each = "; ".join(f"{name} {told(accuracy, place)}" for place, name in enumerate(names))
    return (
        f"The share of held-back utterances whose speaker is recognised, by the norm between two LSTM layers: {each}. "
        f"The intervals of the five norms {'overlap' if overlapping(accuracy, *range(1, len(names))) else 'do not all overlap'}."
    )


def sliders(result: Measurement) -> list[Slider]:
    """Return the bias at each step under any drift."""
    given = result.given
    counts, steps = alive(given), given["steps"]

    def uneven(drift: float) -> np.ndarray:
        return np.asarray(theory.drawn_output(line(given, drift), counts).mean)

    return [
        Slider(
            parameter="drift a step, in standard deviations",
            positions=[0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0],
            start=6,
            x=np.arange(1, steps + 1),
            curves={
                "5-20 steps": lambda _, drift: uneven(drift),
                "padded": lambda _, drift: padded(given, drift).mean,
                "equal length": lambda x, drift: theory.linear_drift_bias(x - 1, steps, drift),
                "time-wise": lambda x, _: np.zeros_like(x, dtype=float),
            },
            colors={"padded": "purple", "equal length": "vermillion", "time-wise": "green"},
            dashed=("equal length",),
            x_label="step",
            y_label="output mean, in standard deviations",
            told=lambda drift: (
                f"drift {drift:g}: the last step is off by {uneven(drift)[-1]:.2f}; "
                f"its own mean, of {counts[-1]} sequences, errs by {theory.timewise_error(counts[-1]):.2f}"
            ),
        )
    ]
