r"""Mean and variance of values that come in groups: classes, domains, time steps, real and fake.

.. math:: \mu = \sum_g w_g \mu_g, \qquad \sigma^2 = \sum_g w_g \sigma_g^2 + \sum_g w_g (\mu_g - \mu)^2

The second term is what averaging the groups' variances misses. Nothing is idealised: with population variances and
the weights n_g / n this is an identity between sample moments, as well as the law of total variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normwise.theory.number import Array, Number


class MeanVariance(NamedTuple):
    """A mean and a population variance, for one group of values or an array of groups."""

    mean: Number
    variance: Number


def mixture(weights: Array, groups: MeanVariance) -> MeanVariance:
    """Return the moments of all groups together; groups along the first axis, weights `(g,)` of any positive sum.

    >>> both = mixture(np.array([1, 1]), MeanVariance(np.array([-1.0, 1.0]), np.array([2.0, 2.0])))
    >>> print(both.mean, both.variance)
    0.0 3.0
    """
    means, variances = np.asarray(groups.mean), np.asarray(groups.variance)
    mean = np.average(means, axis=0, weights=weights)
    return MeanVariance(mean, np.average(variances + (means - mean) ** 2, axis=0, weights=weights))
