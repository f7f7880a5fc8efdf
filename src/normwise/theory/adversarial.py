r"""Batch normalization in adversarial training: the discriminator's coupling and the conditional generator.

A batch holds a share pi of real samples and 1 - pi of fakes. Pooled statistics are those of their mixture, so
swapping the fakes moves every real sample's features. With separate batches (pi = 1 for the reals), layer norm or
spectral norm a real sample's logit does not depend on the fakes at all: the shift is exactly 0.

References: Miyato et al. 2018, "Spectral normalization for generative adversarial networks"; Dumoulin et al. 2017, "A
learned representation for artistic style" and de Vries et al. 2017, "Modulating early visual processing by language"
(conditional BN); Perez et al. 2018, "FiLM".
"""

from __future__ import annotations

import numpy as np

from normwise.theory.mixture import MeanVariance, mixture
from normwise.theory.number import Array, Number

_NODES = 48  # of each quadrature
_TAIL = 8.0  # standard deviations, of a chi variable about .7, beyond which nothing is left


def joint_moments(real: MeanVariance, fake: MeanVariance, share: float = 0.5) -> MeanVariance:
    r"""Return the statistics of a joint batch with `share` pi of reals.

    :math:`\mu = \pi\mu_r + (1-\pi)\mu_f`, :math:`\sigma^2 = \pi v_r + (1-\pi) v_f + \pi(1-\pi)(\mu_r-\mu_f)^2`.
    """
    means = np.array(np.broadcast_arrays(real.mean, fake.mean))
    variances = np.array(np.broadcast_arrays(real.variance, fake.variance))
    return mixture(np.array([share, 1 - share]), MeanVariance(means, variances))


def logit_shift(
    x: Array,
    weight: Array,
    real: MeanVariance,
    fake: MeanVariance,
    other_fake: MeanVariance,
    *,
    share: float = 0.5,
    eps: float = 0.0,
) -> Number:
    r"""Return by how much real logits move when the fakes of their batch are replaced by others.

    The discriminator is linear in batch-normalised features: logit :math:`= \sum_c w_c (x_c - \mu_c)/\sigma_c + b`
    with BN's scale in w. Only mu and sigma change, to those of the joint batch with the other fakes (primed):

    .. math:: \Delta = \sum_c w_c \left( \frac{x_c - \mu'_c}{\sigma'_c} - \frac{x_c - \mu_c}{\sigma_c} \right)

    Shape: x `(*, c)`, weight and all moments `(c,)`; returns `(*,)`. Exact, given the sample (population) moments of
    the real and fake halves. Swapping for fakes of the same moments shifts nothing; `share` 1 (separate batches)
    neither. Idealised: one layer; in a deep discriminator every BN adds its own shift.
    """
    logits: list[Array] = []
    for fakes in (fake, other_fake):
        joint = joint_moments(real, fakes, share)
        logits.append((weight * (x - joint.mean) / (joint.variance + eps) ** 0.5).sum(-1))
    return logits[1] - logits[0]


def fresh_fakes_variance(
    x: Number, real: MeanVariance, fake: MeanVariance, count: float, *, share: float = 0.5, eps: float = 0.0
) -> Array:
    r"""Return the variance of one normalised feature's shift when Gaussian fakes are drawn again from the SAME distribution.

    1. The mean of :math:`m_f = (1-\pi) m` fakes is :math:`N(\mu_f, v_f/m_f)`, and their variance, independent of it,
       :math:`v_f \chi^2_{m_f-1}/m_f` (Fisher 1925).
    2. With the real half, which stays, these two are the joint moments and so :math:`\hat x`; its variance is an integral
       over both, here by Gauss's quadrature.
    3. Old and new fakes are independent: the shift varies by twice that.

    To first order, one fake f adds :math:`(1-\pi)/m_f` times :math:`-(\hat f + \hat x \hat f^2/2)`, which for
    :math:`\hat f \sim N(a, b)` gives :math:`\frac{2(1-\pi)}{m} (b (1 + a \hat x)^2 + \hat x^2 b^2/2)`; with fakes like
    the reals :math:`\frac{2(1-\pi)}{m} (1 + \hat x^2/2)`, the mean's part and the variance's. Coupling through sampling
    noise alone, which no training of the generator removes; it falls with the batch of `count` m values, reals included.
    Exact for Gaussian fakes; raises `ValueError` for fewer than 2, which have no variance. A linear
    logit over independent channels sums it with weights w^2.
    """
    fakes = (1 - share) * count
    if fakes == 0:
        return np.zeros(np.broadcast(x, real.mean, fake.mean).shape)
    if fakes < 2:
        raise ValueError(f"count and share must leave at least 2 fakes, got {fakes:g}; take a larger batch")
    z, square, weights = _sample_moments(fakes)
    grid = (..., None, None)
    drawn = MeanVariance(
        np.asarray(fake.mean)[grid] + np.asarray(fake.variance / fakes)[grid] ** 0.5 * z,
        np.asarray(fake.variance / fakes)[grid] * square,
    )
    joint = joint_moments(MeanVariance(np.asarray(real.mean)[grid], np.asarray(real.variance)[grid]), drawn, share)
    x_hat = (np.asarray(x)[grid] - joint.mean) / (joint.variance + eps) ** 0.5
    mean = (weights * x_hat).sum((-2, -1), keepdims=True)
    return 2 * (weights * (x_hat - mean) ** 2).sum((-2, -1))


def _sample_moments(count: float) -> tuple[Array, Array, Array]:
    """Return a grid of standard normal and of chi-squared values, of count - 1 degrees of freedom, and their weights."""
    z, mass = np.polynomial.hermite_e.hermegauss(_NODES)
    place, length = np.polynomial.legendre.leggauss(_NODES)
    top = (count - 1) ** 0.5
    low, high = max(0.0, top - _TAIL), top + _TAIL
    chi = low + (high - low) * (place + 1) / 2
    density = np.exp((count - 2) * np.log(chi / top) - (chi**2 - top**2) / 2)
    weights = mass[:, None] * (length * density)
    return z[:, None], chi**2, weights / weights.sum()


def gradient_through_statistics(
    weight: Array, real: MeanVariance, fake: MeanVariance, *, share: float = 0.5, eps: float = 0.0
) -> float:
    r"""Return how much of the fakes' gradient flows through the batch's statistics, over what flows beside them.

    Both are norms over all fakes, of the gradient of the mean fake logit by the features that BN normalises.

    1. The logit is linear: :math:`\partial L/\partial\hat x_c` is :math:`w_c` for every fake (times a constant), 0 for reals.
    2. BN's backward pass subtracts its mean over the batch, :math:`(1-\pi) w_c`, and :math:`\hat x` times its mean
       product with :math:`\hat x`, :math:`(1-\pi) w_c a_c`; a and b are mean and variance of the fakes' :math:`\hat x`.
    3. So the direct part is :math:`w_c/\sigma_c`, that through statistics :math:`-(1-\pi)(1 + a_c \hat x) w_c/\sigma_c`,
       of mean square :math:`(1-\pi)^2 ((1+a_c^2)^2 + a_c^2 b_c)` times the direct one's.

    Shape: weight and moments `(c,)`. Fakes like the reals: :math:`1-\pi`, half of the direct gradient is cancelled. A
    batch of fakes alone (`share` 0): 1, all of it is: BN gives their features a mean no generator can move. Exact.
    """
    joint = joint_moments(real, fake, share)
    variance = joint.variance + eps
    a, b = (fake.mean - joint.mean) / variance**0.5, fake.variance / variance
    direct = weight**2 / variance
    through = ((1 + a**2) ** 2 + a**2 * b) * direct
    return float((1 - share) * (through.sum() / direct.sum()) ** 0.5)


def film_coefficients(
    gamma: Number, beta: Number, statistics: MeanVariance, eps: Number = 0.0
) -> tuple[Number, Number]:
    r"""Return scale and shift of conditional BN as feature-wise linear modulation (FiLM) of its raw input.

    :math:`\gamma_y \hat x + \beta_y = \frac{\gamma_y}{\sigma} x + \left(\beta_y - \frac{\gamma_y \mu}{\sigma}\right)`:
    an identity. The statistics are shared by all classes, the modulation is not.
    """
    scale = gamma / (statistics.variance + eps) ** 0.5
    return scale, beta - scale * statistics.mean


def fading_steepness(contrast: Number, variance: Number, eps: Number = 0.0) -> Number:
    r"""Return how much steeper BN is for features of which a part c of the contrast is left, over the whole of it.

    1. Over its batch BN's Jacobian by one feature is :math:`1/\sqrt{v + \epsilon}` times a contraction that leaves all
       directions but two as they are, so that slope is its Lipschitz constant.
    2. c x has variance c^2 v: the ratio is :math:`\sqrt{(v + \epsilon)/(c^2 v + \epsilon)}`.

    1/c where :math:`c^2 v \gg \epsilon`, and at most :math:`\sqrt{1 + v/\epsilon}`. A network that begins with a linear
    layer and BN has the same output for c x at eps as for x at :math:`\epsilon/c^2`, so that it is 1/c times as steep
    where eps does not matter; where it does, how much each feature's ratio counts depends on the layers after it.

    >>> print(fading_steepness(0.25, 1.0), round(fading_steepness(0.25, 1e-3, 1e-5), 2))
    4.0 3.73
    """
    return ((variance + eps) / (contrast**2 * variance + eps)) ** 0.5


def conditional_output(
    gamma: Array, beta: Array, classes: MeanVariance, shares: Array, eps: float = 0.0
) -> MeanVariance:
    r"""Return mean and variance of every class's features after conditional BN; all arrays class-first, `(k, *)`.

    Shared statistics are those of the mixture of classes, so class y leaves with mean
    :math:`\gamma_y (\mu_y - \mu)/\sigma + \beta_y` and variance :math:`\gamma_y^2 v_y/\sigma^2`: conditioning on top of
    what already told the classes apart, and dependent on the batch's composition `shares`. (Statistics of each class
    on its own would give :math:`\beta_y` and :math:`\gamma_y^2`.)
    """
    scale, shift = film_coefficients(gamma, beta, mixture(shares, classes), eps)
    return MeanVariance(scale * classes.mean + shift, scale**2 * classes.variance)


def conditional_parameters(channels: Number, classes: Number) -> Number:
    """Return the parameters of one conditional BN: `2 C K`, a scale and a shift for each channel and class."""
    return 2 * channels * classes


def filter_parameters(in_channels: Number, out_channels: Number, kernel: Number, classes: Number = 1) -> Number:
    """Return the weights of one convolution, `C_in C_out k^2`, for each of K classes with filters of its own.

    >>> filter_parameters(256, 256, 3, classes=10), filter_parameters(256, 256, 3) + conditional_parameters(256, 10)
    (5898240, 594944)
    """
    return in_channels * out_channels * kernel**2 * classes


def equal_parameter_width(channels: Number, kernel: Number, classes: Number) -> Number:
    r"""Return the width at which K separate convolutions cost what one shared one with conditional BN costs.

    :math:`K k^2 c^2 = k^2 C^2 + 2 C K` gives :math:`c = C \sqrt{1/K + 2/(k^2 C)}`: about :math:`C/\sqrt{K}`. For
    layers of as many channels in as out; biases not counted.

    >>> print(round(equal_parameter_width(256, 3, 10), 1))
    81.3
    """
    return channels * (1 / classes + 2 / (kernel**2 * channels)) ** 0.5
