"""The future in pooled statistics: how far one input reaches back, what a model learns from it, and norms by batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.attention import CONTEXT, Norm, read, saw, text
from normwise.studies.coin_tosses import TOSSES, tossed
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, root_mean, series, told
from normwise.studies.influence import GROUPS, SEQUENCES, STEPS, norm_of, roots, squared_influence
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import sequence as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNTS = (1, 4, 16, 64)  # sequences
_REPLICATES = {"tiny": 12, "quick": 40, "full": 200}
_LEAKED = {"tiny": (8,), "quick": (8, 32), "full": (8, 16, 32, 64)}  # tokens that share statistics
_TOSS_STEPS = {"tiny": 250, "quick": 250, "full": 1000}
_TOSSED = {"tiny": 5, "quick": 6, "full": 8}  # models
_TRAINED = {"tiny": 3, "quick": 3, "full": 5}
_NORMS: dict[str, Norm] = {"batch norm": BatchNorm, "layer norm": AcrossChannelNorm}
_TEXTS, _IMAGES = (1, 4, 16), (4, 16, 128)  # batch sizes
_STEPS_TRAINED = {"tiny": 2, "quick": 60, "full": 400}
_FUTURE = f"influence of a future input, {SEQUENCES} sequences of {STEPS} steps: pooled"
_FUTURE_LATER = "the same, pooled, in evaluation"
_FUTURE_TIMEWISE = "the same, time-wise"
_FUTURE_LAYER = "the same, layer norm"
_OTHERS = f"influence of another of {SEQUENCES} sequences at the same step: time-wise"
_GAIN = f"nats gained on tosses of a coin from {TOSSES} tokens' statistics: pooled"
_GAIN_LAYER = f"nats gained on tosses of a coin from {TOSSES} tokens' statistics: layer norm"
_REPETITION = "probability of a repetition, to the pooled model in evaluation"


def _gaussian(count: Any) -> Any:
    """Return the influence among so many Gaussian values, whose mean fourth moment is known for every number."""
    return theory.rms_influence(count, 3 * (count - 1) / (count + 1))


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return influences in standard deviations, and what they are worth to a model of coin tosses."""
    values = SEQUENCES * STEPS
    pooled, leak = float(_gaussian(values)), theory.composition_leak(TOSSES)
    short = "gradient descent stops short, by the order of one over its steps: half of it, a twentieth where nothing can be learnt"
    left = 1 / given["steps"]
    return {
        _FUTURE: Prediction(pooled, rival=1 / values),
        _FUTURE_LATER: Prediction(0.0, rival=pooled),
        _FUTURE_TIMEWISE: Prediction(0.0, rival=pooled),
        _FUTURE_LAYER: Prediction(0.0, claim=0.0, rival=pooled, identity=True),
        _OTHERS: Prediction(float(_gaussian(SEQUENCES)), rival=pooled),
        _GAIN: Prediction(leak, rival=0.0, finite_size=left / 2, reason=short),
        _GAIN_LAYER: Prediction(0.0, claim=0.0, rival=leak, finite_size=left / 20, reason=short),
        _REPETITION: Prediction(float(theory.believed_repetition(TOSSES)), rival=0.5),
    }  # fmt: skip


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Differentiate outputs by future inputs; train on tosses, where there is nothing to learn, on text and on digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimates, shown = _influences(_REPLICATES[size])
        work = [
            (kind, count) for _ in range(_TOSSED[size]) for kind in ("pooled", "layer norm") for count in _LEAKED[size]
        ]
        outcomes = [
            tossed(kind, count, _TOSS_STEPS[size])
            for kind, count in tracked(work, lambda share: progress(0.1 + 0.4 * share))
        ]
        pooled, single = np.array(outcomes).reshape(_TOSSED[size], 2, len(_LEAKED[size]), 3).swapaxes(0, 1)
        shown |= _by_batch_size(size, lambda share: progress(0.5 + 0.5 * share))
    shown["steps"] = _STEPS_TRAINED[size]
    for name, gains in (("pooled", pooled[..., 0]), ("in evaluation", pooled[..., 1]), ("layer norm", single[..., 0])):
        shown[f"gain, {name}"] = series(_LEAKED[size], gains)
    for name, values in ((_GAIN, pooled[..., 0]), (_GAIN_LAYER, single[..., 0]), (_REPETITION, pooled[..., 2])):
        estimates[name] = Estimate.of(values[:, 0])
    return Measurement(estimates, {"steps": _TOSS_STEPS[size]}, shown)


def _influences(replicates: int) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """Return what future inputs do under each norm, by their distance and by the number of tokens."""
    future = torch.ones(STEPS, STEPS).triu(1).bool()
    found: dict[Any, list[Any]] = {}
    for _ in range(replicates):
        for name in GROUPS:
            norm = norm_of(name)
            squares = squared_influence(name, norm, SEQUENCES)
            found.setdefault(name, []).append(float(squares.mean(1)[future].mean()))
            by_lag = [float(squares.mean(1).diagonal(lag).mean()) for lag in range(1 - STEPS, STEPS) if lag]
            found.setdefault((name, "lag"), []).append(by_lag)
            if name == "time-wise":
                found.setdefault("others", []).append(float(squares[:, 1:].diagonal(dim1=0, dim2=2).mean()))
            if name == "pooled":
                later = squared_influence(name, norm.eval(), SEQUENCES)
                found.setdefault("later", []).append(float(later.mean(1)[future].mean()))
        for count in _COUNTS:
            squares = squared_influence("pooled", norm_of("pooled"), count)
            found.setdefault("growth", []).append(float(squares.mean(1)[future].mean()))
    quantities = {
        _FUTURE: "pooled", _FUTURE_LATER: "later", _FUTURE_TIMEWISE: "time-wise", _FUTURE_LAYER: "layer norm",
        _OTHERS: "others",
    }  # fmt: skip
    estimates = {quantity: Estimate.jackknife(root_mean, found[name]) for quantity, name in quantities.items()}
    lags = [lag for lag in range(1 - STEPS, STEPS) if lag]
    shown = {f"lag, {name}": roots(lags, found[name, "lag"]) for name in GROUPS}
    counts = [count * STEPS for count in _COUNTS]
    return estimates, {**shown, "growth": roots(counts, np.reshape(found["growth"], (replicates, -1)))}


def _by_batch_size(size: str, progress: Progress) -> dict[str, Any]:
    """Return losses on held-back text and accuracies on held-back digits, by the batch size of training."""
    written, (images, labels) = text(), digits()
    found: dict[str, list[list[float]]] = {}
    for _ in tracked(range(_TRAINED[size]), progress):
        for name, norm in _NORMS.items():
            losses = [read(norm, written, batch, _STEPS_TRAINED[size]) for batch in _TEXTS]
            for mode, values in zip(("its batch", "in evaluation"), zip(*losses, strict=True), strict=True):
                found.setdefault(f"text, {name}, {mode}", []).append(list(values))
            found.setdefault(f"digits, {name}", []).append(
                [saw(norm, images, labels, batch, _STEPS_TRAINED[size]) for batch in _IMAGES]
            )
    return {name: series(_TEXTS if "text" in name else _IMAGES, values) for name, values in found.items()}


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw how far inputs reach, what that is worth, and both norms over batch sizes."""
    shown, made = result.series, {}
    made["distance"], axes = style.figure(
        "The future reaches back at any distance", "steps from output to input", "influence, in standard deviations"
    )
    lags, values = np.array([1 - STEPS, STEPS - 1]), SEQUENCES * STEPS
    style.curve(axes, lags, np.full(2, _gaussian(values)))
    style.curve(axes, lags, np.zeros(2), color=style.GREEN)
    style.points(axes, shown["lag, pooled"], "pooled")
    style.points(axes, shown["lag, layer norm"], "layer norm,\ntime-wise", color=style.GREEN)
    style.points(axes, shown["lag, time-wise"], color=style.GREEN)
    axes.set_ylim(-0.15 * _gaussian(values), 1.15 * _gaussian(values))
    style.mark(axes, 0, "the future")
    made["tokens"], axes = style.figure(
        "It thins out over the tokens of a batch", "sequences x steps", "influence of one future input", log="xy"
    )
    counts = np.array([_COUNTS[0], _COUNTS[-1]]) * STEPS
    style.curve(axes, counts, _gaussian(counts), "theory,\n√2 / nT")
    style.points(axes, shown["growth"], "pooled")
    made["tosses"], axes = style.figure(
        "And it lets a model foretell a fair coin", "tokens that share statistics", "nats gained on log 2", log="x"
    )
    tokens = np.unique(np.geomspace(_LEAKED["full"][0], _LEAKED["full"][-1], 30).astype(int))
    style.curve(axes, tokens, [theory.composition_leak(int(count)) for count in tokens])
    style.curve(axes, tokens[[0, -1]], np.zeros(2), color=style.GREEN)
    style.points(axes, shown["gain, pooled"], "pooled, its\nbatch")
    style.points(axes, shown["gain, in evaluation"], "pooled, in\nevaluation", color=style.PURPLE, aside=-4.0)
    style.points(axes, shown["gain, layer norm"], "layer norm", color=style.GREEN, aside=4.0)
    made["text"], axes = style.figure(
        "A model of text",
        f"sequences of {CONTEXT} characters in a batch; data seen grows with it",
        f"loss on held-back text after {shown['steps']} steps, nats",
        log="x",
    )
    style.points(
        axes,
        shown["text, batch norm, its batch"],
        "batch norm,\nits batch",
        color=style.PURPLE,
        hollow=True,
        aside=-5.0,
    )
    style.points(axes, shown["text, batch norm, in evaluation"], "batch norm,\nevaluation", color=style.PURPLE)
    style.points(axes, shown["text, layer norm, in evaluation"], "layer norm", color=style.GREEN, aside=5.0)
    made["digits"], axes = style.figure(
        "A vision transformer",
        "images in a batch; data seen grows with it",
        f"accuracy on held-back digits after {shown['steps']} steps",
        log="x",
    )
    style.points(axes, shown["digits, batch norm"], "batch norm", color=style.PURPLE, aside=-3.0)
    style.points(axes, shown["digits, layer norm"], "layer norm", color=style.GREEN, aside=3.0)
    return made


def seen(result: Measurement) -> str:
    """Say how both norms did at a fixed number of steps, and where the loss on text was lower under batch statistics."""
    shown = result.series
    read_by, saw_by = (
        [told(shown[f"{what}, {name}{mode}"], place) for name in _NORMS for place in (0, -1)]
        for what, mode in (("text", ", in evaluation"), ("digits", ""))
    )
    batch, later = (shown[f"text, batch norm, {mode}"] for mode in ("its batch", "in evaluation"))
    leaked = [
        f"{count:g}"
        for place, count in enumerate(batch["x"])
        if batch["y"][place] + batch["interval"][place] < later["y"][place] - later["interval"][place]
    ]
    leak = (
        f"With batch norm it was lower under the batch's own statistics at {' and '.join(leaked)} sequences a batch."
        if leaked
        else "With batch norm it was at no batch size measurably lower under the batch's own statistics: no leak shows on text."
    )
    return (
        f"After {shown['steps']} steps on text, {_TEXTS[0]} and {_TEXTS[-1]} sequences a batch, the loss in evaluation was "
        f"{read_by[0]} and {read_by[1]} nats with batch norm, {read_by[2]} and {read_by[3]} with layer norm. {leak} A vision "
        f"transformer trained for as many steps on {_IMAGES[0]} and {_IMAGES[-1]} digits a batch was right on "
        f"{saw_by[0]} and {saw_by[1]} of others with batch norm, {saw_by[2]} and {saw_by[3]} with layer norm. "
        "Steps are the same and data are not: a small batch "
        "has seen less of them, so these numbers do not tell what the batch size alone does."
    )


def sliders(_: Measurement) -> list[Slider]:
    """Return the influence of one input on others' outputs, by the length of sequences and their number."""
    return [
        Slider(
            parameter="sequences",
            positions=[4, 8, 16, 32, 64, 128],
            start=1,
            x=np.arange(2, 65),
            curves={
                "the future": lambda steps, count: _gaussian(count * steps),
                "same step": lambda steps, count: _gaussian(count + 0 * steps),
            },
            colors={"same step": "orange"},
            log=True,
            x_label="steps",
            y_label="influence, in standard deviations",
            told=lambda count: (
                f"{count:g} sequences of {STEPS} steps: pooled statistics are worth "
                f"{theory.composition_leak(int(count) * STEPS):.5f} nats a token; time-wise ones nothing of the future, "
                f"but another sequence reaches {_gaussian(count) / _gaussian(count * STEPS):.0f} times as far"
            ),
        )
    ]


STUDY = Study(
    name="causality",
    heading=Heading.SEQUENCES,
    title="What pooled statistics tell of the future",
    claim=(
        "“In autoregressive tasks like language modeling, where a model must predict the next token based only on "
        "past tokens, the pooling of statistics across time in BN would violate causality by allowing information "
        "from the future to leak into the representation of the past. LN, by normalizing each token's "
        "representation independently, respects this causal structure. Furthermore, its immunity to batch size "
        "makes it more stable for the diverse batch sizes often used in training large language models. While BN "
        "has found some use in non-autoregressive, large-batch Transformer applications (e.g., in vision), LN's "
        "properties make it a more natural and robust fit”."
    ),
    theory=(
        "An output's derivative by any other input among the N = nT values of a channel is -(1 + y_i y_j)/(N sigma): in root "
        "mean square √2/N, whether the input lies before or after, near or far. What a model can make of it is finite too: "
        "a batch's mean tells how many tokens of each kind are left, worth about 1/(2N) nats on tosses of a fair coin, of "
        "which nothing can be known. In evaluation that knowledge is gone and the habit stays: such a model believes that a "
        "repetition is rarer than it is. Layer norm, time-wise statistics and evaluation give exactly 0; but time-wise "
        "statistics tie the sequences of a batch T times as firmly. Where nothing is to be foretold, as in vision, there is "
        "nothing to leak."
    ),
    outcome="To be said.",
    advice=(
        "In anything autoregressive use layer norm and measure the loss in evaluation, most of all where few "
        "tokens share statistics; where nothing is to be foretold batch norm remains a choice, which did not do "
        "worse in the vision transformer here, and neither should be chosen by the figures over batch sizes "
        "alone, for at a fixed number of steps small batches have seen less data and nothing was measured at "
        "equal data."
    ),
    order=1,
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
