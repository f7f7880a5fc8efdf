"""What theory says of a future input, of what statistics tell of it, and of a batch's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.causality.influence import SEQUENCES, STEPS
from normwise.studies.causality.tosses import TOSSES
from normwise.studies.study import Prediction
from normwise.theory import causality as theory

BATCH = f"{SEQUENCES} sequences of {STEPS} steps"
_INFLUENCE = "root mean square derivative of an output by a future input"
FUTURE = f"{_INFLUENCE}, {BATCH}: pooled"
FUTURE_LATER = f"{_INFLUENCE}: pooled, in evaluation"
FUTURE_TIMEWISE = f"{_INFLUENCE}: time-wise"
FUTURE_LAYER = f"{_INFLUENCE}: layer norm"
OTHERS = f"root mean square derivative by the same step of another of {SEQUENCES} sequences: time-wise"
ONE = "derivative of the first output by the last input, in one batch: pooled"
SHIFT = f"shift of an output from training to evaluation, {BATCH}: pooled"
SHIFT_LAYER = f"shift of an output from training to evaluation, {BATCH}: layer norm"
GAIN = f"nats gained on tosses of a coin from {TOSSES} tokens' statistics: pooled"
GAIN_LAYER = f"nats gained on tosses of a coin from {TOSSES} tokens' statistics: layer norm"
PRICE = "nats lost on tosses in evaluation by the pooled model"
REPETITION = "probability of a repetition, to the pooled model in evaluation"
_ROUNDING = "rounding of sums over a batch, in double precision: as many units in the last place as there are values"
_LEFT = (
    "what training has left to gain, by the gradients of the logits where it ended: g²/(w q (1 - q)) bounds the excess"
)
_BELIEF = "what training has left to gain bounds the distance of the model's probability from the right one (Pinsker)"


def gaussian(count: Any) -> Any:
    """Return the influence among so many Gaussian values, whose mean fourth moment is known for every number."""
    return theory.rms_influence(count, 3 * (count - 1) / (count + 1))


def derivatives(given: Mapping[str, Any]) -> np.ndarray:
    """Return the derivatives in the one batch of the pooled norm, `(n, t, n, t)`."""
    x = np.asarray(given["x"])
    return theory.jacobian(x.ravel(), np.zeros(x.size), given["eps"]).reshape(2 * x.shape)


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return influences in standard deviations, and what they are worth to a model of coin tosses."""
    values = SEQUENCES * STEPS
    pooled, leak, shift = float(gaussian(values)), theory.composition_leak(TOSSES), float(theory.rms_shift(values))
    row = derivatives(given)[0, 0]
    alone = -1 / (values * (np.var(given["x"]) + given["eps"]) ** 0.5)  # by the mean, without the deviation
    belief, off = theory.believed_repetition(TOSSES), theory.belief_error(given["left, pooled"], TOSSES)
    price, dearest = (float(theory.price_of_belief(q)) for q in (belief, belief - off))
    return {
        FUTURE: Prediction(pooled, rival=1 / values),
        FUTURE_LATER: Prediction(0.0, rival=pooled),
        FUTURE_TIMEWISE: Prediction(0.0, rival=pooled),
        FUTURE_LAYER: Prediction(0.0, claim=0.0, rival=pooled, identity=True),
        OTHERS: Prediction(float(gaussian(SEQUENCES)), rival=pooled),
        ONE: Prediction(
            float(row[-1, -1]),
            rival=float(alone),
            finite_size=values * float(np.finfo(float).eps * abs(row).max()),
            reason=_ROUNDING,
        ),
        SHIFT: Prediction(shift, rival=values**-0.5),  # the mean's error alone
        SHIFT_LAYER: Prediction(0.0, claim=0.0, rival=shift, identity=True),
        GAIN: Prediction(leak, rival=0.0, finite_size=given["left, pooled"], reason=_LEFT),
        GAIN_LAYER: Prediction(0.0, claim=0.0, rival=leak, finite_size=given["left, layer norm"], reason=_LEFT),
        PRICE: Prediction(price, rival=0.0, finite_size=dearest - price, reason=_BELIEF),
        REPETITION: Prediction(belief, rival=0.5, finite_size=off, reason=_BELIEF),
    }
