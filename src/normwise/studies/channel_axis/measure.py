"""Statistics by channel or across channels: what correlation and unequal scales do to each, made and real."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from normwise.studies.channel_axis import maps
from normwise.studies.channel_axis.networks import AXES, beside_noise, plain
from normwise.studies.channel_axis.predict import (
    BLIND,
    BOTH_LOUD,
    BOTH_TEXTURE,
    CHANNELS,
    CORRELATION,
    LOUD_ACROSS,
    LOUDEST,
    REAL,
    SEES,
    SPREAD,
    TEXTURE_ACROSS,
    TEXTURE_BY,
    scales,
)
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, dots, series
from normwise.studies.study import Measurement, Progress, tracked

CORRELATIONS = (0.0, 0.2, 0.4, CORRELATION, 0.8, 0.95)
LOUDNESS = (1.0, 2.0, 4.0, 7.0, LOUDEST)
NOISE = (1.0, 10.0, 100.0)
_REPLICATES = 12
_MAPS = {"tiny": 40, "quick": 400, "full": 2000}  # maps of 8 x 8 positions in each replicate
_EPOCHS, _TRAINED = {"tiny": 1, "quick": 4, "full": 12}, {"tiny": 3, "quick": 3, "full": 8}
_NOISY = 5  # networks at most beside noise


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Normalise maps whose correlation and scales are known, and real features; train with each norm."""
    generator, found = torch.Generator().manual_seed(seed), defaultdict[str, list[Any]](list)
    images, labels = digits()
    features = maps.features(images, CHANNELS)
    with torch.random.fork_rng(devices=[]):
        for _ in tracked(range(_REPLICATES), lambda share: progress(share / 2)):
            for name, value in _made(_MAPS[size], generator).items():
                found[name].append(value)
        found[REAL] = maps.loudest_over_quietest(features, _REPLICATES, generator)
        shown: dict[str, Any] = {"epochs": _EPOCHS[size], "accuracy": {}, "noise": {}}
        seeds = torch.randint(2**31, (_TRAINED[size],), generator=generator).tolist()
        for kind in tracked(list(AXES), lambda share: progress(0.5 + share / 2)):
            alike = [plain(kind, images, labels, _EPOCHS[size], one) for one in seeds]
            noisy = [
                [beside_noise(kind, k, images, labels, _EPOCHS[size], one) for k in NOISE] for one in seeds[:_NOISY]
            ]
            shown["accuracy"][kind] = dots([0], [Estimate.of(alike)])
            shown["noise"][kind] = series(range(len(NOISE)), noisy)
    estimates = {name: Estimate.of(values) for name, values in found.items() if np.ndim(values) == 1}
    for name, values in found.items():
        if np.ndim(values) > 1:
            shown[name] = series(LOUDNESS if name.endswith(" alone") else CORRELATIONS, values)
    given = {
        "values of a channel": 64 * _MAPS[size],
        "variances of digits' features": maps.variances(features.double()).tolist(),
    }
    return Measurement(estimates, given, shown)


def _made(count: int, generator: torch.Generator) -> dict[str, Any]:
    """Return one replicate of everything that is drawn: numbers, and lists over correlations or over loudness."""
    norms = {name: norm(CHANNELS, affine=False, dtype=torch.float64) for name, norm in AXES.items()}
    alike = [maps.draw(scales(1.0), rho, count, generator) for rho in CORRELATIONS]
    both = [maps.draw(scales(LOUDEST), rho, count, generator) for rho in CORRELATIONS]
    alone = [maps.draw(scales(k), 0.0, count, generator) for k in LOUDNESS]
    one: dict[str, Any] = {"spread": [float(x.var(1).mean()) for x in alike]}
    for axis, norm in norms.items():
        one[f"{axis}, shared"] = [maps.shared(norm(x)) for x in alike]
        for which, drawn in (("both", both), ("alone", alone)):
            outputs = [maps.loud_and_texture(norm, x) for x in drawn]
            one[f"{axis}, loud {which}"], one[f"{axis}, texture {which}"] = (list(each) for each in zip(*outputs))
    at = CORRELATIONS.index(CORRELATION)
    one[SPREAD] = one["spread"][at]
    one[TEXTURE_BY], one[TEXTURE_ACROSS] = one["by, texture alone"][-1], one["across, texture alone"][-1]
    one[LOUD_ACROSS] = one["across, loud alone"][-1]
    one[BOTH_TEXTURE], one[BOTH_LOUD] = one["across, texture both"][at], one["across, loud both"][at]
    quiet = alike[0]
    grown = torch.cat([quiet[:, :1], LOUDEST * quiet[:, 1:]], 1)
    one[BLIND] = float((norms["by"](grown)[:, 0] - norms["by"](quiet)[:, 0]).abs().max())
    one[SEES] = float(norms["across"](grown)[:, 0].var())
    return one
