"""Allowances: one factor, growth, and what the claim has under its own assumptions."""

from __future__ import annotations

import pytest

from normwise.studies.residual_growth.predict import layouts, predict
from normwise.theory import residual

GIVEN = {"width": 1024, "batch": 2048, "depth": 64, "channels": 64, "images": 128}


def test_first_block_is_the_source_s_and_allowed_a_fraction_of_a_percent():
    first = predict(GIVEN)[layouts(64)[0]]
    assert first.theory == first.claim == 1.5
    assert first.finite_size == pytest.approx(1.5 * 1.5 * (1 / 1024 + 1 / 2048))
    assert first.claim_finite_size == pytest.approx(0.5 / 2045)  # Gaussian input, white gradient: exact


def test_growth_is_allowed_less_than_its_factors_together():
    growth, factor = (predict(GIVEN)[layouts(64)[place]] for place in (4, 3))
    assert growth.theory == pytest.approx(factor.theory**16)
    assert growth.finite_size / growth.theory < 0.3 * 16 * factor.finite_size / factor.theory
    assert growth.finite_size == pytest.approx(0.4 * 16 * (1 / 1024 + 1 / 2048) * growth.theory)


def test_crossing_is_allowed_half_a_block_of_infinite_nets():
    crossing = predict({**GIVEN, "width": 10**9, "batch": 10**9})[layouts(64)[5]]
    assert crossing.theory == 32
    assert crossing.finite_size == pytest.approx(0.5, abs=1e-4)
    assert predict(GIVEN)[layouts(64)[5]].finite_size < 1
    assert residual.post_activation_growth(31) < residual.pre_activation_growth(31)
