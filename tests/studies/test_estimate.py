"""Estimates: errors, and how far the truth may be from a mean of few replicates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from normwise.errors import NormwiseError
from normwise.studies.estimate import DOUBT, Estimate, overlapping, root_mean, root_mean_square, series, student, told


def test_an_estimate_is_the_mean_and_its_standard_error():
    estimate = Estimate.of([1.0, 2.0, 3.0, 6.0])
    assert estimate.value == 3.0
    assert estimate.error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    samples = np.random.default_rng(0).normal(size=30)
    jackknifed, plain = Estimate.jackknife(lambda values: float(values.mean()), samples), Estimate.of(samples)
    assert jackknifed.value == pytest.approx(plain.value)
    assert jackknifed.error == pytest.approx(plain.error)


def test_the_jackknife_error_of_a_ratio_is_its_spread():
    random = np.random.default_rng(0)
    draws = random.normal([2, 4], 1, (200, 40, 2))
    estimates = [Estimate.jackknife(lambda v: float(v[:, 0].mean() / v[:, 1].mean()), draw) for draw in draws]
    spread = np.std([one.value for one in estimates])
    assert np.mean([one.error for one in estimates]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, 2.0], 3.0])
def test_too_few_replicates_are_refused(samples):
    with pytest.raises(NormwiseError, match="at least 3 replicates"):
        Estimate.of(samples)


@pytest.mark.parametrize("values", [(math.nan, 0.1), (1.0, math.inf)])
def test_what_is_not_finite_is_no_measurement(values):
    with pytest.raises(NormwiseError, match="finite"):
        Estimate(*values)


def test_a_series_has_an_error_at_every_point():
    drawn = series([1, 2], [[1.0, 4.0], [2.0, 4.0], [3.0, 4.0]])
    error = 1 / math.sqrt(3)
    assert (drawn["x"], drawn["y"]) == ([1, 2], [2.0, 4.0])
    assert drawn["error"] == pytest.approx([error, 0.0])
    assert drawn["interval"] == pytest.approx([4.3027 * error, 0.0], rel=1e-4)  # Student's, of 3 replicates


@pytest.mark.parametrize("replicates", [2, 3, 4, 5, 8, 13, 40])
@pytest.mark.parametrize("chance", [0.5, 0.05, DOUBT])
def test_quantiles_are_students(chance, replicates):
    known = pytest.importorskip("scipy.stats").t.isf(chance / 2, replicates - 1)
    assert student(chance, replicates) == pytest.approx(known, rel=1e-9)


def test_many_replicates_are_a_known_error():
    assert (student(DOUBT, None), student(0.05, None)) == pytest.approx((3.0, 1.96), abs=1e-4)
    assert student(DOUBT, 20_000) == pytest.approx(3.0, abs=1e-3)
    known = Estimate(1.0, 0.1)
    assert (known.tolerance, known.interval) == pytest.approx((0.3, 0.196), abs=1e-4)


@pytest.mark.parametrize("replicates", [3, 6, 12])
def test_few_replicates_contain_the_truth_as_often_as_they_say(replicates):
    """Of 20,000 means, 95% intervals miss 5% (standard error .15%), tolerances .27% (.04%); 3 errors of 3 miss 9.5%."""
    samples = np.random.default_rng(0).normal(size=(20_000, replicates))
    each = [Estimate.of(one) for one in samples]
    off = np.array([abs(one.value) for one in each])
    assert np.mean(off > [one.interval for one in each]) == pytest.approx(0.05, abs=0.007)
    assert np.mean(off > [one.tolerance for one in each]) == pytest.approx(DOUBT, abs=0.0016)
    if replicates == 3:
        assert np.mean(off > [3 * one.error for one in each]) > 0.08


@pytest.mark.parametrize(
    ("y", "interval", "said"),
    [
        (0.93456, 0.0213, "0.935 ± 0.021"),
        (93.4, 21.0, "93 ± 21"),
        (0.5, 0.0, "0.5"),
        (0.0, 0.0, "0"),
        (0.123456, 0.0, "0.123"),
    ],
)
def test_a_dot_is_told_to_two_digits_of_its_interval(y, interval, said):
    assert told({"y": [0.0, y], "interval": [9.0, interval]}) == said
    assert told({"y": [y, 0.0], "interval": [interval, 9.0]}, 0) == said


def test_the_root_of_the_mean_is_what_is_jackknifed():
    assert root_mean(np.array([1.0, 7.0])) == 2.0


def test_intervals_overlap_where_they_have_a_value_in_common():
    drawn = {"y": [1.0, 2.0, 4.0], "interval": [0.5, 0.5, 0.5]}
    assert overlapping(drawn, 0, 1)
    assert not overlapping(drawn, 1, 2)
    assert not overlapping(drawn)
    assert overlapping({"y": [1.0, 2.0, 4.0], "interval": [2.0, 0.5, 2.0]})


@pytest.mark.parametrize("values", [[3.0, -4.0], np.array([[3.0], [-4.0]]), torch.tensor([3.0, -4.0])])
def test_a_root_mean_square_is_one_number_of_arrays_and_tensors(values):
    assert root_mean_square(values) == pytest.approx(12.5**0.5)
