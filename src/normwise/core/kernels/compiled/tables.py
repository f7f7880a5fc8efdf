"""Loops over tables `(g, c)`, in float64: the coefficients of a standardisation, and their derivatives.

Each works on groups `[low, high)` and columns `[first, last)`. Tables of moments are `(g, c)`, or `(1, c)` for all
groups; affine tables likewise, or `(0, c)` for none.
"""
# pyright: basic, reportUntypedFunctionDecorator=false, reportIndexIssue=false

from __future__ import annotations

import numpy as np

from normwise.core.kernels.compiled.loop import loop


@loop
def centre(low, high, first, last, scale, shift, zero, slope, rest):
    """Rewrite `x * scale + shift` as `(x - zero) * slope + rest`, in the dtype of the results."""
    number, columns = zero.dtype.type, last - first
    for g in range(low, high):
        source = g if len(scale) > 1 else 0
        scales, shifts = scale[source, first:last], shift[source, first:last]
        zeros, slopes, rests = zero[g, first:last], slope[g, first:last], rest[g, first:last]
        for c in range(columns):
            crossing = number(-shifts[c] / scales[c])
            crossing = crossing if abs(crossing) < np.inf else number(0)  # which NaN is not, either
            zeros[c], slopes[c] = crossing, scales[c]
            rests[c] = shifts[c] + np.float64(crossing) * scales[c]


@loop
def spread(low, high, first, last, table, values):
    """Write a table, or its one row for every group, in the dtype of the values."""
    for g in range(low, high):
        given, written = table[g if len(table) > 1 else 0, first:last], values[g, first:last]
        for c in range(last - first):
            written[c] = given[c]


@loop
def about_mean(low, high, first, last, mean, middle, total, product):
    """Turn products about the mean as it is in the dtype of the values into those about the mean itself."""
    for g in range(low, high):
        means, middles = mean[g if len(mean) > 1 else 0, first:last], middle[g, first:last]
        totals, products = total[g, first:last], product[g, first:last]
        for c in range(last - first):
            products[c] += (middles[c] - means[c]) * totals[c]


@loop
def standardise(low, high, first, last, count, mean, m2, weight, bias, share, eps, scale, shift):
    """Write `scale = weight / sqrt(m2 / n + ((1 - share) mean)^2 + eps)` and `shift = bias - share mean scale`."""
    columns = last - first
    for g in range(low, high):
        source = g if len(mean) > 1 else 0
        part = 1 / max(count[source, 0], 1.0)
        middle, spread = mean[source, first:last], m2[source, first:last]
        scales, shifts = scale[g, first:last], shift[g, first:last]
        for c in range(columns):
            scales[c] = spread[c] * part + eps
            shifts[c] = -middle[c]
        if len(share) > 0:
            taken = share[g if len(share) > 1 else 0, first:last]
            for c in range(columns):
                left = (1 - taken[c]) * middle[c]
                scales[c] += left * left
                shifts[c] *= taken[c]
        for c in range(columns):
            scales[c] = 1 / np.sqrt(scales[c])
        if len(weight) > 0:
            weights = weight[g if len(weight) > 1 else 0, first:last]
            for c in range(columns):
                scales[c] *= weights[c]
        for c in range(columns):
            shifts[c] *= scales[c]
        if len(bias) > 0:
            biases = bias[g if len(bias) > 1 else 0, first:last]
            for c in range(columns):
                shifts[c] += biases[c]


@loop
def follow(count, mean, m2, running_mean, running_var, momentum, exact, new_mean, new_var):
    """Write the running estimates after a batch: of the mixture's variance if exact, else of Bessel's."""
    for g in range(len(mean)):
        n = count[g, 0]
        a = momentum[g, 0] if n > 1 else 0.0
        freedom = max(n if exact else n - 1, 1.0)
        for c in range(mean.shape[1]):
            old, spread = running_mean[g, c], running_var[g, c]
            if n > 1:
                gap = mean[g, c] - old
                old += a * gap
                spread += a * (m2[g, c] / freedom - spread)
                if exact:
                    spread += a * (1 - a) * gap * gap
            new_mean[g, c], new_var[g, c] = old, spread


@loop
def backward_of_moments(
    low, high, first, last, total, product, count, mean, m2, weight, share, eps, scale, slope, constant
):
    """Add slope and constant of what reaches x through the moments that a standardisation took.

    total, product: of the output's gradient, and of it times `x - mean`. With r one over the root and P the gradient of
    the scale, that of the shift included, `dq = -P weight r^3 / 2` reaches the mean square under the root.
    """
    columns = last - first
    for g in range(low, high):
        source = g if len(mean) > 1 else 0
        part = 1 / max(count[source, 0], 1.0)
        middle, spread, scales = mean[source, first:last], m2[source, first:last], scale[g, first:last]
        sums, products = total[g, first:last], product[g, first:last]
        slopes, constants = slope[source, first:last], constant[source, first:last]
        if len(share) == 0:
            for c in range(columns):
                dq = -products[c] * scales[c] / (spread[c] * part + eps) * part
                slopes[c] += dq
                constants[c] -= dq * middle[c] + scales[c] * sums[c] * part
        else:
            taken = share[g if len(share) > 1 else 0, first:last]
            for c in range(columns):
                left = (1 - taken[c]) * middle[c]
                dq = -(products[c] + left * sums[c]) * scales[c] / (spread[c] * part + left * left + eps) * part
                slopes[c] += dq
                constants[c] += dq * ((1 - taken[c]) * left - middle[c]) - taken[c] * scales[c] * sums[c] * part


@loop
def backward_of_affine(total, product, count, mean, m2, weight, share, eps, d_weight, d_bias, d_share):
    """Add to the gradients of the affine tables: see `backward_of_moments`."""
    weights, biases, shares = len(d_weight), len(d_bias), len(d_share)
    for g in range(len(total)):
        source = g if len(mean) > 1 else 0
        n = count[source, 0]
        if n == 0:
            continue
        for c in range(total.shape[1]):
            middle, s, w, sums = mean[source, c], 1.0, 1.0, total[g, c]
            if shares > 0:
                s = np.float64(share[g if shares > 1 else 0, c])
            if weights > 0:
                w = np.float64(weight[g if weights > 1 else 0, c])
            left = (1 - s) * middle
            r = 1 / np.sqrt(m2[source, c] / n + left * left + eps)
            p = product[g, c] + left * sums
            if weights > 0:
                d_weight[g if weights > 1 else 0, c] += p * r
            if biases > 0:
                d_bias[g if biases > 1 else 0, c] += sums
            if shares > 0:
                d_share[g if shares > 1 else 0, c] -= middle * w * r * (sums - p * r * r * left)
