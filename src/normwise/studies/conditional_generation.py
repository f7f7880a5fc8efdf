"""Conditional batch norm: what it is, what it costs, and the digits it draws beside those of its alternatives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, ConditionalBatchNorm
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies import conditional_generators as nets
from normwise.studies.data import digits
from normwise.studies.digit_scores import TRAINED, DigitScores, diversity, frechet, train_scores
from normwise.studies.estimate import Estimate, dots, overlapping, told
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import adversarial as theory
from normwise.theory.mixture import MeanVariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLASSES, _KERNEL = nets.CLASSES, nets.KERNEL
_FEATURES, _EACH, _REPEATED = 8, 20, 9  # channels; digits of a class in a batch; how often one class is repeated
_CHANNELS = 64  # of the convolution whose parameters are counted
_WIDTHS = (15, 32)  # of generators with conditional BN; the others get as many parameters
_NETS = {"tiny": 3, "quick": 3, "full": 6}
_STEPS = {"tiny": 3, "quick": 150, "full": 800}
_DRAWN = 50  # images of each class that are judged
_ROUNDING = {"finite_size": 1e-9, "reason": "rounding of float64"}
_FILM = "largest difference of conditional BN from scale times normalised value plus shift"
_SCALE = "what a class's raw features are multiplied by, root mean square"
_MEAN = "mean of a class's features after conditional BN, root mean square"
_SKEWED = f"the same mean's move when one class comes {1 + _REPEATED} times as often"
_ADDED = f"parameters of a conditional BN, {_CHANNELS} channels, {_CLASSES} classes"
_FILTERS = f"parameters of a convolution for each of {_CLASSES} classes, {_CHANNELS} channels"
_WIDTH = f"channels of {_CLASSES} convolutions that cost what a shared one of {_CHANNELS} with conditional BN costs"
_COLORS = dict(zip(nets.KINDS, (style.VERMILLION, style.BLUE, style.GREEN), strict=True))
_LABELS = dict(zip(nets.KINDS, ("conditional\nBN", "labels beside\nthe noise", "a network\na class"), strict=True))
_SCORES = ("accuracy", "diversity", "distance")


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what modulation does to a class, and what it costs; rivals normalise, or filter, every class apart."""
    gamma, beta, eps = np.array(given["weight"]), np.array(given["bias"]), given["eps"]
    means, variances = np.array(given["means"]), np.array(given["variances"])
    classes, shared = MeanVariance(means, variances), MeanVariance(means.mean(0), variances.mean(0) + means.var(0))
    even, skewed = np.ones(_CLASSES), np.ones(_CLASSES)
    skewed[0] += _REPEATED
    output, moved = (
        theory.conditional_output(gamma, beta, classes, shares / shares.sum(), eps).mean for shares in (even, skewed)
    )
    scale, scale_apart = (_size(theory.film_coefficients(gamma, beta, m, eps)[0]) for m in (shared, classes))
    added = theory.conditional_parameters(_CHANNELS, _CLASSES)
    filters, once = (theory.filter_parameters(_CHANNELS, _CHANNELS, _KERNEL, k) for k in (_CLASSES, 1))
    width = theory.equal_parameter_width(_CHANNELS, _KERNEL, _CLASSES)
    return {
        _FILM: Prediction(0.0, claim=0.0, rival=given["difference apart"], identity=True, **_ROUNDING),
        _SCALE: Prediction(scale, rival=scale_apart, **_ROUNDING),
        _MEAN: Prediction(_size(output), rival=_size(beta), **_ROUNDING),
        _SKEWED: Prediction(_size(moved - output), rival=0.0, **_ROUNDING),
        _ADDED: Prediction(float(added), rival=float(filters - once)),
        _FILTERS: Prediction(float(filters), rival=float(once + added)),
        _WIDTH: Prediction(
            float(width), rival=_CHANNELS / _CLASSES, finite_size=1.0, reason="networks have whole channels"
        ),
    }


def _size(values: Any) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Modulate real digits' features, count real modules, and let generators of equal size draw digits by class."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(seed=seed)
    estimates, given = _modulated(images, labels, generator)
    counted = {name: Estimate(float(value), 0.0) for name, value in _counted().items()}
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scores = train_scores(images, labels, epochs=1 if size == "tiny" else 6, generator=generator)
        runs = [(kind, width) for kind in nets.KINDS for width in _WIDTHS for _ in range(_NETS[size])]
        for kind, width in tracked(runs, progress):
            for name, value in _drawn(kind, width, images, labels, scores, _STEPS[size], generator).items():
                found.setdefault(f"{kind}, {width}, {name}", []).append(value)
    shown: dict[str, Any] = {"real": _judged(images[TRAINED:], labels[TRAINED:], images, scores)}
    for kind in nets.KINDS:
        sizes = [found[f"{kind}, {width}, parameters"][0] for width in _WIDTHS]
        for name in _SCORES:
            each = [Estimate.of(found[f"{kind}, {width}, {name}"]) for width in _WIDTHS]
            shown[f"{kind}, {name}"] = dots(sizes, each)
        shown[f"{kind}, pictures"] = found[f"{kind}, {_WIDTHS[-1]}, pictures"][0]
    ordered = torch.stack([images[labels == label][:3, 0] for label in range(_CLASSES)], 1)
    shown["real, pictures"] = ordered.tolist()
    return Measurement({**estimates, **counted}, given, shown)


def _modulated(
    images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """Return what conditional BN does to features of digits, as many of each class, and what theory needs to know."""
    members = torch.cat([images[labels == label][:_EACH] for label in range(_CLASSES)]).flatten(1).double()
    classes = torch.arange(_CLASSES).repeat_interleave(_EACH)
    x = members @ torch.randn(members.shape[1], _FEATURES, generator=generator, dtype=torch.float64)
    layer = ConditionalBatchNorm(_FEATURES, _CLASSES, dtype=torch.float64)
    plain = BatchNorm(_FEATURES, affine=False, dtype=torch.float64)
    weight, bias = (torch.randn(_CLASSES, _FEATURES, generator=generator, dtype=torch.float64) for _ in range(2))
    layer.load_state_dict({**layer.state_dict(), "weight": weight, "bias": bias})
    repeated = x[:_EACH].repeat(_REPEATED, 1), classes[:_EACH].repeat(_REPEATED)
    with torch.no_grad():
        output, skewed = layer(x, classes), layer(torch.cat([x, repeated[0]]), torch.cat([classes, repeated[1]]))
        by_hand = plain(x) * weight[classes] + bias[classes]
        apart = torch.cat([plain(own) for own in x.split(_EACH)]) * weight[classes] + bias[classes]
    by_class, raw = output.view(_CLASSES, _EACH, _FEATURES), x.view(_CLASSES, _EACH, _FEATURES)
    skewed_by_class = skewed[: len(x)].view_as(by_class)
    exact = {
        _FILM: float((output - by_hand).abs().max()),
        _SCALE: _size((by_class[:, 0] - by_class[:, 1]) / (raw[:, 0] - raw[:, 1])),
        _MEAN: _size(by_class.mean(1)),
        _SKEWED: _size((skewed_by_class - by_class).mean(1)),
    }
    tensors = {"weight": weight, "bias": bias, "means": raw.mean(1), "variances": raw.var(1, unbiased=False)}
    given = {name: tensor.tolist() for name, tensor in tensors.items()}
    given |= {"eps": layer.eps, "difference apart": float((output - apart).abs().max())}
    return {name: Estimate(value, 0.0) for name, value in exact.items()}, given


def _counted() -> dict[str, int]:
    """Count the parameters of real modules."""
    shared, modulation = nets.convolution(_CHANNELS, _CHANNELS), ConditionalBatchNorm(_CHANNELS, _CLASSES)

    def apart(width: int) -> nn.Module:
        return nets.convolution(_CLASSES * width, _CLASSES * width, _CLASSES)

    return {
        _ADDED: nets.parameters(modulation),
        _FILTERS: nets.parameters(apart(_CHANNELS)),
        _WIDTH: nets.widest(apart, nets.parameters(shared) + nets.parameters(modulation)),
    }


def _drawn(
    kind: str, width: int, images: Tensor, labels: Tensor, scores: DigitScores, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """Train a generator with as many parameters as conditional BN has at a width, and judge what it draws."""
    budget = nets.parameters(nets.ConditionalGenerator(nets.KINDS["conditional BN"], width))
    make = partial(nets.ConditionalGenerator, nets.KINDS[kind])
    model = make(nets.widest(make, budget))
    nets.train(model, images[:TRAINED], labels[:TRAINED], steps=steps, noise=generator)
    with torch.no_grad():
        made = model(torch.randn(_DRAWN, _CLASSES, nets.LATENT, generator=generator))
    return {
        **_judged(made.view(-1, 1, *made.shape[2:]), torch.arange(_CLASSES).repeat(_DRAWN), images, scores),
        "parameters": nets.parameters(model),
        "pictures": made[:3].mul(100).round().div(100).tolist(),
    }


def _judged(made: Tensor, labels: Tensor, images: Tensor, scores: DigitScores) -> dict[str, float]:
    """Return the classifier's accuracy, the diversity within classes, and the Frechet distance to digits learnt from."""
    return {
        "accuracy": float((scores.classes(made) == labels).double().mean()),
        "diversity": diversity(made, labels),
        "distance": frechet(scores.features(made), scores.features(images[:TRAINED])),
    }


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw digits by class, then how good they are by the parameters spent."""
    shown, made = result.series, {}
    pictures = {_LABELS[kind]: np.array(shown[f"{kind}, pictures"]) for kind in nets.KINDS}
    made["pictures"] = style.gallery(
        "Digits drawn by class", {**pictures, "real digits": np.array(shown["real, pictures"])}
    )
    small, large = (shown[f"conditional BN, {_SCORES[0]}"]["x"][i] for i in (0, -1))
    for name, title, y in (
        ("accuracy", "Is it the digit that was asked for?", "accuracy of a classifier of real digits"),
        ("diversity", "Are a class's digits different?", "mean distance between two of a class"),
        ("distance", "Are they like real ones?", "Fréchet distance in a classifier's features"),
    ):
        said = f"{y}; ● {large:g} parameters, ○ {small:g}"
        made[name], axes = style.figure(title, "", said, log="y" if name == "distance" else "")
        style.categories(axes, _LABELS.values())
        style.curve(axes, axes.get_xlim(), [shown["real"][name]] * 2, "real digits", color=style.SOFT, dashed=True)
        for place, (kind, color) in enumerate(_COLORS.items()):
            scores = shown[f"{kind}, {name}"]
            for i, aside in ((0, 5.0), (-1, -5.0)):
                one = {"x": [place], "y": [scores["y"][i]], "interval": [scores["interval"][i]]}
                style.points(axes, one, color=color, hollow=i == 0, aside=aside)
    return made


def seen(result: Measurement) -> str:
    """Say how the generators of the larger size did."""
    shown = result.series
    parts = [
        f"{kind} {told(shown[f'{kind}, distance'])} ({shown[f'{kind}, accuracy']['y'][-1]:.1%} the digit asked for, diversity "
        f"{shown[f'{kind}, diversity']['y'][-1]:.2f})"
        for kind in nets.KINDS
    ]
    real = shown["real"]
    pairs = {
        name: {key: [shown[f"{kind}, {name}"][key][-1] for kind in nets.KINDS] for key in ("y", "interval")}
        for name in ("distance", "diversity")
    }
    common = [name for name, pair in pairs.items() if overlapping(pair, 0, 1)]
    alike = (
        f"The intervals of conditional BN and of labels beside the noise overlap in {' and in '.join(common)}."
        if common
        else "The intervals of conditional BN and of labels beside the noise do not overlap."
    )
    return (
        f"Of about {shown['conditional BN, distance']['x'][-1]:.0f} parameters each, the generators' Fréchet distance to digits "
        f"was: {', '.join(parts)}. Real digits held back: {real['distance']:.2f} ({real['accuracy']:.1%}, "
        f"{real['diversity']:.2f}). {alike}"
    )


def sliders(_: Measurement) -> list[Slider]:
    """Return what conditioning costs by the number of classes, at any width."""
    classes = np.arange(1, 101)

    def conditional(k: Any, c: float) -> Any:
        return theory.filter_parameters(c, c, _KERNEL) + theory.conditional_parameters(c, k)

    def apart(k: Any, c: float) -> Any:
        return theory.filter_parameters(c, c, _KERNEL, k)

    return [
        Slider(
            parameter="channels of a convolution",
            positions=[16, 32, 64, 128, 256, 512],
            start=2,
            x=classes,
            curves={"conditional": conditional, "filters each": apart},
            colors={"conditional": "vermillion", "filters each": "green"},
            x_label="classes",
            y_label="parameters of a layer",
            log=True,
            told=lambda c: (
                f"{c:g} channels, 100 classes: filters for each cost {apart(100, c) / conditional(100, c):.0f} times as much"
            ),
        )
    ]


STUDY = Study(
    name="conditional-generation",
    heading=Heading.ADVERSARIAL,
    title="Conditional batch norm in a generator",
    claim=(
        "“The generator learns to produce class-specific scaling and shifting parameters, which act as a "
        "feature-wise linear modulation on the shared, normalized activations. […] This parameter-efficient "
        "mechanism is a powerful way to inject conditioning information and is crucial for generating diverse, "
        "high-quality images for different classes”."
    ),
    theory=(
        "An identity: conditional BN multiplies a class's raw features by gamma_y/sigma and adds beta_y - gamma_y mu/sigma. "
        "Mu and sigma are all classes', so a class leaves with mean beta_y + gamma_y (mu_y - mu)/sigma, and moves when "
        "another class comes more often. K classes cost 2 C K parameters a layer; filters of their own cost K k² C², and at "
        "equal cost have C sqrt(1/K + 2/(k² C)) channels. Quality has no closed form: generators of equal size were trained "
        "by the energy distance in pixels, and judged by a classifier they never saw."
    ),
    outcome="To be said.",
    advice=(
        "Take conditional BN for what holds of it, a scale and a shift for each class at 2 C K parameters a "
        "layer, not as crucial for quality and diversity, which was not seen at this scale: hold it against "
        "labels beside the noise, which cost nearly nothing and whose distances overlap with its own, and draw in "
        "evaluation so that a batch's classes do not move each other."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    order=1,
    version=2,
)
