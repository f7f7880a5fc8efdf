"""A slider's drawings: where curves, names, ticks and dots are, at every position."""

from __future__ import annotations

import re

import numpy as np
import pytest

from normwise.errors import NormwiseError
from normwise.reporting.slider import Slider, document


def made(**changes) -> Slider:
    values = {
        "parameter": "slope",
        "positions": [0.0, 1.0, 2.0],
        "x": np.arange(0, 11),
        "curves": {"up": lambda x, slope: slope * x, "flat": lambda x, slope: 5.0},
        "colors": {"flat": "vermillion"},
        "x_label": "x & more",
        "y_label": "y",
    }
    return Slider(**{**values, **changes})


def places(path: str) -> np.ndarray:
    return np.array([[float(n) for n in pair.split()] for pair in path.removeprefix("M").split("L")])


def test_a_curve_is_drawn_as_it_is():
    frames = document(made())["frames"]
    rising = places(frames[2]["paths"][0])
    assert rising[[0, -1], 0].tolist() == [0, 1000]
    assert np.diff(rising[:, 1]) == pytest.approx(np.diff(rising[:, 1])[0], abs=1)
    assert rising[-1, 1] < rising[0, 1]  # down is positive
    assert (places(frames[0]["paths"][0])[:, 1] == places(frames[0]["paths"][0])[0, 1]).all()


def test_the_axis_does_not_move_and_holds_every_position():
    frames = document(made())["frames"]
    assert len({frame["paths"][1] for frame in frames}) == 1
    assert all(0 <= y <= 1000 for frame in frames for path in frame["paths"] for y in places(path)[:, 1])


def test_a_logarithmic_axis_makes_growth_straight():
    curves = {"grow": lambda x, base: (1 + base) ** x}
    frames = document(made(curves=curves, log=True))["frames"]
    assert np.diff(places(frames[1]["paths"][0])[:, 1]) == pytest.approx(-1000 * np.log10(2) / 5, abs=1)
    picture = document(made(curves=curves, log=True))["pictures"]["wide"]
    assert re.findall(r'class="tick"[^>]*>([^<]*)', picture) == ["1", "10", "100", "1000", "10000", "100000"]


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_names_stand_at_the_ends_and_apart(size):
    curves = {str(i): lambda x, slope, i=i: slope + i * 1e-6 for i in range(4)}
    for frame in document(made(curves=curves))["frames"]:
        down = frame["names"][size]
        assert down == sorted(down, reverse=True)
        assert min(-np.diff(down)) >= 14.9
        assert 0 <= min(down)


def test_the_picture_shows_the_position_it_starts_with():
    for start in (0, 2):
        drawn = document(made(start=start, told=lambda slope: f"<{slope:g}>"))
        assert drawn["told"] == f"<{2 * (start > 0)}>"
        for picture in drawn["pictures"].values():
            assert re.findall(r'class="curve"[^>]* d="([^"]*)"', picture) == drawn["frames"][start]["paths"]


def test_colors_dashes_and_text():
    picture = document(made(dashed=("flat",)))["pictures"]["wide"]
    assert re.findall(r"class=\"curve\" style=\"stroke: var\(--(\w+)\)\"( stroke-dasharray)?", picture) == [
        ("blue", ""),
        ("vermillion", " stroke-dasharray"),
    ]
    assert "x &amp; more" in picture


def test_measured_points_keep_their_place_and_their_interval():
    points = {"x": [0.0, 10.0], "y": [5.0, 30.0], "interval": [1.96, 3.92]}
    drawn = document(made(points=points))
    picture = drawn["pictures"]["wide"]
    heights = [float(y) for y in re.findall(r'class="dot" cx="[\d.]+" cy="([\d.]+)"', picture)]
    bars = [(float(a), float(b)) for a, b in re.findall(r'class="interval" .*? y1="([\d.]+)" y2="([\d.]+)"', picture)]
    unit = (heights[0] - heights[1]) / 25
    assert [(low - high) / unit for low, high in bars] == pytest.approx([2 * 1.96, 4 * 1.96], rel=0.02)
    flat = places(drawn["frames"][0]["paths"][1])[0, 1]
    assert heights[0] == pytest.approx(26 + (300 - 26 - 40) * flat / 1000, abs=0.5)


def test_a_name_that_has_no_room_is_refused():
    with pytest.raises(NormwiseError, match="at most 12 characters, got \\['post-activation'\\]"):
        made(curves={"post-activation": lambda x, slope: x})
