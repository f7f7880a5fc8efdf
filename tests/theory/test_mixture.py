"""Moments of a mixture are those of the values put together."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

from normwise.theory.mixture import MeanVariance, mixture


def test_groups_together_have_the_moments_of_their_values():
    rng = np.random.default_rng(0)
    groups = [rng.exponential(size=(count, 3)) + count for count in (2, 5, 9)]
    parts = MeanVariance(np.array([x.mean(0) for x in groups]), np.array([x.var(0) for x in groups]))
    whole, values = mixture(np.array([2, 5, 9]), parts), np.concatenate(groups)
    np.testing.assert_allclose(whole.mean, values.mean(0), rtol=1e-13)
    np.testing.assert_allclose(whole.variance, values.var(0), rtol=1e-13)


def test_weights_need_not_sum_to_one_and_an_empty_group_counts_nothing():
    parts = MeanVariance(np.array([1.0, 2.0, 99.0]), np.array([1.0, 3.0, 99.0]))
    assert mixture(np.array([2, 6, 0]), parts) == pytest.approx(mixture(np.array([0.25, 0.75, 0.0]), parts))


def test_two_groups_symbolically():
    p, a, b, v, w = sympy.symbols("p a b v w", positive=True)
    mean = p * a + (1 - p) * b
    whole = mixture(np.array([p, 1 - p]), MeanVariance(np.array([a, b]), np.array([v, w])))
    assert sympy.simplify(whole.mean - mean) == 0
    assert sympy.simplify(whole.variance - (p * v + (1 - p) * w + p * (1 - p) * (a - b) ** 2)) == 0
