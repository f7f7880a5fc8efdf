r"""Small batches: how wrong the statistics of a few values are, and what a running average makes of them.

Errors are relative: of a mean in standard deviations of the values, of a variance in units of that variance.

1. m independent values: :math:`Var(\bar x) = \sigma^2 / m`, and of Bessel's variance
   :math:`Var(s^2) = \sigma^4 (2/(m-1) + \kappa/m)` with :math:`\kappa` the excess kurtosis (Cramer 1946, 27.4).
2. N clusters (images, sequences, graphs) of L values, intra-class correlation rho, n = N L: the design effect
   :math:`1 + (L-1)\rho` divides the size for a MEAN (Kish 1965, 5.4).
3. For a VARIANCE of Gaussian values :math:`Var(\sum (x-\mu)^2) = 2 \sum_{ij} \Sigma_{ij}^2`: correlations enter
   squared, and the design effect is :math:`1 + (L-1)\rho^2`.
4. An exponential average of weight a (torch's `momentum`) over k updates weighs update j by :math:`a (1-a)^{k-j}`
   and its initial value by :math:`(1-a)^k`.

Idealised: clusters alike and independent; values Gaussian where no kurtosis is asked for.
"""

from __future__ import annotations

import math

from normwise.theory.number import Number


def relative_error_of_mean(count: Number) -> Number:
    """Return the standard error of a mean, in standard deviations: `1 / sqrt(m)`; for any distribution."""
    return count**-0.5


def relative_error_of_variance(count: Number, excess_kurtosis: Number = 0.0) -> Number:
    """Return the standard error of Bessel's variance over the variance: `sqrt(2 / (m - 1) + kurtosis / m)`.

    Exact for independent values of any distribution. `excess_kurtosis` is 0 for Gaussian values, 2.41 for
    Gaussian ones after ReLU, 6 for exponential ones, -1.2 for uniform ones.

    >>> print(round(relative_error_of_variance(64), 3), round(relative_error_of_variance(64, 6.0), 3))
    0.178 0.354
    """
    return (2 / (count - 1) + excess_kurtosis / count) ** 0.5


def effective_size_of_mean(count: Number, cluster: Number, correlation: Number) -> Number:
    """Return how many independent values `count` values are worth for a mean: `n / (1 + (L - 1) rho)`; exact.

    >>> print(round(effective_size_of_mean(32 * 64, 64, 0.1), 1))  # 32 images of 64 positions
    280.5
    """
    return count / (1 + (cluster - 1) * correlation)


def effective_size_of_variance(count: Number, cluster: Number, correlation: Number) -> Number:
    """Return the same for a variance: `n / (1 + (L - 1) rho^2)`.

    Idealised: Gaussian values and many clusters (the mean's own error, of order 1/N, is dropped); for a few clusters
    take `relative_error_of_variance_of_gaussian_clusters`.

    >>> print(round(effective_size_of_variance(32 * 64, 64, 0.1), 1))
    1256.4
    """
    return count / (1 + (cluster - 1) * correlation**2)


def relative_error_of_variance_of_gaussian_clusters(clusters: Number, size: Number, correlation: Number) -> Number:
    r"""Return the standard error of the batch variance over its own expectation, exactly, for Gaussian clusters.

    1. The covariance of the n = N L values has the eigenvalues :math:`b = 1 + (L-1)\rho` (N times, on cluster means)
       and :math:`w = 1 - \rho` (N (L - 1) times, inside clusters); subtracting the batch mean removes one b.
    2. A sum of squares with eigenvalues e has mean :math:`\sum e` and variance :math:`2 \sum e^2`.
    3. Hence :math:`\sqrt{2 ((N-1) b^2 + N (L-1) w^2)} / ((N-1) b + N (L-1) w)`.

    One cluster (N = 1: a correlation that all values share) gives :math:`\sqrt{2/(m-1)}` at ANY rho: a common part
    shrinks the batch variance, yet does not make it noisier.
    """
    between, within = 1 + (size - 1) * correlation, 1 - correlation
    inner = clusters * (size - 1)
    deviation = (2 * ((clusters - 1) * between**2 + inner * within**2)) ** 0.5
    return deviation / ((clusters - 1) * between + inner * within)


def relative_error_of_variance_of_any_clusters(
    clusters: Number, *, squares: Number, means: Number, shared: Number, fourth: Number
) -> Number:
    r"""Return the same, exactly, for clusters of any distribution: images as they come.

    Values in units of their standard deviation, from their expectation; a cluster's mean is t and its mean square q.
    Arguments: squares :math:`Var(q)`, means :math:`E t^2`, shared :math:`Cov(q, t^2)`, fourth :math:`E t^4`.

    1. The batch variance is :math:`\bar q - \bar t^2` over N clusters, its expectation :math:`1 - E t^2 / N`.
    2. :math:`Var(\bar q) = Var(q)/N`; :math:`Cov(\bar q, \bar t^2) = Cov(q, t^2)/N^2`, as pairs of two clusters average
       to 0; :math:`Var(\bar t^2) = 2 (E t^2)^2/N^2 + (E t^4 - 3 (E t^2)^2)/N^3`.
    3. Hence the first less twice the second plus the third, its square root over the expectation.

    Clusters of one value give `relative_error_of_variance`, Gaussian ones `relative_error_of_variance_of_gaussian_clusters`.
    """
    variance = squares / clusters - 2 * shared / clusters**2 + 2 * means**2 / clusters**2
    variance = variance + (fourth - 3 * means**2) / clusters**3
    return variance**0.5 / (1 - means / clusters)


def remaining_weight(momentum: Number, updates: Number) -> Number:
    """Return the share of its initial value that a running average still holds: `(1 - a)^k`.

    >>> print(round(remaining_weight(0.1, 29), 3))
    0.047
    """
    return (1 - momentum) ** updates


def variance_of_running_average(momentum: Number, variance_of_update: Number, updates: Number = math.inf) -> Number:
    r"""Return the variance of a running average of independent updates: :math:`\frac{a}{2-a} (1 - (1-a)^{2k}) V`.

    1. The weights :math:`a (1-a)^{k-j}` squared sum to :math:`a^2 (1 - (1-a)^{2k}) / (1 - (1-a)^2)`.
    2. :math:`1 - (1-a)^2 = a (2-a)`; by default k is infinite.

    For `running_mean`, V is :math:`\sigma^2 / m`: momentum 0.1 averages over (2 - a)/a = 19 batches' worth of values
    and no more, however long the training. Idealised: the network does not move while the average does.

    >>> print(round(variance_of_running_average(0.1, 1.0 / 32), 5))
    0.00164
    """
    return momentum / (2 - momentum) * (1 - remaining_weight(momentum, 2 * updates)) * variance_of_update
