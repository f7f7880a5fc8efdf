r"""What shared statistics tell of other inputs, those of the future among them; and what is left of it in evaluation.

N values of a channel share mean and variance: those of n sequences of T steps (pooled batch norm), of one step
(time-wise), or none but a token's own (layer norm).

References: Ba et al. 2016, "Layer normalization"; Ioffe 2017, "Batch renormalization" (training against evaluation).
"""

from __future__ import annotations

import math

import numpy as np

from normwise.theory.number import Array, Number


def jacobian(x: Array, groups: Array, eps: float = 0.0) -> Array:
    r"""Return :math:`\partial y_i / \partial x_j`, `(n, n)`, of values normalised by their group's own statistics.

    1. With N values in the group, :math:`\partial\mu/\partial x_j = 1/N` and
       :math:`\partial\sigma^2/\partial x_j = 2 (x_j - \mu)/N`, where :math:`\sigma^2` includes eps.
    2. :math:`\frac{\partial y_i}{\partial x_j} = \frac1\sigma \left(\delta_{ij} - \frac{1 + y_i y_j}{N}\right)` within
       a group, and exactly 0 between groups.

    `groups` says which values share statistics, and so settles causality: all values of a channel (pooled BN: every
    step reaches every other, in both directions of time and across sequences), those of one step (time-wise: no step
    reaches another), those of one token (layer norm: neither steps nor sequences do). In evaluation BN has no groups
    at all. Exact, for any values.

    >>> x, token = np.array([1.0, 2.0, 5.0, 3.0]), np.array([0, 0, 1, 1])
    >>> print(jacobian(x, token)[0, 2], abs(jacobian(x, 0 * token)[0, 2]) > 0)
    0.0 True
    """
    same = groups[:, None] == groups
    size = same.sum(1)
    centred = x - (same @ x) / size
    scale = ((same @ centred**2) / size + eps) ** 0.5
    y = centred / scale
    return (np.eye(len(x)) - same * (1 + np.outer(y, y)) / size) / scale[:, None]


def rms_influence(count: Number, fourth_moment: Number = 3.0, scale: Number = 1.0) -> Number:
    r"""Return the root mean square of :math:`\partial y_i/\partial x_j` over all pairs i, j apart in a group of N.

    1. By `jacobian` it is that of :math:`(1 + y_i y_j)/(N \sigma)`.
    2. Over all N^2 pairs :math:`\sum (1 + y_i y_j)^2 = 2 N^2`, as sum y = 0 and sum y^2 = N; the N pairs i = j hold
       :math:`\sum (1 + y_i^2)^2 = N (3 + k)`, k the mean of y^4.
    3. Hence :math:`\frac{1}{N\sigma} \sqrt{\frac{2N - 3 - k}{N - 1}}`, about :math:`\sqrt2 / (N \sigma)`: with
       N = n T values, one future input moves one output by order 1/(n T), at any distance in time.

    Exact for every batch (eps aside), with the batch's own k and population standard deviation `scale`.
    """
    return ((2 * count - 3 - fourth_moment) / (count - 1)) ** 0.5 / (count * scale)


def composition_leak(count: int) -> float:
    r"""Return how many nats pooled statistics tell of the next token, where tokens are tosses of a fair coin.

    1. The mean of a feature over a batch's N tokens says how many are heads: of the m = N - 1 others, K, binomial.
    2. The next token of the sequence is one of those m, any of them alike: heads with probability K/m.
    3. A model that reads the statistics has the loss :math:`E[h(K/m)]`, h the entropy of a toss, where nothing can be
       told it is log 2. The difference is about :math:`1/(2m)`: of order 1/(n T), as the Jacobian.
    4. Where all N are alike, with probability :math:`2^{1-N}`, their normalised values are 0 and tell nothing.

    The most that a model of single tokens after batch norm can gain; exact.

    >>> print(round(composition_leak(16), 4), round(1 / 30, 4))
    0.0345 0.0333
    """
    others = count - 1
    share = np.arange(1, others) / others  # h is 0 where all are alike
    ways = np.array([math.comb(others, k) / 2**others for k in range(1, others)])
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    return math.log(2) * (1 - 2.0 ** (1 - count)) - float(ways @ entropy)


def believed_repetition(count: Number) -> Number:
    r"""Return the probability such a model gives to a repetition of the token where a batch is half heads, half tails.

    N/2 - 1 of the N - 1 other tokens are like this one. In evaluation the running statistics always say "half", and so
    the model has the gambler's fallacy: below 1/2, though tosses are independent.

    >>> print(round(believed_repetition(16), 3))
    0.467
    """
    return (count / 2 - 1) / (count - 1)


def price_of_belief(repetition: Number) -> Number:
    r"""Return how many nats more than log 2 a model loses on fair tosses if it gives a repetition this probability q.

    Half of all tosses repeat the one before: the loss is :math:`-\frac12 \log q - \frac12 \log(1-q)`. With q of
    `believed_repetition` it is about :math:`1 / (2 (N-1)^2)`: 1/(N-1) of what statistics told in training.

    >>> print(round(price_of_belief(believed_repetition(8)), 4), round(composition_leak(8), 4))
    0.0103 0.0731
    """
    return -math.log(2) - np.log(repetition * (1 - repetition)) / 2


def belief_error(left: Number, count: int) -> Number:
    r"""Return how far the probability of a repetition may be off in a model that has `left` nats to gain, at most.

    1. Batches half heads, half tails have the chance :math:`w = \binom{N}{N/2} 2^{-N}`, heads in them half of that.
    2. If the model says q where p is right, it loses KL(p, q) there: :math:`\frac w2 KL(p, q)` is at most `left`.
    3. By Pinsker's inequality :math:`(p - q)^2 \le KL(p, q) / 2`: hence :math:`|p - q| \le \sqrt{left / w}`, of a head's
       belief and of a tail's, and so of their mean.

    Reference: Cover and Thomas 2006, "Elements of information theory", lemma 11.6.1.

    >>> print(round(belief_error(1e-6, 8), 4))
    0.0019
    """
    log_chance = math.lgamma(count + 1) - 2 * math.lgamma(count / 2 + 1) - count * math.log(2)
    return (left * math.exp(-log_chance)) ** 0.5


def rms_shift(count: Number) -> Number:
    r"""Return how far an output moves, in root mean square, from training to evaluation, by its batch's chance alone.

    1. N Gaussian values x of mean 0 and variance 1 are divided by the batch's s after its mean is taken off: y. In
       evaluation they are x. :math:`E(y - x)^2 = 2 - 2 E[y x]`.
    2. :math:`\frac1N \sum y_i x_i = s`, so :math:`E[y x] = E[s]`, with :math:`N s^2` chi-squared of N - 1 degrees of
       freedom: :math:`E[s] = \sqrt{2/N}\, \Gamma(N/2) / \Gamma((N-1)/2)`.
    3. Hence :math:`\sqrt{2 - 2 E[s]}`, about :math:`\sqrt{3 / (2N)}`: a third of it, in squares, is the deviation's
       error, the rest the mean's.

    Exact for independent Gaussian values whose running statistics are the true ones. Layer norm, whose N values are
    all of the token itself, does not move: its evaluation is its training.

    >>> print(round(rms_shift(128), 4), round((3 / 256) ** 0.5, 4))
    0.1084 0.1083
    """
    gamma = np.vectorize(math.lgamma, otypes=[float])
    half = np.asarray(count, dtype=float) / 2
    return (2 - 2 * np.exp(gamma(half) - gamma(half - 0.5)) / half**0.5) ** 0.5
