r"""Which axis shares a statistic: one channel over the batch, or all channels at one position.

Per channel, the statistics of a channel are its own: after normalization it has mean 0 and variance 1, whatever the
other channels do. Across channels, the vector x of the C channels at one position, with mean m and covariance S over
positions, is centred and divided by its own spread: :math:`y = P x / \sqrt{\|P x\|^2 / C + eps}`, P = I - 11^T/C.
The result of a channel then depends on every other one.

Reference for across-channel statistics at one position: Li et al. 2019, "Positional normalization".
"""

from __future__ import annotations

import numpy as np

from normwise.theory.mixture import MeanVariance
from normwise.theory.number import Array, Number


def uniform_covariance(scales: Array, correlation: float) -> Array:
    """Return the covariance `(c, c)` of channels with these standard deviations and one correlation between any two."""
    count = len(scales)
    correlations = np.full((count, count), correlation)
    np.fill_diagonal(correlations, 1.0)
    return correlations * np.outer(scales, scales)


def per_channel_output(variance: Number, eps: Number = 0.0) -> MeanVariance:
    """Return mean 0 and variance `v / (v + eps)` of a channel normalised by its own statistics.

    An identity in training; it asks nothing of the distribution or of the correlation between channels.
    """
    return MeanVariance(0.0 * variance, variance / (variance + eps))


def across_channel_variance(covariance: Array, mean: Array | None = None) -> float:
    r"""Return the expectation of Bessel's variance over the channels at one position.

    1. :math:`E\|Px\|^2 = tr(PS) + \|Pm\|^2`, and :math:`tr(PS) = tr S - 1^T S 1 / C`.
    2. Over C - 1: the mean of the variances, less the mean of the covariances, plus Bessel's variance of the means.

    With one variance and one correlation this is :math:`(1-\rho) \sigma^2`, the form of correlated nodes
    (`graph.batch_variance`) with channels in place of nodes; the population form, which normalises, is (C - 1)/C of
    it. Exact for any distribution.
    """
    count = len(covariance)
    spread = np.trace(covariance) - covariance.sum() / count
    return float(spread / (count - 1) + (0.0 if mean is None else np.var(mean, ddof=1)))


def correlation_across_channels(count: int) -> float:
    """Return the mean correlation between two of C outputs alike, normalised across channels: `-1 / (C - 1)`.

    The outputs of a position sum to 0, so the variance of their sum, C variances and C (C - 1) covariances, is 0.
    """
    return -1 / (count - 1)


def across_channel_output(covariance: Array, mean: Array | None = None, eps: float = 0.0) -> MeanVariance:
    r"""Return the mean and variance of every channel, `(c,)` each, after normalization across channels.

    Exact for Gaussian x, of any correlation, scales and means:

    1. d = P x is Gaussian with covariance :math:`PSP = Q \Lambda Q^T`, C - 1 eigenpairs, and mean :math:`Q \eta`,
       :math:`\eta = Q^T m`.
    2. :math:`1/r = \int_0^\infty e^{-tr} dt` and :math:`r^{-1/2} = \int_0^\infty e^{-tr} dt / \sqrt{\pi t}` for
       :math:`r = \|d\|^2 + C eps` turn the expectations of :math:`y^2 = C d^2 / r` and :math:`y = \sqrt{C/r}\, d` into
       integrals of :math:`E[d^2 e^{-tr}]` and :math:`E[d\, e^{-tr}]`.
    3. The weight :math:`e^{-tr}` keeps the components of :math:`Q^T d` independent and Gaussian, with means
       :math:`\eta_i/(1+2t\lambda_i)`, variances :math:`\lambda_i/(1+2t\lambda_i)` and total mass
       :math:`e^{-tC eps} \prod_i (1+2t\lambda_i)^{-1/2} e^{-t\eta_i^2/(1+2t\lambda_i)}`.
    4. In :math:`t = e^u` both integrands are analytic and bounded for :math:`|Im\, u| < \pi/2` and vanish exponentially
       at both ends: the error of the trapezoidal rule with step 1/4 is of order :math:`e^{-4\pi^2}`, rounding.

    The squared outputs of a position sum to C (eps aside), so a channel of large scale can only gain what the others
    lose: one of scale 10 beside seven of scale 1 takes most of the output, and per-channel statistics would give 1
    to each. Idealised: Gaussian; positions are taken one by one, so their correlation does not matter.

    Raises `ValueError` where nothing spreads across channels and eps is 0: such an output is 0/0.

    Reference: Magnus 1986, "The exact moments of a ratio of quadratic forms in normal variables".

    >>> alike = across_channel_output(uniform_covariance(np.ones(8), 0.9))
    >>> unlike = across_channel_output(uniform_covariance(np.array([10.0] + [1.0] * 7), 0.0))
    >>> print(alike.variance.round(3)[:2], unlike.variance.round(3)[:2])
    [1. 1.] [5.202 0.4  ]
    """
    count = len(covariance)
    contrasts = np.linalg.eigh(np.eye(count) - 1 / count)[1][:, 1:]  # all but the direction of ones
    eigenvalues, rotation = np.linalg.eigh(contrasts.T @ covariance @ contrasts)
    eigenvalues, basis = eigenvalues.clip(min=0.0), contrasts @ rotation
    shift = basis.T @ (np.zeros(count) if mean is None else mean)

    scale = float(eigenvalues.max() + (shift**2).max() + eps)
    if not scale > 0:
        raise ValueError(
            f"covariance must let channels differ at a position, or eps be positive, got no spread and eps {eps}"
        )

    step = 0.25  # u from 80 below the largest scale to 80 beyond the smallest that float64 resolves, e^-37 of it
    t = np.exp(np.arange(-80.0, 120.0, step))[:, None] / scale
    shrink = 1 / (1 + 2 * t * eigenvalues)
    log_mass = (0.5 * np.log(shrink) - t * shift**2 * shrink).sum(1, keepdims=True) - t * count * eps
    mass = np.exp(log_mass) * t * step
    tilted_mean = (shift * shrink) @ basis.T
    square = count * (mass * ((eigenvalues * shrink) @ (basis**2).T + tilted_mean**2)).sum(0)
    first = (count / np.pi) ** 0.5 * (mass * tilted_mean / t**0.5).sum(0)
    return MeanVariance(first, square - first**2)
