"""The pictures: what is drawn where."""

from __future__ import annotations

import re

import pytest
from reporting.documents import by_loss, cause, document, layer, many_layers, together

from normwise.reporting.charts import NARROW, WIDE, cause_bars, depth_map


def coordinates(picture: str, axis: str) -> list[float]:
    return [float(value) for value in re.findall(rf'(?<=\s)(?:c?{axis}[12]?)="(-?[\d.]+)"', picture)]


@pytest.mark.parametrize("count", [1, 2, 49, 150])
@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("target", [False, True])
def test_everything_lies_inside_the_picture(count, width, target):
    picture = depth_map(many_layers(count, target=target)["layers"], width=width)
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', picture)[1])
    assert all(0 <= x <= width for x in coordinates(picture, "x"))
    assert all(0 <= y <= height for y in coordinates(picture, "y"))
    assert picture.count("<circle") == 2 * count * (2 if target else 1)


def test_names_are_as_many_as_fit():
    for count in (1, 12, 150):
        shown = depth_map(many_layers(count)["layers"]).count('class="name"')
        assert 1 <= shown <= 14


def test_a_layer_beyond_the_threshold_is_drawn_so():
    picture = depth_map([layer("near", shift=0.4), layer("far", shift=0.6)])
    assert re.findall(r'<g class="data( far)?"><title>(\w+)', picture)[:2] == [("", "near"), (" far", "far")]


def test_a_larger_shift_lies_higher():
    picture = depth_map([layer("low", shift=0.1), layer("high", shift=0.4)])
    low, high = (float(re.search(rf"<title>{name} .*?cy=\"([\d.]+)\"", picture)[1]) for name in ("low", "high"))
    assert high < low


def test_no_shifts_no_picture():
    assert depth_map([]) == ""
    assert depth_map([layer("bn", shift=None)]) == ""
    assert cause_bars(document()) == ""


def test_bars_go_right_for_more_accuracy_and_left_for_less_loss():
    for made, sign in ((document(causes=[cause("NW201", 0.3)]), 1), (by_loss(), -1)):
        picture = cause_bars(made)
        before, after = (float(re.search(rf'class="{end}" cx="([\d.]+)"', picture)[1]) for end in ("before", "after"))
        assert (after - before) * sign > 0


def test_all_fixes_together_are_the_last_row():
    causes = [cause("NW201", 0.3), cause("NW205", 0.1)]
    labels = re.findall(r'class="label"[^>]*>([^<]*)', cause_bars(document(causes=causes, together=together(causes))))
    assert labels == ["1. NW201", "2. NW205", "all"]
