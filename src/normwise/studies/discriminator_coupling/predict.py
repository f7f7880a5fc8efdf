"""What theory says of shifts, gradients and Lipschitz constants; each is told apart from what another norm does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.discriminator_coupling.games import KINDS
from normwise.studies.estimate import root_mean_square
from normwise.studies.study import ROUNDING, Prediction
from normwise.theory import adversarial as theory
from normwise.theory.mixture import MeanVariance

FADED = 0.25  # of the contrast
_LINEAR = {kind: f"linear discriminator, {kind}" for kind in ("joint BN", "separate BN")}
_SHIFTED = "root mean square shift of real logits when the fakes of the batch are exchanged"
_THROUGH = "norm of the fakes' gradient through the statistics, over that of the direct gradient"
SHIFT, SHIFT_APART = (f"{start}: {_SHIFTED}" for start in _LINEAR.values())
FRESH = (
    f"{_LINEAR['joint BN']}: variance of the shift of real logits when fakes of the same distribution are drawn anew"
)
THROUGH, THROUGH_APART = (f"{start}: {_THROUGH}" for start in _LINEAR.values())
STEEPEST = "Lipschitz constant of one batch norm over its batch"
SPECTRAL = "Lipschitz constant of one layer under spectral norm"
FADING = f"discriminator of digits, joint BN: Lipschitz constant at contrast {FADED:g}, over that at contrast 1"
UNCOUPLED = {
    kind: f"discriminator of digits, {kind}: root mean square shift of real logits when the fakes of the batch are "
    "exchanged, over the logits' spread"
    for kind in KINDS
    if kind != "joint BN"
}


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return the prediction of every quantity from digits' features, weights and variances."""
    real, fake, other, weight = (np.array(given[name]) for name in ("real", "fake", "other", "weight"))
    reals, fakes, others, eps = moments(real), moments(fake), moments(other), given["eps"]
    shift, alone = (
        root_mean_square(theory.logit_shift(real, weight, reals, fakes, others, share=share, eps=eps))
        for share in (0.5, 1.0)
    )
    batch = given["batch drawn anew"]
    fresh = float((theory.fresh_fakes_variance(real, reals, reals, batch, eps=eps) @ weight**2).mean())
    through, through_alone = (
        theory.gradient_through_statistics(weight, reals, fakes, share=share, eps=eps) for share in (0.5, 0.0)
    )
    slopes = theory.film_coefficients(1.0, 0.0, theory.joint_moments(reals, fakes), eps)[0]
    steeper = theory.fading_steepness(FADED, np.array(given["variances of a discriminator's features"]), eps)
    return {
        SHIFT: Prediction(shift, rival=0.0, **ROUNDING),
        SHIFT_APART: Prediction(alone, claim=0.0, rival=shift, identity=True),
        FRESH: Prediction(fresh, rival=float((weight**2).sum()) / batch),  # as if only the mean moved
        THROUGH: Prediction(through, rival=0.5, **ROUNDING),
        THROUGH_APART: Prediction(through_alone, rival=through, **ROUNDING),
        STEEPEST: Prediction(float(np.max(slopes)), rival=1.0, **ROUNDING),
        SPECTRAL: Prediction(1.0, claim=1.0, rival=given["norm of raw weights"], identity=True, **ROUNDING),
        FADING: Prediction(
            float(steeper.mean()),
            rival=1.0,
            finite_size=float(np.ptp(steeper, axis=1).mean()),
            reason="which features the steepest direction goes through is left open: the ratio is that of the average "
            "feature, give or take the whole range between the least and the most steepened one",
        ),
        **{
            name: Prediction(0.0, claim=0.0, rival=given["shift in a joint batch"], identity=True)
            for name in UNCOUPLED.values()
        },
    }


def moments(x: np.ndarray) -> MeanVariance:
    """Return mean and variance of features `(n, c)`."""
    return MeanVariance(x.mean(0), x.var(0))


def moved(given: Mapping[str, np.ndarray], move: float, share: float) -> float:
    """Return the shift of real logits, root mean square, when the fakes' mean moves by deviations of the reals."""
    real, fake = moments(given["real"]), moments(given["fake"])
    other = MeanVariance(fake.mean + move * real.variance**0.5, fake.variance)
    return root_mean_square(theory.logit_shift(given["real"], given["weight"], real, fake, other, share=share))
