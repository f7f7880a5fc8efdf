"""The one look of all figures."""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest
from reporting.figures import drawn, names

from normwise.errors import MissingExtraError
from normwise.reporting import picture, style


def test_nothing_outside_is_changed():
    before = dict(matplotlib.rcParams)
    with style.look():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
    picture.svg(drawn()[0])
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"normwise\[studies\]"), style.look():
        pass


def test_points_have_intervals_of_1_96_errors():
    with style.look():
        _, axes = style.figure("A title", "x", "y")
        style.points(axes, {"x": [1, 2], "y": [5.0, 6.0], "interval": [1.96, 0.98]}, "measured")
    (bars,) = axes.containers
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([5 - 1.96, 5 + 1.96]), pytest.approx([6 - 0.98, 6 + 0.98])]


def test_points_that_stand_aside_keep_their_height_and_the_panel():
    places, limits = [], []
    with style.look():
        for aside in (0.0, 9.0):
            made, axes = style.figure("A title", "x", "y")
            style.points(axes, {"x": [1, 2], "y": [5.0, 6.0], "interval": [1.0, 1.0]}, aside=aside)
            made.draw_without_rendering()
            dots, caps, (bars,) = axes.containers[0].lines
            places.append([artist.get_transform().transform((1.0, 5.0)) for artist in (dots, *caps, bars)])
            limits.append((axes.get_xlim(), axes.get_ylim()))
    assert limits[0] == limits[1]
    assert limits[0][1][1] > 7  # the interval is in the panel
    moved = np.subtract(places[1], places[0])
    assert moved == pytest.approx(np.tile([9 / 72 * made.dpi, 0], (len(moved), 1)))


def test_claims_are_dashed_and_theory_is_not():
    with style.look():
        _, axes = style.figure("A title", "x", "y")
        style.curve(axes, [0, 1], [0, 1], color=style.CLAIM, dashed=True)
        style.curve(axes, [0, 1], [0, 1])
    claim, theory = axes.lines
    assert (claim.get_color(), claim.is_dashed()) == (style.VERMILLION, True)
    assert (theory.get_color(), theory.is_dashed()) == (style.BLUE, False)


def test_a_curve_that_ends_in_nothing_is_named_at_its_last_value():
    with style.look():
        _, axes = style.figure("A title", "x", "y")
        style.curve(axes, [0, 1, 2], [1.0, 3.0, np.nan], "theory")
        style.curve(axes, [0], [np.nan], "nothing")
    assert [text.xy[1] for text in names(axes)] == [3.0]


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_claims_and_theory_can_be_read_on_light_and_on_dark():
    for name in ("blue", "vermillion"):
        light, dark = style.PALETTE[name]
        assert _contrast(light, "#ffffff") >= 3.5
        assert _contrast(dark, "#12161b") >= 6
    assert all(_contrast(dark, "#12161b") >= 6 for _, dark in style.PALETTE.values())


def test_a_gallery_shows_every_picture_pixel_by_pixel_with_gaps_that_are_see_through():
    pictures = np.linspace(0, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    with style.look():
        made = style.gallery("A title", {"drawn": pictures, "too bright": pictures[:1] + 1})
        picture.png(made)
    first, second = (np.asarray(axes.images[0].get_array()) for axes in made.axes)
    assert first.shape == (9, 14, 4)
    np.testing.assert_array_equal(first[5:, 10:, 0], pictures[1, 2])
    assert (first[4] == 0).all()
    assert (first[:, 4] == 0).all()
    assert (second[:, :4] == 1).all()
    assert [axes.texts[0].get_text() for axes in made.axes] == ["drawn", "too bright"]


def test_categories_stand_where_they_are_drawn():
    with style.look():
        _, axes = style.figure("A title", "", "y")
        style.categories(axes, ("one", "two"))
    assert [
        (tick.get_text(), place) for tick, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    ] == [
        ("one", 0),
        ("two", 1),
    ]
    assert axes.get_xlim() == (-0.5, 1.5)
