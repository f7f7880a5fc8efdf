r"""Correlated values in one batch: nodes of a graph, positions of an image, cells of one donor.

Model: the m values of a batch have a common mean and variance sigma^2, any two of them have the correlation rho, and
batches are independent. Under uniform correlation a value is a part shared by its batch plus one of its own; the
batch mean absorbs the shared part, and the batch variance never sees it.

1. :math:`Var(\bar x) = 1^T \Sigma 1 / m^2 = \sigma^2 (1 + (m-1) \rho) / m`.
2. :math:`\sum_i (x_i - \bar x)^2 = \sum_i (x_i - \mu)^2 - m (\bar x - \mu)^2`, whose expectation is
   :math:`m \sigma^2 - m Var(\bar x) = (m-1)(1-\rho) \sigma^2`.
3. Bessel's variance, which enters `running_var`, therefore expects :math:`(1-\rho) \sigma^2`, and the population
   variance, which normalises in training, :math:`(1-\rho) \sigma^2 (m-1)/m`.

Only expectations of quadratic forms are used: no distribution is assumed, and the correlation need not be uniform:
with `mean_correlation` for rho everything in this file is exact for any correlation matrix.
Idealised: equal means and variances of all values; batches independent of each other.

Reference: Walsh 1947, "Concerning the effect of intraclass correlation on certain significance tests".
"""

from __future__ import annotations

import numpy as np

from normwise.theory.number import Array, Number


def mean_correlation(correlations: Array) -> float:
    """Return the mean of the off-diagonal entries of a correlation matrix `(m, m)`: the rho of this file."""
    count = len(correlations)
    return float((correlations.sum() - np.trace(correlations)) / (count * (count - 1)))


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


def train_mean_square(population_variance: Number, eps: Number = 0.0) -> Number:
    """Return the mean squared output in training, `s^2 / (s^2 + eps)`, of a batch of population variance s^2.

    An identity, for every batch: the output's rms is 1 at any correlation. What training divides by is the batch's
    own variance, so a small expected variance does not make the output explode: not here, but in evaluation.
    """
    return population_variance / (population_variance + eps)


def eval_inflation(correlation: Number) -> Number:
    """Return the output variance in evaluation, `1 / (1 - rho)`: sigma^2 over the converged `running_var`.

    Idealised: `running_var` equals its expectation; its noise adds a little, since E[1/v] > 1/E[v].

    >>> print(round(eval_inflation(0.99) ** 0.5, 6))  # rms
    10.0
    """
    return 1 / (1 - correlation)


def merged_variance(variance: Number, correlation: Number, count: Number, batches: Number) -> Number:
    r"""Return the expectation of Bessel's variance of k batches merged exactly, within plus between.

    Merging exactly gives the variance of all k m values at once, and of their pairs only those of one batch are
    correlated: the mean correlation is :math:`\bar\rho = \rho (m-1)/(km-1)`, and step 3 gives
    :math:`(1 - \bar\rho) \sigma^2`. One batch: :math:`1-\rho`. Many: sigma^2, however strong the correlation.

    >>> print(merged_variance(1.0, 0.99, 32, 1), round(merged_variance(1.0, 0.99, 32, 1000), 3))
    0.010000000000000009 0.999
    """
    return batch_variance(variance, correlation * (count - 1) / (batches * count - 1))


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


def total_variance(batch_variance: Number, variance_of_batch_mean: Number, count: Number) -> Number:
    """Return sigma^2 from what batches show: `B (m - 1) / m + V`, B the mean Bessel variance, V that of the means.

    Inside one batch rho cannot be seen: the shared part is a constant there. Across batches it can, and
    `1 - B / sigma^2` is rho.
    """
    return batch_variance * (count - 1) / count + variance_of_batch_mean
