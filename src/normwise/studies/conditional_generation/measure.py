"""Modulate real digits' features, count real modules, and let generators of equal size draw digits by class."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, ConditionalBatchNorm
from normwise.studies.conditional_generation import generators as nets
from normwise.studies.conditional_generation.predict import (
    ADDED,
    CHANNELS,
    FILM,
    FILTERS,
    MEAN,
    OFTEN,
    SCALE,
    SKEWED,
    WIDTH,
)
from normwise.studies.data import TRAINED, digits
from normwise.studies.digit_scores import DigitScores, diversity, train_scores
from normwise.studies.estimate import Estimate, dots, root_mean_square
from normwise.studies.study import Measurement, Progress, tracked

_CLASSES = nets.CLASSES
_FEATURES, _EACH = 8, 20  # channels; digits of a class in a batch
_WIDTHS = (15, 32)  # of generators with conditional BN; the others get as many parameters
_NETS = {"tiny": 3, "quick": 3, "full": 6}
_STEPS = {"tiny": 3, "quick": 150, "full": 800}
SCORES = ("accuracy", "diversity", "distance")


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Measure one layer, the size of modules, and the digits that generators draw."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(seed=seed)
    estimates, given = _modulated(images, labels, generator)
    found: dict[tuple[str, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scores = train_scores(images, labels, epochs=1 if size == "tiny" else 6, generator=generator)
        runs = [(kind, width) for kind in nets.KINDS for width in _WIDTHS for _ in range(_NETS[size])]
        for kind, width in tracked(runs, progress):
            for name, value in _drawn(kind, width, images, labels, scores, _STEPS[size], generator).items():
                found[kind, width][name].append(value)
    shown: dict[str, Any] = {"real": _judged_reals(images, labels, scores)}
    for kind in nets.KINDS:
        sizes = [found[kind, width]["parameters"][0] for width in _WIDTHS]
        for name in SCORES:
            shown[f"{kind}, {name}"] = dots(sizes, [Estimate.of(found[kind, width][name]) for width in _WIDTHS])
        shown[f"{kind}, pictures"] = found[kind, _WIDTHS[-1]]["pictures"][0]
    shown["real, pictures"] = torch.stack([images[labels == label][:3, 0] for label in range(_CLASSES)], 1).tolist()
    return Measurement({**estimates, **_counted()}, given, shown)


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
    repeated = x[:_EACH].repeat(OFTEN - 1, 1), classes[:_EACH].repeat(OFTEN - 1)
    with torch.no_grad():
        output, skewed = layer(x, classes), layer(torch.cat([x, repeated[0]]), torch.cat([classes, repeated[1]]))
        by_hand = plain(x) * weight[classes] + bias[classes]
        apart = torch.cat([plain(own) for own in x.split(_EACH)]) * weight[classes] + bias[classes]
    by_class, raw = output.view(_CLASSES, _EACH, _FEATURES), x.view(_CLASSES, _EACH, _FEATURES)
    skewed_by_class = skewed[: len(x)].view_as(by_class)
    exact = {
        FILM: float((output - by_hand).abs().max()),
        SCALE: root_mean_square((by_class[:, 0] - by_class[:, 1]) / (raw[:, 0] - raw[:, 1])),
        MEAN: root_mean_square(by_class.mean(1)),
        SKEWED: root_mean_square((skewed_by_class - by_class).mean(1)),
    }
    tensors = {"weight": weight, "bias": bias, "means": raw.mean(1), "variances": raw.var(1, unbiased=False)}
    given = {name: tensor.tolist() for name, tensor in tensors.items()}
    given |= {"eps": layer.eps, "difference apart": float((output - apart).abs().max())}
    return {name: Estimate(value, 0.0) for name, value in exact.items()}, given


def _counted() -> dict[str, Estimate]:
    """Count the parameters of real modules."""
    shared, modulation = nets.convolution(CHANNELS, CHANNELS), ConditionalBatchNorm(CHANNELS, _CLASSES)

    def apart(width: int) -> nn.Module:
        return nets.convolution(_CLASSES * width, _CLASSES * width, _CLASSES)

    counts = {
        ADDED: nets.parameters(modulation),
        FILTERS: nets.parameters(apart(CHANNELS)),
        WIDTH: nets.widest(apart, nets.parameters(shared) + nets.parameters(modulation)),
    }
    return {name: Estimate(float(count), 0.0) for name, count in counts.items()}


def _drawn(
    kind: str, width: int, images: Tensor, labels: Tensor, scores: DigitScores, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """Train a generator with as many parameters as conditional BN has at a width, and judge what it draws.

    It draws as many of each class as are held back, so that sets of the same size and composition are compared.
    """
    budget = nets.parameters(nets.ConditionalGenerator(nets.KINDS["conditional BN"], width))
    make = partial(nets.ConditionalGenerator, nets.KINDS[kind])
    model = make(nets.widest(make, budget))
    nets.train(model, images[:TRAINED], labels[:TRAINED], steps=steps, noise=generator)
    counts = labels[TRAINED:].bincount(minlength=_CLASSES)
    with torch.no_grad():
        made = model(torch.randn(int(counts.max()), _CLASSES, nets.LATENT, generator=generator))
    chosen = torch.cat([made[:count, label] for label, count in enumerate(counts)])[:, None]
    wanted = torch.arange(_CLASSES).repeat_interleave(counts)
    return {
        "accuracy": _accuracy(chosen, wanted, scores),
        "diversity": diversity(chosen, wanted),
        "distance": scores.distance(chosen),
        "parameters": nets.parameters(model),
        "pictures": made[:3].mul(100).round().div(100).tolist(),
    }


def _accuracy(images: Tensor, labels: Tensor, scores: DigitScores) -> float:
    return float((scores.classes(images) == labels).double().mean())


def _judged_reals(images: Tensor, labels: Tensor, scores: DigitScores) -> dict[str, float]:
    """Return accuracy and diversity of the digits held back, and how far as many that were learnt from are from them."""
    counts = labels[TRAINED:].bincount(minlength=_CLASSES)
    learnt = [images[:TRAINED][labels[:TRAINED] == label][:count] for label, count in enumerate(counts)]
    return {
        "accuracy": _accuracy(images[TRAINED:], labels[TRAINED:], scores),
        "diversity": diversity(images[TRAINED:], labels[TRAINED:]),
        "distance": scores.distance(torch.cat(learnt)),
    }
