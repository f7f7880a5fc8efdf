"""What is measured, and what theory and the source expect of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.study import Prediction
from normwise.theory import channels as theory
from normwise.theory import graph

CHANNELS, CORRELATION, LOUDEST, EPS = 8, 0.6, 10.0, 1e-5
SPREAD = f"variance across {CHANNELS} channels correlated by {CORRELATION:g}"
TEXTURE_BY = "variance of a texture channel beside a loud one, per-channel"
TEXTURE_ACROSS = "variance of a texture channel beside a loud one, across channels"
LOUD_ACROSS = "variance of the loud channel, across channels"
BOTH_TEXTURE = f"variance of a texture channel correlated with a loud one by {CORRELATION:g}, across channels"
BOTH_LOUD = f"variance of the loud channel, all correlated by {CORRELATION:g}, across channels"
BLIND = "change of a channel's output when its neighbours grow tenfold, per-channel"
SEES = "variance of a channel's output after its neighbours grew tenfold, across channels"
REAL = "largest over smallest channel variance, per-channel norm of digits' features"


def scales(loudness: float, count: int = CHANNELS) -> np.ndarray:
    """Return the standard deviations of one object part among textures."""
    return np.array([loudness] + [1.0] * (count - 1))


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what each axis makes of correlation and scale; the rival of one is the other.

    A channel of a batch is a batch of uncorrelated values, whose variance after normalization `theory.graph` knows.
    """
    plain = theory.uniform_covariance(np.ones(CHANNELS), CORRELATION)
    loud, both, grown = (
        theory.across_channel_output(theory.uniform_covariance(one, rho), eps=EPS).variance
        for one, rho in ((scales(LOUDEST), 0.0), (scales(LOUDEST), CORRELATION), (LOUDEST / scales(LOUDEST), 0.0))
    )
    own = graph.training_mean_square(0.0, given["values of a channel"], EPS)
    real = theory.per_channel_output(np.array(given["variances of digits' features"]), EPS).variance
    loudest = np.argmax(given["variances of digits' features"])
    quietest = np.argmin(given["variances of digits' features"])
    unequal = given["variances of digits' features"][loudest] / given["variances of digits' features"][quietest]
    ratio = float(real[loudest] / real[quietest])
    return {
        SPREAD: Prediction(theory.across_channel_variance(plain), rival=1.0),
        TEXTURE_BY: Prediction(own, claim=own, rival=float(loud[1]), identity=True),
        TEXTURE_ACROSS: Prediction(float(loud[1]), rival=own),
        LOUD_ACROSS: Prediction(float(loud[0]), rival=own),
        BOTH_TEXTURE: Prediction(float(both[1]), rival=float(loud[1])),
        BOTH_LOUD: Prediction(float(both[0]), rival=float(loud[0])),
        BLIND: Prediction(0.0, claim=0.0, rival=1.0, identity=True),
        SEES: Prediction(float(grown[0]), rival=own),
        REAL: Prediction(ratio, claim=ratio, rival=unequal, identity=True),
    }
