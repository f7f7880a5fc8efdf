"""Covariances and spectra of mixed digits; small nets that learn them and are evaluated on clean ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from normwise.studies.data import TRAINED, digits
from normwise.studies.estimate import Estimate, dots, series
from normwise.studies.mixup_covariance.nets import BATCH, SETTLING, WHEN, beta, trained
from normwise.studies.mixup_covariance.predict import (
    CONVOLUTIONAL,
    DENSE,
    FACTOR,
    INFLATED,
    MEAN_FACTOR,
    RECALIBRATED,
    SECOND,
    TOP,
    WEIGHT,
)
from normwise.studies.study import Measurement, Progress, tracked

SHOWN = 10  # eigenvalues
_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the second image
_REPLICATES = {"tiny": 6, "quick": 10, "full": 30}
_DRAWS = {"tiny": 40, "quick": 40, "full": 80}  # times that the data are paired anew
_RUNNING = {"running, dense": DENSE, "running, convolutional": CONVOLUTIONAL}


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Mix digits, look at covariances and spectra; train small nets on mixed digits and evaluate them on clean ones."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits()
    pixels = images.flatten(1).double()
    mean = pixels.mean(0)
    covariance = (pixels - mean).T @ (pixels - mean) / len(pixels)
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        for _ in tracked(range(_REPLICATES[size]), progress):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            learnt = trained(images, labels, size, generator)
            learnt |= {new: learnt.pop(name) for name, new in _RUNNING.items()}
            learnt |= {INFLATED: learnt["variance, as trained"][0], RECALIBRATED: learnt["variance, recalibrated"][0]}
            for name, value in {**_covariances(pixels, _DRAWS[size], generator), **learnt}.items():
                found.setdefault(name, []).append(value)
    estimates = {name: Estimate.of(found.pop(name)) for name in list(found) if np.ndim(found[name]) == 1}
    centred = {TOP: "top, centred", SECOND: "second, centred"}
    idealised = {name: estimates.pop(other) for name, other in centred.items()}
    still = estimates.pop("share of the mean image").value
    scores = {
        score: dots((0, 1), [estimates.pop(f"{score}, {when}") for when in WHEN])
        for score in ("accuracy", "confidence", "loss", "best loss", "temperature")
    }
    shown = {
        "factor": series(_WEIGHTS, found["factor"]),
        "spectrum": series(range(1, SHOWN + 1), found["spectrum"]),
        "spectrum, centred": series(range(1, SHOWN + 1), found["spectrum, centred"]),
        **{f"variance, {when}": series((1, 2, 3), found[f"variance, {when}"]) for when in WHEN},
        **scores,
    }
    given = {
        "covariance": covariance.tolist(), "mean": mean.tolist(), "share of the mean image": still,
        "eps over the variance": found["eps over the variance"],
        "digits": TRAINED, "batch": BATCH, "batches": SETTLING[size],
    }  # fmt: skip
    return Measurement(estimates, given, shown, idealised)


def _mix(x: Tensor, weight: Tensor | float, generator: torch.Generator) -> Tensor:
    """Mix each sample with another one, drawn from all with replacement."""
    other = x[torch.randint(len(x), (len(x),), generator=generator)]
    return x + (other - x) * weight


def _covariances(pixels: Tensor, draws: int, generator: torch.Generator) -> dict[str, Any]:
    """Return ratios, mixed over clean, of the total variance and of the eigenvalues of second moments."""
    deviations = pixels - pixels.mean(0)
    total = deviations.square().sum(1).mean()
    factor = [float(_mix(deviations, w, generator).square().sum(1).mean() / total) for w in _WEIGHTS]
    repeated = [
        _mix(deviations, beta(len(pixels), generator).unsqueeze(1), generator).square().sum(1).mean() / total
        for _ in range(draws)
    ]
    at_weight = [_mix(deviations, WEIGHT, generator).square().sum(1).mean() / total for _ in range(draws)]
    ratios = {}
    for name, x in (("spectrum", pixels), ("spectrum, centred", deviations)):
        mixed = torch.cat([_mix(x, beta(len(x), generator).unsqueeze(1), generator) for _ in range(draws)])
        ratios[name] = (_spectrum(mixed) / _spectrum(x))[:SHOWN].tolist()
    (top, second), (top_centred, second_centred) = ratios["spectrum"][:2], ratios["spectrum, centred"][:2]
    return {
        FACTOR: float(torch.stack(at_weight).mean()),
        MEAN_FACTOR: float(torch.stack(repeated).mean()),
        TOP: top, SECOND: second, "top, centred": top_centred, "second, centred": second_centred,
        "factor": factor, **ratios,
    }  # fmt: skip


def _spectrum(x: Tensor) -> Tensor:
    """Return the eigenvalues of the Hessian of a least-squares loss, largest first."""
    return torch.linalg.eigvalsh(x.T @ x / len(x)).flip(0)
