"""What theory says conditional batch norm does to a class, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.conditional_generation.generators import CLASSES, KERNEL
from normwise.studies.estimate import root_mean_square
from normwise.studies.study import ROUNDING, Prediction
from normwise.theory import adversarial as theory
from normwise.theory.mixture import MeanVariance, mixture

OFTEN = 10  # times as many of one class, in a skewed batch
CHANNELS = 64  # of the convolution whose parameters are counted
_OVER = "root mean square over classes and channels"
FILM = "largest difference of conditional BN's output from scale times normalised value plus shift"
SCALE = f"factor by which conditional BN multiplies a class's raw features, {_OVER}"
MEAN = f"mean of a class's features after conditional BN, {_OVER}"
SKEWED = f"move of a class's mean after conditional BN when one class comes {OFTEN} times as often, {_OVER}"
ADDED = f"parameters of a conditional BN of {CHANNELS} channels for {CLASSES} classes"
FILTERS = f"parameters of {CLASSES} convolutions, one a class, of {CHANNELS} channels"
WIDTH = f"whole channels of {CLASSES} convolutions, one a class, for the parameters of one of {CHANNELS} with conditional BN"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return the prediction of every quantity; rivals normalise, or filter, every class apart."""
    gamma, beta, eps = np.array(given["weight"]), np.array(given["bias"]), given["eps"]
    classes = MeanVariance(np.array(given["means"]), np.array(given["variances"]))
    even, skewed = np.ones(CLASSES), np.ones(CLASSES)
    skewed[0] = OFTEN
    output, moved = (theory.conditional_output(gamma, beta, classes, shares, eps).mean for shares in (even, skewed))
    scale, scale_apart = (
        root_mean_square(theory.film_coefficients(gamma, beta, statistics, eps)[0])
        for statistics in (mixture(even, classes), classes)
    )
    added = theory.conditional_parameters(CHANNELS, CLASSES)
    filters, once = (theory.filter_parameters(CHANNELS, CHANNELS, KERNEL, k) for k in (CLASSES, 1))
    width = math.floor(theory.equal_parameter_width(CHANNELS, KERNEL, CLASSES))
    return {
        FILM: Prediction(0.0, claim=0.0, rival=given["difference apart"], identity=True, **ROUNDING),
        SCALE: Prediction(scale, rival=scale_apart, **ROUNDING),
        MEAN: Prediction(root_mean_square(output), rival=root_mean_square(beta), **ROUNDING),
        SKEWED: Prediction(root_mean_square(moved - output), rival=0.0, **ROUNDING),
        ADDED: Prediction(float(added), rival=float(filters - once)),
        FILTERS: Prediction(float(filters), rival=float(once + added)),
        WIDTH: Prediction(float(width), rival=float(CHANNELS // CLASSES)),
    }
