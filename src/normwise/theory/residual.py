r"""Growth of the gradient's squared norm through residual blocks, at initialization, with and without BN.

Setting: width n, :math:`W_{ij} \sim N(0, g/n)` with gain g (1 here, 2 after He), ReLU, a batch of m samples. The
"factor" of a block is :math:`E\|\partial L/\partial x_l\|^2 / E\|\partial L/\partial x_{l+1}\|^2`.

What a factor is made of:

1. Backward through W: :math:`E\|W^T \delta\|^2 = g \|\delta\|^2`; through ReLU: half of the gates are open.
2. Backward through BN: each channel is divided by its standard deviation. (BN also removes two directions of m, a
   part of order 1/m.)
3. Skip and branch are uncorrelated over W, so their squared norms add.
4. Forward: with z a standard Gaussian, :math:`Var(relu(z)) = 1/2 - 1/(2\pi) = v`. BN divides by the variance CENTRED
   over the batch, to which a branch `W relu(BN x)` adds :math:`g v`, not its second moment g/2.

The source text's idealised factors use g/2 in step 4, or no forward growth at all. Step 4 makes the two layouts
trade places: pre-activation grows as a power of depth, post-activation exponentially, and slower only up to
`crossing_depth`.

Idealised: width and batch infinite (`finite_size_term` and `finite_size_term_of_growth` are what that leaves out), a
gradient that does not know W ("gradient independence"), dense layers, initialization only.

References: Yang et al. 2019, "A mean field theory of batch normalization", for networks without skip; De and Smith
2020, "Batch normalization biases residual blocks towards the identity function", for the forward growth of step 4.
"""

from __future__ import annotations

import math

import numpy as np

from normwise.theory.number import Array, Number

RELU_VARIANCE = 0.5 - 0.5 / math.pi
"""Variance of relu(z), z standard Gaussian: E relu^2 = 1/2 less (E relu)^2 = 1/(2 pi)."""

PLAIN_FACTOR = math.pi / (math.pi - 1)
"""Factor of one layer `relu(BN(W x))` without skip, about 1.467 at any gain: (g/2) / (g v).

BN takes exactly as much as W gives, forward; backward, ReLU keeps 1/2 and BN divides by v only. It holds for the first
layers of a finite net. ReLU and W scale with what they are given, so nothing brings back norms of samples that have drifted
apart by chance (the variance of their logarithm grows by 4/n a layer, measured); then (E relu)^2 is less, v is more, and
deeper layers lie below. Something of the other sign, not explained here, outweighs it in narrow nets. At batch 2 n the growth
through 59 layers was 4.1, .73, .37, .28, .31 of the power at n = 48, 96, 192, 384, 768.
"""

POWER_OF_DEPTH = PLAIN_FACTOR
"""Pre-activation growth is about depth to this power, at any gain: (1/2) / v, the same number for the same reason."""


def idealised_pre_activation_factor(gain: float = 1.0, *, batch: float = math.inf) -> float:
    r"""Return the source text's factor of `x + W relu(BN x)`, `1 + g/2`: BN taken to divide by 1 in every block.

    Of a batch of m Gaussian inputs and a white gradient it is exactly :math:`1 + \frac g2 \frac{m-2}{m-3}`, at any
    width: BN's backward pass removes two directions of m, and :math:`E[1/s^2] = m/(m-3)`.
    """
    return 1 + gain / 2 * (1 + 1 / (batch - 3))


def idealised_post_activation_factor(gain: float = 1.0, *, width: float = math.inf) -> float:
    r"""Return the source text's factor of `BN(x + W relu x)`, `(1 + g/2) / (1 + g/2)`: BN by the second moment.

    Of width n, with q = 1 + g/2 and one draw of W, to order 1/n and for large batches:

    1. A channel of `W relu x` has mean square :math:`w^T S w`, S = E relu relu^T, whose one large eigenvalue
       :math:`n/(2\pi)` belongs to ReLU's mean: its variance over W is :math:`2 (g/(2\pi))^2`.
    2. The norm divides by the mean square over n channels, so :math:`E[q / s^2] = 1 + 2 (g/(2\pi))^2 / (n q^2)`.
    """
    return 1 + 2 * (gain / (2 * math.pi)) ** 2 / (width * (1 + gain / 2) ** 2)


def unnormalised_factor(*, skip: bool, gain: float = 1.0) -> float:
    """Return the factor without BN: `1 + g/2` with the skip, `g/2` without (gain 1 vanishes, gain 2 is He's).

    The activations' second moment grows by the same factor forward.
    """
    return (1.0 if skip else 0.0) + gain / 2


def pre_activation_factor(block: Number, *, gain: float = 1.0) -> Number:
    r"""Return the factor of block l (from 0) of `x + W relu(BN x)`.

    1. The input of block 0 has variance 1; each block adds g v (step 4): :math:`\sigma_l^2 = 1 + g v l`.
    2. The branch returns :math:`(g/2) / \sigma_l^2` of the gradient's squared norm (steps 1, 2), the skip all of it.
    3. Hence :math:`1 + \frac{g/2}{1 + g v l}`, which falls towards 1: late blocks are nearly the identity.

    >>> print([round(pre_activation_factor(block), 3) for block in (0, 1, 2, 15)])
    [1.5, 1.373, 1.297, 1.082]
    """
    return 1 + (gain / 2) / (1 + gain * RELU_VARIANCE * block)


def post_activation_factor(*, gain: float = 1.0) -> float:
    r"""Return the factor of any block of `BN(x + W relu x)`: :math:`(1 + g/2) / (1 + g v)`.

    x leaves the last BN with variance 1, so the sum has variance 1 + g v (step 4), which BN takes back; backward, skip
    and branch return 1 + g/2. The ratio is above 1 because ReLU's mean passes no centring: growth is exponential.

    >>> print(round(post_activation_factor(), 4))
    1.1187
    """
    return (1 + gain / 2) / (1 + gain * RELU_VARIANCE)


def pre_activation_growth(depth: Number, *, gain: float = 1.0) -> Number:
    """Return the product of the factors of the first `depth` blocks (a whole number, or an array of them).

    >>> print(round(float(pre_activation_growth(16)), 2), round(float(pre_activation_growth(64)), 1))
    14.12 88.9
    """
    depths = np.asarray(depth, dtype=np.int64)
    factors: Array = pre_activation_factor(np.arange(np.max(depths)), gain=gain)
    return np.concatenate([[1.0], np.cumprod(factors)])[depths]


def post_activation_growth(depth: Number, *, gain: float = 1.0) -> Number:
    """Return the product of the factors of `depth` blocks.

    >>> print(round(post_activation_growth(16), 2), round(post_activation_growth(64)))
    6.02 1311
    """
    return post_activation_factor(gain=gain) ** depth


def crossing_depth(*, gain: float = 1.0) -> int:
    """Return the first depth at which post-activation has grown more than pre-activation.

    >>> crossing_depth()
    32
    """
    depth = 1
    while post_activation_growth(depth, gain=gain) <= pre_activation_growth(depth, gain=gain):
        depth += 1
    return depth


def finite_size_term(width: Number, batch: Number) -> Number:
    r"""Return the relative deviation to allow one factor, or a mean of factors, at finite width and batch.

    :math:`1.5 (1/n + 1/m)`. The ORDER is derived, the constant measured:

    1. Batch: `idealised_pre_activation_factor` has the first block's part exactly.
    2. Width: channels of one draw of W have unequal variances (relative variance of order 1/n, and E[1/s^2] feels
       it); the gates of a block correlate with the W of the last one, again by 1/n.
    3. Measured for n from 48 to 384, m from 2 n to 8 n, in nets of 60 blocks: of every block with a skip, and of the
       first four without BN and skip or with BN alone, the factor is off by -1.2 to +1.5 times (1/n + 1/m): first
       blocks low, last ones high.
    """
    return 1.5 * (1 / width + 1 / batch)


def finite_size_term_of_growth(width: Number, batch: Number, depth: Number) -> Number:
    r"""Return the same for a product of the factors of `depth` blocks with BN and skip: :math:`0.4 L (1/n + 1/m)`.

    Deviations have both signs, first blocks low and last ones high, so that a product is off by much less than L
    factors are. Measured in the same nets, of 16 and of 32 blocks: -.08 to +.32 times L (1/n + 1/m); of convolutional
    nets of 16 blocks, with the fan-in for n, +.06 to +.18.
    """
    return 0.4 * depth * (1 / width + 1 / batch)
