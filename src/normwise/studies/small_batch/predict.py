"""Relative errors of batch statistics, and what running averages make of them; rivals confuse the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.study import Prediction
from normwise.theory import small_batch as theory

MEAN_WITHIN, VARIANCE_WITHIN = 0.25, 0.5  # errors above which rule NW203 calls a batch noisy
STEADY_MEAN, STEADY_VARIANCE = 16, 9  # independent values that are just enough for them
SMALL, LARGE, SHARED = 8, 64, 0.5
CLUSTERS, POSITIONS, CORRELATION = 32, 64, 0.1
MOMENTUM, UPDATES = 0.1, 29
FEATURES, PATCHES = "digits' convolutional features", "photographs' patches"
_MEAN, _VARIANCE = "error, in standard deviations, of the mean of", "error, over the variance, of the variance of"
M_STEADY = f"{_MEAN} {STEADY_MEAN} values"
V_STEADY = f"{_VARIANCE} {STEADY_VARIANCE} values"
V_SHARED = f"{_VARIANCE} {LARGE} values, all correlated by {SHARED:g}"
M_CLUSTERS = f"{_MEAN} {CLUSTERS} x {POSITIONS} values, correlated by {CORRELATION:g} inside a cluster"
V_CLUSTERS = f"{_VARIANCE} {CLUSTERS} x {POSITIONS} values, correlated by {CORRELATION:g} inside a cluster"
V_PIXELS = f"{_VARIANCE} {SMALL} digits' pixels"
M_IMAGES = {name: f"{_MEAN} {SMALL} {name}, of {POSITIONS} positions each" for name in (FEATURES, PATCHES)}
V_IMAGES = {name: f"{_VARIANCE} {SMALL} {name}, of {POSITIONS} positions each" for name in (FEATURES, PATCHES)}
LEFT = f"share of the initial value left in running_mean after {UPDATES} updates"
NOISE = f"error, in standard deviations, of running_mean of batches of {SMALL}"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return every error; of images that are taken as they come, from the moments of theirs."""
    count, images = CLUSTERS * POSITIONS, SMALL * POSITIONS
    worth = theory.effective_size_of_mean(count, POSITIONS, CORRELATION)
    shared = theory.effective_size_of_mean(LARGE, LARGE, SHARED)
    mean, variance = theory.relative_error_of_mean, theory.relative_error_of_variance
    clustered = theory.relative_error_of_variance_of_gaussian_clusters
    noise = theory.variance_of_running_average(MOMENTUM, 1 / SMALL, UPDATES) ** 0.5
    predicted = {
        M_STEADY: (mean(STEADY_MEAN), variance(STEADY_MEAN)),
        V_STEADY: (variance(STEADY_VARIANCE), mean(STEADY_VARIANCE)),
        V_SHARED: (clustered(1, LARGE, SHARED), mean(shared)),
        M_CLUSTERS: (mean(worth), mean(count)),
        V_CLUSTERS: (clustered(CLUSTERS, POSITIONS, CORRELATION), variance(worth)),
        V_PIXELS: (variance(SMALL, given["pixel kurtosis"]), variance(SMALL)),
    }
    for name in (FEATURES, PATCHES):
        of_mean, of_variance = (error(SMALL, given["moments"][name]) for error in (mean_error, variance_error))
        predicted |= {M_IMAGES[name]: (of_mean, mean(images)), V_IMAGES[name]: (of_variance, variance(images))}
    predicted |= {
        LEFT: (theory.remaining_weight(MOMENTUM, UPDATES), 1 / (UPDATES + 1)),  # one share of many
        NOISE: (noise, mean(SMALL * UPDATES)),  # all batches alike
    }
    return {name: Prediction(float(value), rival=float(rival)) for name, (value, rival) in predicted.items()}


def mean_error(images: Any, moments: Mapping[str, Any]) -> Any:
    """Return the error of the mean of so many images, over channels; from the share of variance between images."""
    return (float(np.mean(moments["means"])) / images) ** 0.5


def variance_error(images: Any, moments: Mapping[str, Any]) -> Any:
    """Return the error of the variance, over channels."""
    squares, means, shared, fourth = (
        np.array(moments[part])[:, None] for part in ("squares", "means", "shared", "fourth")
    )
    each = theory.relative_error_of_variance_of_any_clusters(
        np.atleast_1d(images), squares=squares, means=means, shared=shared, fourth=fourth
    )
    return np.squeeze(np.sqrt(np.mean(each**2, 0)))
