"""The measure of agreement itself: it accepts the truth, and fails on a wrong prediction or a toothless rival."""

from __future__ import annotations

import numpy as np
import pytest
from theory.agreement import assert_agrees

REPLICATES = np.random.default_rng(0).normal(1.0, 1.0, (400, 2))  # standard error .05


def test_truth_against_a_far_rival():
    assert_agrees(REPLICATES, 1.0, rival=[1.0, 1.5])


def test_a_wrong_prediction_fails():
    with pytest.raises(AssertionError, match="predicted"):
        assert_agrees(REPLICATES, [1.0, 1.5], rival=3.0)


def test_a_rival_that_cannot_be_told_apart_fails():
    with pytest.raises(AssertionError, match="cannot tell"):
        assert_agrees(REPLICATES, 1.0, rival=1.05)


def test_an_allowance_widens_both_ways():
    assert_agrees(REPLICATES, 1.5, rival=2.5, allowance=0.6)
    with pytest.raises(AssertionError, match="cannot tell"):
        assert_agrees(REPLICATES, 1.0, rival=1.5, allowance=0.6)
