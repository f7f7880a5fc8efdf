r"""Mixup: the covariance of mixed samples, the loss's Hessian, and what evaluation on clean data then sees.

:math:`z = \lambda x + (1-\lambda) y` with x, y drawn independently, of mean mu and covariance Sigma.

1. :math:`Cov(z) = (\lambda^2 + (1-\lambda)^2) \Sigma = (2\lambda^2 - 2\lambda + 1) \Sigma`; the mean stays mu.
2. In practice y is a random permutation of the batch. Over permutations the cross term averages
   :math:`(x_i - \bar x)(x_j - \bar x)^T` over all pairs, i = j included, which is 0: the factor then holds in
   expectation for the batch's own covariance, and :math:`\bar z = \bar x` always.

Idealised: the first, linear layer; behind a ReLU the factor no longer holds.

References: Zhang et al. 2018, "mixup: beyond empirical risk minimization"; Carratino et al. 2022, "On mixup
regularization".
"""

from __future__ import annotations

import numpy as np

from normwise.theory.number import Array, Number


def covariance_factor(weight: Number) -> Number:
    """Return `2 lambda^2 - 2 lambda + 1`, by which the covariance shrinks: 1 at 0 and 1, least, 1/2, in the middle."""
    return 2 * weight**2 - 2 * weight + 1


def mean_covariance_factor(alpha: Number) -> Number:
    r"""Return the factor averaged over lambda from Beta(alpha, alpha): `(alpha + 1) / (2 alpha + 1)`.

    :math:`E[\lambda(1-\lambda)] = \frac{\alpha}{2(2\alpha+1)}` and the factor is :math:`1 - 2\lambda(1-\lambda)`. Towards
    alpha 0 nothing is mixed (1), towards infinity all is averaged (1/2). BN's `running_var` converges to it.

    >>> print(round(mean_covariance_factor(1.0), 4))
    0.6667
    """
    return (alpha + 1) / (2 * alpha + 1)


def eval_inflation(factor: Number, eps_share: Number = 0.0) -> Number:
    r"""Return the variance of BN's output on clean data in evaluation, `1 / (f + eps / sigma^2)`: 1.5 at alpha 1.

    `running_var` describes mixed samples, :math:`f \sigma^2`, and BN divides by it plus eps; `eps_share` is eps over
    the clean variance.
    """
    return 1 / (factor + eps_share)


def recalibrated_variance(count: Number, eps_share: Number = 0.0) -> Number:
    r"""Return the same once the layer has been recalibrated on n clean values: `1 / (n / (n - 1) + eps / sigma^2)`.

    Exact on those very values, of variance :math:`\sigma^2` (by n): `running_var` is Bessel's
    :math:`\frac{n}{n-1} \sigma^2`.

    >>> print(recalibrated_variance(2), recalibrated_variance(2, 2.0))
    0.5 0.25
    """
    return eval_inflation(count / (count - 1), eps_share)


def hessian_spectrum(covariance: Array, mean: Array, factor: float = 1.0) -> Array:
    r"""Return the eigenvalues, largest first, of the Hessian of a quadratic loss on mixed samples.

    1. The Hessian of :math:`\frac12 E (w^T z - t)^2` is :math:`E[z z^T] = f \Sigma + \mu \mu^T`: the second moment,
       not the covariance.
    2. For centred inputs every eigenvalue scales by f, as the source text says.
    3. Otherwise H_f lies between :math:`f H_1` and :math:`H_1` (their differences, :math:`(1-f) \mu\mu^T` and
       :math:`(1-f) \Sigma`, are positive semidefinite), and so does every eigenvalue. They solve
       :math:`1 = \sum_i (q_i^T\mu)^2 / (\theta - f\sigma_i)` over Sigma's eigenpairs; the top one, at least
       :math:`\|\mu\|^2 + f \mu^T\Sigma\mu/\|\mu\|^2` and at most :math:`\|\mu\|^2 + f\sigma_1`, follows the mean
       and hardly scales. Smoothing needs centring: which is what BN does.
    """
    return np.linalg.eigvalsh(factor * covariance + np.outer(mean, mean))[::-1]
