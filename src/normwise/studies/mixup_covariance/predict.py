"""How much less everything varies once samples are mixed; the source scales all eigenvalues alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.study import Prediction
from normwise.theory import mixup as theory
from normwise.theory.small_batch import relative_error_of_variance

WEIGHT, ALPHA = 0.3, 1.0  # of the second image: fixed, or from Beta(alpha, alpha)
FACTOR = f"covariance of digits mixed {1 - WEIGHT:g} : {WEIGHT:g}, over that of digits"
MEAN_FACTOR = f"covariance under Beta({ALPHA:g}, {ALPHA:g})"
TOP = "largest eigenvalue of the Hessian, over that on clean digits"
SECOND = "second eigenvalue of the Hessian, over that on clean digits"
DENSE, CONVOLUTIONAL = (
    f"running_var of the first BN, {kind}, over the clean variance" for kind in ("dense", "convolutional")
)
INFLATED = "variance of the first BN's output on clean digits, in evaluation"
RECALIBRATED = "the same after recalibration on clean digits"
_SCATTER = "1/running_var lies above 1 over its mean, on average, by the squared relative error of running_var"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return every ratio; what no training can change is known to rounding."""
    factor, eps = theory.mean_covariance_factor(ALPHA), np.array(given["eps over the variance"])
    covariance, mean, still = np.array(given["covariance"]), np.array(given["mean"]), given["share of the mean image"]
    mixed, clean = (theory.hessian_spectrum(covariance, mean, f) for f in (factor, 1.0))
    fixed, inflated = theory.covariance_factor(WEIGHT), float(theory.eval_inflation(factor, eps).mean())
    scatter = float(relative_error_of_variance(given["batch"]) ** 2 / given["batches"])
    return {
        FACTOR: Prediction(fixed, claim=fixed, rival=1.0),
        MEAN_FACTOR: Prediction(factor, claim=factor, rival=theory.covariance_factor(0.5)),
        TOP: Prediction(float(mixed[0] / clean[0]), claim=factor),
        SECOND: Prediction(float(mixed[1] / clean[1]), claim=factor, rival=1.0),
        DENSE: Prediction(factor, claim=factor, rival=1.0),
        CONVOLUTIONAL: Prediction(factor * (1 - still) + still, claim=factor),
        INFLATED: Prediction(inflated, rival=1.0, finite_size=inflated * scatter, reason=_SCATTER),
        RECALIBRATED: Prediction(float(theory.recalibrated_variance(given["digits"], eps).mean()), rival=1.0),
    }
