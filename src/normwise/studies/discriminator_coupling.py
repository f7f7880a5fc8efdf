"""Reals and fakes in one batch: how a discriminator's norm couples them, and what comes of it in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies import gans
from normwise.studies.data import digits
from normwise.studies.digit_scores import CLASSES, TRAINED, frechet, train_scores
from normwise.studies.estimate import Estimate, dots, series, told
from normwise.studies.gan_looks import CONTRASTS, LOOKS, SHOWN, at_start, gallery_of, played
from normwise.studies.linear_discriminator import HALF, MANY, MOVES, look_at_linear, magnitude
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import adversarial as theory
from normwise.theory.mixture import MeanVariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FADED = 0.25
_DRAWS = {"tiny": 350, "quick": 400, "full": 2000}  # of fakes, in each replicate
_REPLICATES = {"tiny": 12, "quick": 8, "full": 20}
_GANS = {"tiny": 3, "quick": 3, "full": 6}
_STEPS = {"tiny": 10, "quick": 300, "full": 2000}
_SERIES = 2  # dimensions of replicates over something
_ROUNDING = 1e-9
_SHIFT = "linear discriminator: shift of real logits, root mean square, when the fakes are swapped"
_SEPARATE = f"{_SHIFT}; normalised apart"
_FRESH = "linear discriminator: variance of real logits' shift when fakes like them are drawn anew"
_THROUGH = "linear discriminator: fakes' gradient through statistics, over the direct one"
_THROUGH_ALONE = f"{_THROUGH}; normalised apart"
_STEEPEST = "Lipschitz constant of a batch norm over its batch"
_SPECTRAL = "Lipschitz constant of a layer under spectral norm"
_LINEAR = {
    "shift": _SHIFT, "shift, apart": _SEPARATE, "fresh": _FRESH, "through": _THROUGH, "through, apart": _THROUGH_ALONE,
    "steepest": _STEEPEST,
}  # fmt: skip
_FADING = f"discriminator of digits, joint BN: Lipschitz constant at contrast {_FADED:g}, over that at 1"
_COUPLED = "discriminator of digits: shift of real logits over their spread"
_UNCOUPLED = {kind: f"{_COUPLED}, {kind}" for kind in gans.KINDS if kind != "joint BN"}
_COLORS = {
    "joint BN": style.VERMILLION, "separate BN": style.PURPLE, "LayerNorm": style.GREEN, "spectral norm": style.BLUE,
}  # fmt: skip


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return shifts, gradients and Lipschitz constants; each is told apart from what another norm does."""
    real, fake, other, weight = (np.array(given[name]) for name in ("real", "fake", "other", "weight"))
    reals, fakes, others = (_moments(x) for x in (real, fake, other))
    shift, alone = (
        magnitude(theory.logit_shift(real, weight, reals, fakes, others, share=share, eps=given["eps"]))
        for share in (0.5, 1.0)
    )
    batch = 2 * MANY * HALF
    joint = theory.joint_moments(reals, fakes)
    fresh = float((theory.fresh_fakes_variance(real, reals, reals, batch) @ weight**2).mean())
    by_mean = float((weight**2).sum()) / batch  # as if only the mean moved
    through, through_alone = (
        theory.gradient_through_statistics(weight, reals, fakes, share=share, eps=given["eps"]) for share in (0.5, 0.0)
    )
    steepest = float(np.max(theory.film_coefficients(1.0, 0.0, joint, given["eps"])[0]))
    faded = MeanVariance(_FADED * joint.mean, _FADED**2 * joint.variance)
    steeper = theory.film_coefficients(1.0, 0.0, faded)[0] / theory.film_coefficients(1.0, 0.0, joint)[0]
    exact = {"finite_size": _ROUNDING, "reason": "rounding of float64"}
    return {
        _SHIFT: Prediction(shift, rival=0.0, **exact),
        _SEPARATE: Prediction(alone, claim=0.0, rival=shift, identity=True),
        _FRESH: Prediction(
            fresh, rival=by_mean, finite_size=10 * fresh / batch, reason="second order in one over the batch"
        ),
        _THROUGH: Prediction(through, rival=0.5, **exact),
        _THROUGH_ALONE: Prediction(through_alone, rival=through, **exact),
        _STEEPEST: Prediction(steepest, rival=1.0, **exact),
        _SPECTRAL: Prediction(
            1.0,
            claim=1.0,
            rival=given["norm of raw weights"],
            finite_size=1e-3,
            reason="power iterations left out",
            identity=True,
        ),
        _FADING: Prediction(float(np.mean(steeper)), rival=1.0, finite_size=0.05, reason="eps beside faded variances"),
        **{
            name: Prediction(0.0, claim=0.0, rival=given["shift in a joint batch"], identity=True)
            for name in _UNCOUPLED.values()
        },
    }


def _moments(x: np.ndarray) -> MeanVariance:
    return MeanVariance(x.mean(0), x.var(0))


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Swap fakes, follow gradients and look at Jacobians, in one layer and in whole discriminators; then let them play."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(seed=seed)
    pixels = images.flatten(1)
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear, given, shown = look_at_linear(
            pixels, draws=_DRAWS[size], replicates=_REPLICATES[size], generator=generator
        )
        scores = train_scores(images, labels, epochs=1 if size == "tiny" else 6, generator=generator)
        untrained = [kind for kind in gans.KINDS for _ in range(_REPLICATES[size])]
        for kind in tracked(untrained, lambda share: progress(0.2 * share)):
            _collect(found, kind, at_start(gans.KINDS[kind], pixels, generator))
        games = [kind for kind in gans.KINDS for _ in range(_GANS[size])]
        for kind in tracked(games, lambda share: progress(0.2 + 0.8 * share)):
            _collect(found, kind, played(gans.KINDS[kind], images, scores, _STEPS[size], generator))
    lipschitz = np.array(found["joint BN, lipschitz"])
    estimates = {
        **{name: linear[key] for key, name in _LINEAR.items()},
        _SPECTRAL: Estimate.of(found["spectral norm, layer"]),
        _FADING: Estimate.of(lipschitz[:, CONTRASTS.index(_FADED)] / lipschitz[:, 0]),
        **{name: Estimate.of(found[f"{kind}, shift"]) for kind, name in _UNCOUPLED.items()},
    }
    given |= {
        "norm of raw weights": float(np.mean(found["joint BN, layer"])),
        "shift in a joint batch": float(np.mean(found["joint BN, shift"])),
    }
    across = {"distance": LOOKS * _STEPS[size], "covered": LOOKS * _STEPS[size], "lipschitz": CONTRASTS}
    shown |= {
        name: series(across[what], samples) if (what := name.split(", ")[1]) in across else vars(Estimate.of(samples))
        for name, samples in found.items()
        if np.ndim(samples) <= _SERIES
    }
    pictures = {kind: found[f"{kind}, pictures"][0] for kind in gans.KINDS}
    pictures["real digits"] = gallery_of(pixels[:SHOWN])
    real = {"real digits": frechet(scores.features(images[TRAINED:]), scores.features(images[:TRAINED]))}
    return Measurement(estimates, given, {**shown, "pictures": pictures, "distance": real})


def _collect(found: dict[str, list[Any]], kind: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        found.setdefault(f"{kind}, {name}", []).append(value)


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw samples, the coupling, the gradient's ways, steepness, and how each discriminator's generator fares."""
    shown, made = result.series, {}
    given = {name: np.array(result.given[name]) for name in ("real", "fake", "weight")}
    made["samples"] = style.gallery("What each discriminator teaches", shown["pictures"])
    moves = np.linspace(0, MOVES[-1], 60)
    made["shift"], axes = style.figure(
        "Moving the fakes moves the reals", "fakes move by standard deviations of the reals", "shift of real logits"
    )
    for name, share, color in (("joint", 0.5, style.VERMILLION), ("separate", 1.0, style.PURPLE)):
        style.curve(axes, moves, [_moved(given, move, share) for move in moves], color=color)
        label = "joint BN" if name == "joint" else "separate BN,\nLayerNorm,\nspectral norm"
        style.points(axes, shown[name], label, color=color)
    made["gradient"] = _by_kind(
        shown,
        "through",
        "Gradient through the statistics",
        "its norm over that of the direct one; ● at init, ○ trained",
    )
    made["coupling"] = _by_kind(
        shown,
        "shift",
        "Coupling in a whole discriminator",
        "shift of real logits over their spread; ● at init, ○ trained",
    )
    made["lipschitz"], axes = style.figure(
        "Steepness as images fade", "contrast of the images", "Lipschitz constant of the batch's logits", log="xy"
    )
    contrasts = np.geomspace(CONTRASTS[-1], 1, 30)
    for kind in ("joint BN", "separate BN"):
        style.curve(axes, contrasts, shown[f"{kind}, lipschitz"]["y"][0] / contrasts, color=_COLORS[kind])
    style.curve(axes, contrasts, np.ones(30), "its bound", color=_COLORS["spectral norm"])
    for kind, color in _COLORS.items():
        style.points(axes, shown[f"{kind}, lipschitz"], kind, color=color)
    axes.invert_xaxis()
    for name, title, y in (
        ("distance", "Which generator comes close", "Fréchet distance to digits, classifier's features"),
        ("covered", "Which digits it draws", "classes covered, of ten"),
    ):
        made[name], axes = style.figure(title, "step", y, log="y" if name == "distance" else "")
        for number, (kind, color) in enumerate(_COLORS.items()):
            drawn = shown[f"{kind}, {name}"]
            axes.plot(drawn["x"], drawn["y"], color=color, linewidth=0.8, alpha=0.5)
            style.points(axes, drawn, kind, color=color, aside=3.0 * number - 4.5)
        if name == "covered":
            axes.set_ylim(0, CLASSES + 0.5)
    made["oscillation"] = _by_kind(
        shown, "turned", "Whose digits keep changing", "share of samples of another class at the next look"
    )
    made["loss"] = _by_kind(
        shown, "loss", "Whose loss swings", "standard deviation of the generator's loss, second half of the game"
    )
    return made


def _moved(given: Mapping[str, np.ndarray], move: float, share: float) -> float:
    """Return the shift of real logits, root mean square, when the fakes' mean moves."""
    real, fake = _moments(given["real"]), _moments(given["fake"])
    other = MeanVariance(fake.mean + move * real.variance**0.5, fake.variance)
    return magnitude(theory.logit_shift(given["real"], given["weight"], real, fake, other, share=share))


def _by_kind(shown: Mapping[str, Any], name: str, title: str, y: str) -> Figure:
    """Draw one number a kind, before training and after it where there are both."""
    made, axes = style.figure(title, "", y)
    twice = any(f"{kind}, {name} after" in shown for kind in _COLORS)
    for place, (kind, color) in enumerate(_COLORS.items()):
        for suffix, aside in (("", -5.0), (" after", 5.0)):
            if (one := shown.get(f"{kind}, {name}{suffix}")) is not None:
                drawn = dots([place], [Estimate(**one)])
                style.points(axes, drawn, color=color, hollow=bool(suffix), aside=aside if twice else 0.0)
    style.categories(axes, [kind.replace(" ", "\n") for kind in _COLORS])
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    return made


def seen(result: Measurement) -> str:
    """Say how the games went."""
    shown = result.series
    steps = shown["joint BN, distance"]["x"][-1]
    games = [
        f"{kind} {told(shown[f'{kind}, distance'])} ({shown[f'{kind}, covered']['y'][-1]:.1f} classes, "
        f"{shown[f'{kind}, turned']['value']:.0%} turned)"
        for kind in _COLORS
    ]
    joint, layer = (
        {
            "distance": [shown[f"{kind}, distance"][key][-1] for key in ("y", "interval")],
            "turnover": _value(shown[f"{kind}, turned"]),
            "swings of the generator's loss": _value(shown[f"{kind}, loss"]),
        }
        for kind in ("joint BN", "LayerNorm")
    )
    worse = [what for what, (value, half) in joint.items() if value - half > sum(layer[what])]
    swings = ", ".join(f"{kind} {shown[f'{kind}, loss']['value']:.2g}" for kind in _COLORS)
    unstable = (
        f"Joint BN was measurably worse than layer norm in {' and '.join(worse)}."
        if worse
        else "In distance, turnover and swings joint BN was not measurably worse than layer norm: no instability was seen at "
        "this scale."
    )
    return (
        f"After {steps:.0f} steps the generators' Fréchet distance to digits was, under {', '.join(games)}; in brackets the "
        "classes of ten that are drawn, and the share of samples whose class turns between two looks. Real digits held back "
        f"are {shown['distance']['real digits']:.2f} from those learnt from. "
        f"The generator's loss swung by (standard deviation, second half of the game) {swings}. {unstable}"
    )


def _value(one: Mapping[str, Any]) -> list[float]:
    """Return an estimate's value and half its interval."""
    return [one["value"], Estimate(**one).interval]


def sliders(result: Measurement) -> list[Slider]:
    """Return the shift of real logits over the fakes' move, by the share of reals in the batch."""
    given = {name: np.array(result.given[name]) for name in ("real", "fake", "weight")}
    return [
        Slider(
            parameter="share of reals in the batch (1: separate batches)",
            positions=[0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0],
            start=2,
            x=np.linspace(0, MOVES[-1], 41),
            curves={"shift": lambda x, share: [_moved(given, move, share) for move in x]},
            x_label="fakes move by standard deviations of the reals",
            y_label="shift of real logits, theory",
            told=lambda share: (
                f"{share:.0%} reals: fakes one standard deviation away move a real logit by {_moved(given, 1.0, share):.2f}"
            ),
        )
    ]


STUDY = Study(
    name="discriminator-coupling",
    heading=Heading.ADVERSARIAL,
    title="Reals and fakes in one batch",
    claim=(
        "“When the discriminator uses BN on a mini-batch containing both real images and fake images generated by "
        "the generator, the normalization of a real image's features becomes dependent on the fake images in the "
        "same batch, and vice versa. […] This can lead to oscillatory, unstable training. Recognizing this issue "
        "led to the adoption of alternative normalization strategies in modern GANs, such as Layer Normalization "
        "or Spectral Normalization, which either remove the inter-sample dependence or control the "
        "discriminator's Lipschitz constant to ensure smoother gradients”."
    ),
    theory=(
        "The coupling is exact: joint statistics are those of a mixture, so real logits move by "
        "sum w ((x - mu')/sigma' - (x - mu)/sigma) when the fakes change, and by sampling alone with variance "
        "2 (1 - pi)/m sum w² (1 + x²/2) when they do not. It works on the generator too: (1 - pi) of its gradient and more "
        "is cancelled through the statistics. Separate batches decouple, but at a price: a batch of fakes alone has mean 0 "
        "whatever the generator does, so all of a linear logit's gradient is cancelled. BN is as steep as 1/sigma: an image "
        "of a quarter of the contrast is judged by a function four times as steep, where spectral norm keeps every layer "
        "at 1. What follows for training is not predicted but shown."
    ),
    outcome="To be said.",
    advice=(
        "Where a real image's logit must not depend on the fakes beside it take layer norm, spectral norm (which "
        "also bounds the slope) or separate batches, which hide from a first layer what tells all fakes from all "
        "reals, and do not expect joint batch norm to make training unstable by itself, for at this scale that "
        "was not seen."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
