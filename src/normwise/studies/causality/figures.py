"""How far inputs reach, what that is worth, both norms over batch sizes; and in words what no closed form predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.causality.influence import COUNTS, SEQUENCES, STEPS
from normwise.studies.causality.measure import LEAKED, NORMS
from normwise.studies.causality.predict import derivatives, gaussian
from normwise.studies.causality.training import CONTEXT, IMAGES, RATE, TEXTS
from normwise.studies.estimate import told
from normwise.studies.study import Measurement
from normwise.theory import causality as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw how far inputs reach, what that is worth, and both norms over batch sizes."""
    shown = result.series
    return {
        "distance": _distance(shown),
        "values": _values(result),
        "tokens": _tokens(shown),
        "tosses": _tosses(shown),
        "shift": _shift(shown),
        "text": _modes(
            shown,
            "text",
            f"Text: norms after {shown['sequences']} sequences each",
            f"sequences of {CONTEXT} characters in a batch, data equal",
            "loss on held-back text, nats a character",
        ),
        "next": _next(shown),
        "digits": _modes(
            shown,
            "digits",
            f"Vision: norms after {shown['images']} digits each",
            "images in a batch, data equal",
            "accuracy of a small vision transformer on held-back digits",
        ),
    }


def _distance(shown: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        "Under pooled statistics the future reaches back",
        "steps from output to input; above 0 it comes later",
        "influence of one input on an output, in standard deviations",
    )
    lags, pooled = np.array([1 - STEPS, STEPS - 1]), float(gaussian(SEQUENCES * STEPS))
    style.curve(axes, lags, np.full(2, pooled))
    style.curve(axes, lags, np.zeros(2), color=style.GREEN)
    style.points(axes, shown["lag, pooled"], "pooled\nbatch norm")
    style.points(axes, shown["lag, layer norm"], "layer norm,\ntime-wise\nbatch norm", color=style.GREEN)
    style.points(axes, shown["lag, time-wise"], color=style.GREEN)
    axes.set_ylim(-0.15 * pooled, 1.15 * pooled)
    return made


def _values(result: Measurement) -> Figure:
    made, axes = style.figure(
        "What a later input does depends on both values",
        "a later input of the same sequence, standard Gaussian",
        "derivative by it of a first output, pooled batch norm",
    )
    every = derivatives(result.given)
    x = np.asarray(result.given["x"])
    for which, color in (("low", style.PURPLE), ("middle", style.INK), ("high", style.ORANGE)):
        dots = result.series[f"later inputs, {which}"]
        i = dots["sequence"]
        order = np.argsort(x[i, 1:])
        ends = order[[0, -1]] + 1
        label = f"an output\nwhose input\nis {x[i, 0]:.1f}"
        style.curve(axes, x[i, ends], every[i, 0, i, ends], label, color=color)
        style.points(axes, dots, color=color)
    return made


def _tokens(shown: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        "A future input does less among more tokens",
        f"tokens that share statistics: sequences x {STEPS} steps",
        "influence of one future input, in standard deviations",
        log="xy",
    )
    counts = np.array([COUNTS[0], COUNTS[-1]]) * STEPS
    style.curve(axes, counts, gaussian(counts), "theory,\nabout √2/nT")
    style.points(axes, shown["growth"], "pooled\nbatch norm")
    return made


def _tosses(shown: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        "Pooled statistics let a model foretell a fair coin",
        "tokens that share statistics",
        "nats gained on log 2 by a toss",
        log="x",
    )
    tokens = np.unique(np.geomspace(LEAKED["full"][0], LEAKED["full"][-1], 30).astype(int))
    style.curve(axes, tokens, [theory.composition_leak(int(count)) for count in tokens])
    style.curve(axes, tokens, -theory.price_of_belief(theory.believed_repetition(tokens)), color=style.PURPLE)
    style.points(axes, shown["gain, pooled"], "batch norm,\nits batch's\nstatistics")
    style.points(axes, shown["gain, layer norm"], "layer norm", color=style.GREEN, aside=4.0)
    style.points(axes, shown["gain, in evaluation"], "batch norm,\nevaluation", color=style.PURPLE, aside=-4.0)
    return made


def _shift(shown: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        "How far a batch moves its tokens, by norm",
        f"tokens in the batch: sequences x {STEPS} steps",
        "change of an output from its batch to evaluation alone",
        log="x",
    )
    counts = np.geomspace(COUNTS[0], COUNTS[-1], 40) * STEPS
    style.curve(axes, counts, theory.rms_shift(counts))
    style.curve(axes, counts[[0, -1]], np.zeros(2), color=style.GREEN)
    style.points(axes, shown["shift, pooled"], "pooled\nbatch norm")
    style.points(axes, shown["shift, layer norm"], "layer norm", color=style.GREEN)
    return made


def _modes(shown: Mapping[str, Any], what: str, title: str, x: str, y: str) -> Figure:
    made, axes = style.figure(title, x, y, log="x")
    style.points(
        axes, shown[f"{what}, batch norm, its batch"], "batch norm,\nits batch's\nstatistics", color=style.PURPLE,
        hollow=True, aside=-5.0,
    )  # fmt: skip
    style.points(axes, shown[f"{what}, batch norm, in evaluation"], "batch norm,\nevaluation", color=style.PURPLE)
    style.points(
        axes, shown[f"{what}, layer norm, in evaluation"], "layer norm,\nboth modes", color=style.GREEN, aside=5.0
    )
    return made


def _next(shown: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        "Text: what statistics tell of the next character",
        f"sequences of {CONTEXT} characters in a batch, data equal",
        "rise of the loss if the next one is another, nats a character",
        log="x",
    )
    dots = shown["text, told by the next symbol"]
    style.curve(axes, dots["x"], np.zeros(len(dots["x"])), "layer norm,\nexactly 0", color=style.GREEN)
    style.points(axes, dots, "batch norm,\nits batch's\nstatistics")
    return made


def seen(result: Measurement) -> str:
    """Say how batch norm did beside layer norm after equal data, and beside itself, by batch size; and what it was told."""
    shown = result.series
    rate = f"at a rate of {RATE:g} in batches of {TEXTS[1]} sequences or {IMAGES[1]} digits and as the root of the size in others"
    best = [told(shown[f"text, {of}, in evaluation"]) for of in NORMS]
    given_away = shown["text, told by the next symbol"]
    sizes = [
        f"{size:g}"
        for size, y, half in zip(*(given_away[of] for of in ("x", "y", "interval")), strict=True)
        if y > half
    ]
    leak = f"measurably above 0 in batches of {' and '.join(sizes)}" if sizes else "nowhere measurably above 0"
    return (
        f"Every model read {shown['sequences']} sequences of the language reference of Python {result.given['python']} or saw "
        f"{shown['images']} digits, whatever its batches, {rate}. On held-back text the loss in evaluation was {best[0]} nats "
        f"with batch norm and {best[1]} with layer norm in batches of {TEXTS[-1]}. Batch norm's was higher than layer norm's "
        f"by {_listed(shown['text, beyond layer norm'])} sequences a batch. The gap between training and evaluation, batch "
        f"norm's loss in evaluation above that under its batches' statistics, was {_listed(shown['text, beyond its batch'])}: "
        f"it has both what statistics tell and how noisy they are. What they tell was measured alone: with the next character "
        f"swapped in its batch for one that the model draws from the past, batch norm's loss under its batches' statistics "
        f"rose by {_listed(given_away)}, {leak}. In the vision transformer batch norm's accuracy in evaluation was higher "
        f"than layer norm's by {_listed(shown['digits, beyond layer norm'])} digits a batch, and higher than its own under "
        f"its batches' statistics by {_listed(shown['digits, beyond its batch'])}."
    )


def _listed(differences: Mapping[str, Any]) -> str:
    """Say a difference at every batch size."""
    said = [f"{told(differences, place)} at {size:g}" for place, size in enumerate(differences["x"])]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def sliders(_: Measurement) -> list[Slider]:
    """Return the influence of one input on others' outputs, by the length of sequences and their number."""
    return [
        Slider(
            parameter="sequences",
            positions=[4, 8, 16, 32, 64, 128],
            start=1,
            x=np.arange(2, 65),
            curves={
                "the future": lambda steps, count: gaussian(count * steps),
                "same step": lambda steps, count: gaussian(count + 0 * steps),
            },
            colors={"same step": "orange"},
            log=True,
            x_label="steps",
            y_label="influence, in standard deviations",
            told=lambda count: (
                f"{count:g} sequences of {STEPS} steps: pooled statistics are worth "
                f"{theory.composition_leak(int(count) * STEPS):.5f} nats a token; time-wise ones nothing of the future, "
                f"but another sequence reaches {gaussian(count) / gaussian(count * STEPS):.0f} times as far"
            ),
        )
    ]
