"""Swap fakes, follow gradients and look at Jacobians, in one layer and in whole discriminators; then let them play."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from normwise.studies.data import TRAINED, digits
from normwise.studies.digit_scores import train_scores
from normwise.studies.discriminator_coupling.games import KINDS
from normwise.studies.discriminator_coupling.linear import look_at_linear
from normwise.studies.discriminator_coupling.looks import CONTRASTS, LOOKS, SHOWN, at_start, gallery_of, played
from normwise.studies.discriminator_coupling.predict import FADED, FADING, SPECTRAL, UNCOUPLED
from normwise.studies.estimate import Estimate, dots, series
from normwise.studies.study import Measurement, Progress, tracked

_DRAWS = {"tiny": 350, "quick": 400, "full": 2000}  # of fakes, in each replicate
_REPLICATES = {"tiny": 12, "quick": 8, "full": 20}  # of discriminators with random weights
_GAMES = {"tiny": 3, "quick": 3, "full": 6}
_STEPS = {"tiny": 10, "quick": 300, "full": 2000}
_SUBSETS = 10  # of the digits that are learnt from, whose distance to those held back is averaged
_BY_KIND = (
    "shift",
    "through",
    "lipschitz",
    "shift after",
    "through after",
    "lipschitz after",
    "turned",
    "back",
    "loss",
)


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Measure one layer, discriminators with random weights, and games of both players."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(seed=seed)
    learnt = images[:TRAINED].flatten(1)
    found: dict[str, dict[str, list[Any]]] = {kind: defaultdict(list) for kind in KINDS}

    def collect(kind: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            found[kind][name].append(value)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimates, given, shown = look_at_linear(
            learnt, draws=_DRAWS[size], replicates=_REPLICATES[size], generator=generator
        )
        scores = train_scores(images, labels, epochs=1 if size == "tiny" else 6, generator=generator)
        untrained = [kind for kind in KINDS for _ in range(_REPLICATES[size])]
        for kind in tracked(untrained, lambda share: progress(0.2 * share)):
            collect(kind, at_start(KINDS[kind], learnt, generator))
        games = [kind for kind in KINDS for _ in range(_GAMES[size])]
        for kind in tracked(games, lambda share: progress(0.2 + 0.8 * share)):
            collect(kind, played(KINDS[kind], learnt, scores, _STEPS[size], generator))
    joint = found["joint BN"]
    estimates |= {
        SPECTRAL: Estimate.of(found["spectral norm"]["layer"]),
        FADING: Estimate.of(np.array(joint["steepening"])[:, CONTRASTS.index(FADED)]),
        **{name: Estimate.of(found[kind]["shift"]) for kind, name in UNCOUPLED.items()},
    }
    given |= {
        "norm of raw weights": float(np.mean(joint["layer"])),
        "shift in a joint batch": float(np.mean(joint["shift"])),
        "variances of a discriminator's features": joint["variances"],
    }
    across = {"distance": LOOKS * _STEPS[size], "covered": LOOKS * _STEPS[size], "steepening": range(len(CONTRASTS))}
    for place, (kind, samples) in enumerate(found.items()):
        shown |= {f"{kind}, {name}": series(x, samples[name]) for name, x in across.items()}
        shown |= {f"{kind}, {name}": dots([place], [Estimate.of(samples[name])]) for name in _BY_KIND}
    pictures = {kind: samples["pictures"][0] for kind, samples in found.items()}
    pictures["real digits"] = gallery_of(learnt[:SHOWN])
    chosen = (torch.randperm(TRAINED, generator=generator)[: len(scores.held)] for _ in range(_SUBSETS))
    real = float(np.mean([scores.distance(images[places]) for places in chosen]))
    return Measurement(estimates, given, {**shown, "pictures": pictures, "distance of real digits": real})
