r"""Sequences: statistics pooled over time, or one set for each step.

n sequences of at most T steps; step t has n_t values (sequences still alive), mean :math:`\mu_t`, variance
:math:`s_t^2`. Pooled statistics are those of the mixture of the steps with weights n_t.

Idealised in `pooled_output` and `linear_drift_bias`: enough sequences that sample moments are the true ones. What a
batch of finite size leaves is `drawn_bias` and `drawn_output`; a step's own mean errs by `timewise_error`.

Reference: Cooijmans et al. 2017, "Recurrent batch normalization" (statistics of each step).
"""

from __future__ import annotations

import math
from typing import NamedTuple

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


class Scatter(NamedTuple):
    r"""How the sums of a batch's standardised values :math:`z = (x - \bar\mu)/\sigma` vary from batch to batch.

    With N values, n_t of them at step t, :math:`A = \sum z`, :math:`H = \sum (z^2 - 1)` and S_t the sum of z at step t.

    Arguments:
        values, counts: E N and E n_t
        mean, square, mean_square: Var A, Var H, Cov(A, H)
        mean_values, square_values: Cov(A, N), Cov(H, N); 0 where lengths are the same in every batch
        step_square: Cov(S_t, H)
        counts_mean: Cov(n_t, A); 0 as well

    """

    values: Number
    counts: Array
    mean: Number
    square: Number
    mean_square: Number
    mean_values: Number
    square_values: Number
    step_square: Array
    counts_mean: Array


def normal_scatter(steps: MeanVariance, counts: Array) -> Scatter:
    r"""Return the scatter of independent normal values, n_t at step t in every batch.

    With :math:`d_t = (\mu_t - \bar\mu)/\sigma` and :math:`r_t = s_t^2/\sigma^2` each z has Var z = r,
    Cov(z, z^2) = 2 d r and Var z^2 = 4 d^2 r + 2 r^2.
    """
    d, r = pooled_output(steps, counts)
    zero = np.zeros(len(counts))
    both = 2 * counts * d * r
    return Scatter(
        counts.sum(), counts, counts @ r, counts @ (4 * d**2 * r + 2 * r**2), both.sum(), 0.0, 0.0, both, zero
    )


def drawn_bias(bias: Array, scatter: Scatter) -> Array:
    r"""Return the bias b_t of `pooled_output` as batches of finite size leave it, to order 1/N.

    1. A batch has the mean m = A/N and the variance V = 1 + H/N - m^2 of z, and leaves :math:`\sum y = (S_t - n_t m)
       V^{-1/2}` at step t; over many batches the mean output is :math:`E[\sum y] / E[n_t]`.
    2. With N = E N + \delta, to second order :math:`m = A/EN - A \delta/(EN)^2` and
       :math:`V^{-1/2} = 1 - \tfrac12 (H/EN - H \delta/(EN)^2 - A^2/(EN)^2) + \tfrac38 H^2/(EN)^2`.
    3. First-order terms have mean 0. Of the second-order ones remain, divided by E n_t,

    .. math:: b_t + \frac{\tfrac12 Cov(A,H) + Cov(A,N) + b_t (\tfrac12 Cov(H,N) + \tfrac12 Var A + \tfrac38 Var H)}
       {(EN)^2} - \frac{\tfrac12 Cov(S_t,H) + Cov(n_t,A)}{EN \, En_t}

    A covariance of sums grows as the batch: the correction falls as 1/N, the neglected rest as 1/N^2.

    Of normal values of one variance r within steps it is :math:`b_t (1 + r (1 - \tfrac34 r)/N)`.

    >>> counts = np.full(20, 64)
    >>> scatter = normal_scatter(MeanVariance(0.3 * np.arange(20), np.ones(20)), counts)
    >>> print(drawn_bias(linear_drift_bias(np.arange(20), 20, 0.3), scatter)[0].round(4))
    -1.4266
    """
    common = scatter.mean_square / 2 + scatter.mean_values
    each = scatter.square_values / 2 + scatter.mean / 2 + 3 * scatter.square / 8
    own = scatter.step_square / 2 + scatter.counts_mean
    return bias + (common + bias * each) / scatter.values**2 - own / (scatter.values * scatter.counts)


def drawn_output(steps: MeanVariance, counts: Array) -> MeanVariance:
    r"""Return `pooled_output` as batches of independent normal values leave it, to order 1/N.

    The mean is `drawn_bias`, the variance the expectation of the unbiased one, v_t/V. With V of `drawn_bias`,
    E[1/V] = 1 + (Var A + Var H)/N^2 and Cov(v_t, V) = 2 r_t^2/N, so that it is
    :math:`r_t (1 + (Var A + Var H)/N^2 - 2 r_t/N)`. Of one step alone this is 1 + 1/N, where N/(N - 1) is exact.

    >>> print(round(float(drawn_output(MeanVariance(np.zeros(1), np.ones(1)), np.array([100])).variance[0]), 4))
    1.01
    """
    output, scatter = pooled_output(steps, counts), normal_scatter(steps, counts)
    spread = 1 + (scatter.mean + scatter.square) / scatter.values**2 - 2 * output.variance / scatter.values
    return MeanVariance(drawn_bias(np.asarray(output.mean), scatter), output.variance * spread)


def drawn_timewise_error(sequences: int, share: float, least: int = 1) -> float:
    r"""Return `timewise_error` in root mean square where each of the sequences has the step with a chance `share`.

    The count is binomial; batches of fewer than `least` values at the step are not counted:
    :math:`\sqrt{E[1/n_t | n_t >= least]}`, a finite sum, exact.

    >>> print(drawn_timewise_error(4, 1.0), round(drawn_timewise_error(128, 0.2), 3), round(timewise_error(25.6), 3))
    0.5 0.201 0.198
    """
    if share == 1:
        return float(timewise_error(sequences))
    counts = np.arange(least, sequences + 1)
    ways = np.array([math.lgamma(k + 1) + math.lgamma(sequences - k + 1) for k in counts.tolist()])
    logarithms = counts * math.log(share) + (sequences - counts) * math.log1p(-share) - ways
    chances = np.exp(logarithms - logarithms.max())
    return float((chances @ (1 / counts) / chances.sum()) ** 0.5)


def timewise_rounding(count: int, mean: float, digits: int = 24) -> float:
    r"""Return a bound on what rounding to so many binary digits leaves of a step's mean output, of `count` normal values.

    The step's values have variance 1 and this mean; the bound is on the expectation of the mean's size.

    1. In whatever order :math:`(x - m)/s` is computed, with the step's own m and s, at most n roundings of m and one
       each of the factor 1/s, the product and the shift are off by at most u mean|x|/s, :math:`u = 2^{-digits}`, and
       that of the difference by u mean|y|, at most u.
    2. mean|x|/s is at most |m|/s + 1. m and s are independent, E|m| is at most :math:`\sqrt{\mu^2 + 1/n}`, and
    3. :math:`E[1/s] = \sqrt{n/2}\, \Gamma(n/2 - 1)/\Gamma((n - 1)/2)`, n of 3 or more.

    >>> print(f"{timewise_rounding(4, 5.7):.0e}")
    4e-06
    """
    inverse = (count / 2) ** 0.5 * math.exp(math.lgamma(count / 2 - 1) - math.lgamma((count - 1) / 2))
    return 2.0**-digits * ((count + 3) * ((mean**2 + 1 / count) ** 0.5 * inverse + 1) + 1)


def timewise_error(counts: Number) -> Number:
    r"""Return the standard error of a step's own mean, in that step's standard deviations: :math:`1/\sqrt{n_t}`.

    It is the price of time-wise statistics: no bias, but late steps of uneven sequences have few values.
    """
    return counts**-0.5
