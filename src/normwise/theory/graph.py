r"""Correlated values in one batch: nodes of a graph, positions of an image, cells of one donor.

Model: the m values of a batch have a common mean and variance sigma^2, any two of them have the correlation rho, and
batches are independent. Under uniform correlation a value is a part shared by its batch plus one of its own; the
batch mean absorbs the shared part, and the batch variance never sees it.

1. :math:`Var(\bar x) = 1^T \Sigma 1 / m^2 = \sigma^2 (1 + (m-1) \rho) / m`.
2. :math:`\sum_i (x_i - \bar x)^2 = \sum_i (x_i - \mu)^2 - m (\bar x - \mu)^2`, whose expectation is
   :math:`m \sigma^2 - m Var(\bar x) = (m-1)(1-\rho) \sigma^2`.
3. Bessel's variance, which enters `running_var`, therefore expects :math:`(1-\rho) \sigma^2`, and the population
   variance, which normalises in training, :math:`(1-\rho) \sigma^2 (m-1)/m`.

Only expectations of quadratic forms are used, unless a function says Gaussian: no distribution is assumed, and the
correlation need not be uniform: with the mean of the off-diagonal entries for rho everything is exact for any
correlation matrix. Idealised: equal means and variances of all values; batches independent of each other.

Reference: Walsh 1947, "Concerning the effect of intraclass correlation on certain significance tests".
"""

from __future__ import annotations

import numpy as np

from normwise.theory.number import Number


def smallest_correlation(count: Number) -> Number:
    """Return the lower bound of a mean correlation, `-1 / (m - 1)`: below it Var(batch mean) would be negative."""
    return -1 / (count - 1)


def largest_overestimate(count: Number) -> Number:
    """Return the most by which Bessel's variance exceeds sigma^2, in expectation: `1 - smallest_correlation`, `m / (m - 1)`.

    The population variance, which normalises in training, exceeds sigma^2 in expectation at no correlation at all.
    """
    return count / (count - 1)


def variance_of_batch_mean(variance: Number, correlation: Number, count: Number) -> Number:
    """Return the variance of the batch mean between batches, `sigma^2 (1 + (m - 1) rho) / m` (step 1)."""
    return variance * (1 + (count - 1) * correlation) / count


def batch_variance(variance: Number, correlation: Number) -> Number:
    """Return the expectation of Bessel's batch variance, `(1 - rho) sigma^2` (step 3).

    It is also where `running_var` goes: an average of batch variances, as every framework keeps, has this mean.
    """
    return variance * (1 - correlation)


def population_batch_variance(variance: Number, correlation: Number, count: Number) -> Number:
    """Return the expectation of the population variance, `(1 - rho) sigma^2 (m - 1) / m` (step 3)."""
    return batch_variance(variance, correlation) * (count - 1) / count


def training_mean_square(correlation: float, count: int, eps: float) -> float:
    r"""Return the expected mean squared output in training, of a variance of 1, exactly for Gaussian values.

    1. A batch of population variance v leaves with mean square :math:`v / (v + eps)`, an identity: the rms is 1 at any
       correlation, for what training divides by is the batch's own variance. Only eps takes something.
    2. :math:`v = (1-\rho) X / m`, X chi-square of m - 1 degrees of freedom (a common part changes no deviation), and
       :math:`E[v/(v+eps)] = 1 - eps E[1/(v+eps)]`, an integral (`_mean_reciprocal`).
    3. To first order in eps: :math:`1 - \frac{eps}{1-\rho} \frac{m}{m-3}`.

    >>> print(round(training_mean_square(0.99, 32, 1e-5), 5))
    0.9989
    """
    return 1 - eps * _mean_reciprocal((1 - correlation) / count, count - 1, eps)


def eval_inflation(correlation: Number) -> Number:
    """Return the output variance in evaluation, `1 / (1 - rho)`: sigma^2 over the converged `running_var`.

    Idealised: the running statistics equal their expectations, as after infinitely many batches; for finitely many see
    `evaluation_mean_square`.

    >>> print(round(eval_inflation(0.99) ** 0.5, 6))  # rms
    10.0
    """
    return 1 / (1 - correlation)


def evaluation_mean_square(correlation: float, count: int, batches: int, eps: float) -> float:
    r"""Return the expected mean squared output in evaluation after k batches, averaged alike, exactly for Gaussian values.

    1. A new value of variance 1 is independent of the running mean, whose variance is V/k, V that of a batch mean:
       :math:`E(x - \mu_r)^2 = 1 + V/k`.
    2. The running variance is the mean of k Bessel variances, :math:`v = (1-\rho) X / N` with X chi-square of
       :math:`N = k (m-1)` degrees of freedom, and independent of the running mean, as deviations are of means.
    3. The product of both: :math:`(1 + V/k) E[1/(v+eps)]`, the second an integral (`_mean_reciprocal`); at eps 0 it is
       :math:`\frac{1}{1-\rho} \frac{N}{N-2}`: a noisy variance inflates beyond `eval_inflation`.

    >>> print(round(evaluation_mean_square(0.9, 32, 80, 0.0), 3), round(evaluation_mean_square(0.9, 32, 8000, 0.0), 3))
    10.121 10.001
    """
    freedom = batches * (count - 1)
    reciprocal = _mean_reciprocal((1 - correlation) / freedom, freedom, eps)
    return (1 + variance_of_batch_mean(1.0, correlation, count) / batches) * reciprocal


def _mean_reciprocal(scale: float, freedom: int, eps: float) -> float:
    r"""Return :math:`E[1/(s X + eps)]`, X chi-square of :math:`\nu \ge 3` degrees of freedom: `1 / (s (freedom - 2))` at eps 0.

    1. :math:`1/r = \int_0^\infty e^{-tr} dt` and :math:`E e^{-tX} = (1+2t)^{-\nu/2}` make it
       :math:`\frac{1}{s} \int_0^\infty e^{-t eps/s} (1+2t)^{-\nu/2} dt`.
    2. In :math:`t = e^u` the integrand is analytic and bounded for :math:`|Im\, u| < \pi/2` and vanishes exponentially at
       both ends: the error of the trapezoidal rule with step 1/4 is of order :math:`e^{-4\pi^2}`, rounding.
    """
    step, offset = 0.25, eps / scale
    t = np.exp(np.arange(-80.0, 120.0, step)) / (freedom + offset)
    return float((t * np.exp(-t * offset - freedom / 2 * np.log1p(2 * t))).sum() * step / scale)


def mixed_correlation(correlation: Number, count: Number, batches: Number) -> Number:
    r"""Return the mean correlation of k batches put together as one: :math:`\bar\rho = \rho (m-1)/(km-1)`.

    Of the pairs of all k m values only those of one batch are correlated. Mixing neighbourhoods in a batch therefore
    removes a correlation nearly as 1/k.
    """
    return correlation * (count - 1) / (batches * count - 1)


def merged_variance(variance: Number, correlation: Number, count: Number, batches: Number) -> Number:
    r"""Return the expectation of Bessel's variance of k batches merged exactly, within plus between.

    Merging exactly gives the variance of all k m values at once: step 3 with `mixed_correlation`. One batch:
    :math:`1-\rho`. Many: sigma^2, however strong the correlation.

    >>> print(merged_variance(1.0, 0.99, 32, 1), round(merged_variance(1.0, 0.99, 32, 1000), 3))
    0.010000000000000009 0.999
    """
    return batch_variance(variance, mixed_correlation(correlation, count, batches))


def exponentially_merged_variance(
    variance: Number, correlation: Number, count: Number, momentum: Number, *, unbiased: bool = True
) -> Number:
    r"""Return the limit of the expected running variance that keeps the variance between batches.

    The update is that of a mixture of the old distribution and the batch,
    :math:`v \leftarrow (1-a) v + a s^2 + a (1-a) (\bar x - \mu_r)^2` with running mean :math:`\mu_r`.

    1. Let V be the variance of the batch mean. That of :math:`\mu_r` tends to :math:`a V / (2-a)`, and the new batch
       is independent of it: :math:`E(\bar x - \mu_r)^2 = V + a V/(2-a) = 2 V/(2-a)`.
    2. At the fixed point :math:`v = E s^2 + 2 (1-a) V / (2-a)`.
    3. With s^2 the population variance, :math:`E s^2 = \sigma^2 - V` and :math:`v = \sigma^2 - a V/(2-a)`: what is
       missing is exactly the error of the running mean, and vanishes with a.
    4. With Bessel's (`unbiased`, torch's convention) :math:`(1-\rho) \sigma^2 / m` is added.

    Idealised: independent batches of one distribution, after many updates.
    """
    between = variance_of_batch_mean(variance, correlation, count)
    within = batch_variance(variance, correlation) if unbiased else variance - between
    return within + 2 * (1 - momentum) / (2 - momentum) * between
