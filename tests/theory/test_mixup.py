"""Mixup: exact over permutations and over lambda, spectra of centred and real inputs, and draws of pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sympy
from theory.agreement import assert_agrees

from normwise.theory import mixup


def test_factor_symbolically():
    weight = sympy.Symbol("lambda", positive=True)
    assert sympy.expand(weight**2 + (1 - weight) ** 2 - mixup.covariance_factor(weight)) == 0
    for value in (1, 2, 3):  # Beta(a, a) has a polynomial density
        density = weight ** (value - 1) * (1 - weight) ** (value - 1)
        norm = sympy.integrate(density, (weight, 0, 1))
        factor = mixup.covariance_factor(weight)
        mean = sympy.integrate(factor * density, (weight, 0, 1)) / norm
        assert sympy.simplify(mean - mixup.mean_covariance_factor(sympy.Rational(value))) == 0


def test_limits_of_alpha():
    assert mixup.mean_covariance_factor(np.array([0.0, 1.0, 1e12])) == pytest.approx([1, 2 / 3, 0.5])
    assert mixup.eval_inflation(mixup.mean_covariance_factor(1.0)) == pytest.approx(1.5)


def test_all_permutations_of_a_batch_exactly():
    x, weight = np.random.default_rng(0).exponential(size=(5, 2)), 0.3
    mixed = [weight * x + (1 - weight) * x[list(order)] for order in itertools.permutations(range(5))]
    covariance = np.mean([np.cov(z.T) for z in mixed], 0)
    np.testing.assert_allclose(covariance, mixup.covariance_factor(weight) * np.cov(x.T), rtol=1e-12)
    np.testing.assert_allclose([z.mean(0) for z in mixed], np.tile(x.mean(0), (120, 1)))


def test_centred_spectra_scale_and_others_are_bracketed():
    rng, factor = np.random.default_rng(1), 0.7
    root, mean = rng.normal(size=(6, 6)), 3 * rng.normal(size=6)
    covariance = root @ root.T
    centred = mixup.hessian_spectrum(covariance, np.zeros(6), factor)
    np.testing.assert_allclose(centred, factor * mixup.hessian_spectrum(covariance, np.zeros(6)), rtol=1e-12)
    clean, mixed = (mixup.hessian_spectrum(covariance, mean, f) for f in (1.0, factor))
    assert (mixed >= factor * clean - 1e-12).all()
    assert (mixed <= clean + 1e-12).all()
    assert (np.diff(mixed) <= 0).all()
    sigma, basis = np.linalg.eigh(covariance)
    secular = [(np.square(basis.T @ mean) / (value - factor * sigma)).sum() for value in mixed]
    np.testing.assert_allclose(secular, 1, rtol=1e-9)


def test_top_eigenvalue_lies_between_the_bounds_of_its_derivation():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T
    for length, tight in ((0.2, np.inf), (3.0, 0.2), (100.0, 1e-3)):
        mean = length * rng.normal(size=6)
        square = mean @ mean
        low = square + 0.6 * mean @ covariance @ mean / square
        high = square + 0.6 * np.linalg.eigvalsh(covariance)[-1]
        top = mixup.hessian_spectrum(covariance, mean, 0.6)[0]
        assert low <= top * (1 + 1e-12)
        assert top <= high * (1 + 1e-12)
        assert high / low - 1 <= tight


def test_real_digits_only_the_centred_spectrum_shrinks():
    images = pytest.importorskip("sklearn.datasets").load_digits().data / 16
    covariance, mean, factor = np.cov(images.T, bias=True), images.mean(0), mixup.mean_covariance_factor(1.0)
    clean, mixed = (mixup.hessian_spectrum(covariance, mean, f) for f in (1.0, factor))
    assert mixed[0] / clean[0] == pytest.approx(0.996, abs=1e-3)
    assert mixed[1:20] / clean[1:20] == pytest.approx(factor, abs=2e-2)
    clean, mixed = (mixup.hessian_spectrum(covariance, 0 * mean, f)[:20] for f in (1.0, factor))
    assert mixed / clean == pytest.approx(2 / 3)


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_drawn_pairs(alpha):
    """Skewed inputs with a mean; each replicate is a batch of pairs with one lambda."""
    rng = np.random.default_rng(3)
    x, y = rng.exponential(size=(2, 20_000, 8))
    weight = rng.beta(alpha, alpha, size=(20_000, 1))
    z = weight * x + (1 - weight) * y
    predicted = mixup.mean_covariance_factor(alpha)
    assert_agrees(z.var(1, ddof=1), predicted, rival=1.0)
    assert_agrees(z.mean(1), 1.0, rival=predicted)  # the mean stays
    assert_agrees((z**2).mean(1), predicted + 1, rival=2 * predicted)  # the Hessian is not the covariance


def test_recalibrated_variance_exactly_and_where_there_are_many_values_and_no_eps():
    x, eps = np.random.default_rng(4).exponential(size=7), 0.3
    variance = x.var()
    output = (x - x.mean()) / np.sqrt(x.var(ddof=1) + eps)
    assert mixup.recalibrated_variance(7, eps / variance) == pytest.approx(output.var(), rel=1e-14)
    inflated = (x - x.mean()) / np.sqrt(0.6 * variance + eps)
    assert mixup.eval_inflation(0.6, eps / variance) == pytest.approx(inflated.var(), rel=1e-14)
    assert mixup.recalibrated_variance(1e12) == pytest.approx(1, abs=1e-11)
