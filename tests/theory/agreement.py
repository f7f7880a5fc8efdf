"""Does a prediction agree with a simulation? It must, within standard errors; its rival, by the same measure, not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

STANDARD_ERRORS = 4.5  # two-sided chance 7e-6 a number: with a hundred numbers and a fixed seed, never by luck


def assert_agrees(
    replicates: NDArray[np.float64], predicted: ArrayLike, *, rival: ArrayLike, allowance: ArrayLike = 0.0
) -> None:
    """Hold the mean of independent replicates `(r, ...)` against `predicted` and `rival`, of shape `(...)`.

    The tolerance is the standard error of the mean of the replicates, times `STANDARD_ERRORS`, plus `allowance`, a
    term the theory itself states for what it leaves out. Every entry must agree; some entry must reject the rival.
    """
    mean = replicates.mean(0)
    error = replicates.std(0, ddof=1) / len(replicates) ** 0.5
    tolerance = STANDARD_ERRORS * error + allowance
    off = np.abs(mean - predicted)
    assert (off <= tolerance).all(), f"measured {mean} +- {error}, predicted {predicted}, tolerance {tolerance}"
    assert (np.abs(mean - rival) > tolerance).any(), f"measured {mean} +- {error} cannot tell {predicted} from {rival}"
