r"""Sequences: statistics pooled over time, or one set for each step.

n sequences of at most T steps; step t has n_t values (sequences still alive), mean :math:`\mu_t`, variance
:math:`s_t^2`. Pooled statistics are those of the mixture of the steps with weights n_t.

Idealised: enough sequences that sample moments are the true ones; the error that is left, of order
:math:`1/\sqrt{n_t}`, is `timewise_error`.

Reference: Cooijmans et al. 2017, "Recurrent batch normalization" (statistics of each step).
"""

from __future__ import annotations

import numpy as np

from normwise.theory.mixture import MeanVariance, mixture
from normwise.theory.number import Array, Number


def alive(lengths: Array) -> Array:
    """Return n_t, how many of the sequences have a step t, for every step up to the longest.

    >>> print(alive(np.array([1, 3, 3])))
    [3 2 2]
    """
    return np.count_nonzero(lengths[:, None] > np.arange(int(np.max(lengths))), axis=0)


def pooled_output(steps: MeanVariance, counts: Array, eps: float = 0.0) -> MeanVariance:
    r"""Return mean and variance, `(t,)` each, of the output at every step under pooled statistics.

    Pooled mean :math:`\bar\mu = \sum n_t \mu_t / \sum n_t`; pooled variance = the mean of the s_t^2 plus that of
    :math:`(\mu_t - \bar\mu)^2`, both weighted by n_t. Step t is left with the bias
    :math:`(\mu_t - \bar\mu)/\sigma` and the variance :math:`s_t^2/\sigma^2`, where time-wise statistics leave 0 and 1.

    >>> drift = MeanVariance(0.3 * np.arange(20), np.ones(20))
    >>> print(pooled_output(drift, alive(np.arange(5, 21))).mean.round(2)[[0, -1]])  # lengths 5 to 20
    [-1.13  2.13]
    """
    pooled = mixture(counts, steps)
    scale = (pooled.variance + eps) ** 0.5
    return MeanVariance((steps.mean - pooled.mean) / scale, steps.variance / scale**2)


def linear_drift_bias(step: Number, steps: Number, drift: Number, variance: Number = 1.0) -> Number:
    r"""Return the pooled bias at one step of equal-length sequences whose mean moves by `drift` a step.

    1. The mean of 0, ..., T-1 is (T-1)/2 and their population variance (T^2-1)/12.
    2. `pooled_output` becomes :math:`\delta (t - (T-1)/2) / \sqrt{s^2 + \delta^2 (T^2-1)/12}`.

    For strong drift the last step tends to :math:`\sqrt{3 (T-1)/(T+1)}`: below 1.73 standard deviations always.

    >>> print(round(linear_drift_bias(0, 20, 0.3), 2))
    -1.43
    """
    return drift * (step - (steps - 1) / 2) / (variance + drift**2 * (steps**2 - 1) / 12) ** 0.5


def timewise_error(counts: Number) -> Number:
    r"""Return the standard error of a step's own mean, in that step's standard deviations: :math:`1/\sqrt{n_t}`.

    It is the price of time-wise statistics: no bias, but late steps of uneven sequences have few values.
    """
    return counts**-0.5
