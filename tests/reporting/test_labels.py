"""Numbers along an axis, and names that do not overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normwise.reporting.labels import apart, numbers


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(5, 30)), min_size=1, max_size=8))
def test_things_are_moved_apart_and_stay_in_order(things):
    wanted, sizes = sorted(place for place, _ in things), [size for _, size in things]
    places = apart(wanted, sizes, 300.0)
    for i in range(1, len(places)):
        assert places[i] - places[i - 1] >= (sizes[i] + sizes[i - 1]) / 2 - 1e-9
    assert places[-1] <= 300


def test_things_that_are_apart_stay_where_they_are():
    assert apart([10.0, 50.0, 100.0], [20.0] * 3, 300.0) == [10.0, 50.0, 100.0]


@pytest.mark.parametrize(
    ("low", "high", "value", "said"),
    [
        (0.001, 1e5, 0.01, "0.01"),
        (0.001, 1e5, 2000, "2000"),
        (0.001, 1.1e5, 2000, "2×10³"),
        (0.0009, 1, 0.01, "10⁻²"),
        (1, 1e12, 1, "1"),
        (1, 1e12, 5, "5"),
        (1, 1e12, 1e12, "10¹²"),
        (1e-9, 1, 2e-4, "2×10⁻⁴"),
    ],
)
def test_numbers_of_one_axis_are_said_alike(low, high, value, said):
    assert numbers(low, high)(value) == said
