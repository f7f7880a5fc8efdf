"""The one look of all figures."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normwise.errors import MissingExtraError
from normwise.reporting import style


def drawn(labels: tuple[str, ...] = ("theory", "measured"), **options):
    with style.look():
        made, axes = style.figure("A title", "x", "y", **options)
        for label in labels:
            style.curve(axes, [1, 10], [1.0, 2.0], label)
    return made, axes


def names(axes):
    return [text for text in axes.texts if text.get_label() == "direct-label"]


def test_nothing_outside_is_changed():
    before = dict(matplotlib.rcParams)
    with style.look():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
    style.svg(drawn()[0])
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"normwise\[studies\]"), style.look():
        pass


def test_a_figure_is_the_same_each_time():
    assert style.svg(drawn()[0]) == style.svg(drawn()[0])
    assert style.png(drawn()[0]) == style.png(drawn()[0])
    assert style.png(drawn()[0]).startswith(b"\x89PNG")


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


@pytest.mark.parametrize("log", ["", "y", "xy"])
def test_names_of_curves_do_not_overlap_and_stand_beside_the_panel(log):
    made, axes = drawn(("theory", "measured", "two\nlines", "idealised"), log=log)
    style.png(made)
    made.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in names(axes)), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert all(box.x0 >= axes.get_window_extent().x1 for box in boxes)
    assert all(box.x1 <= made.bbox.x1 and box.y1 <= made.bbox.y1 for box in boxes)


def test_a_curve_that_ends_in_nothing_is_named_at_its_last_value():
    with style.look():
        _, axes = style.figure("A title", "x", "y")
        style.curve(axes, [0, 1, 2], [1.0, 3.0, np.nan], "theory")
        style.curve(axes, [0], [np.nan], "nothing")
    assert [text.xy[1] for text in names(axes)] == [3.0]


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(5, 30)), min_size=1, max_size=8))
def test_things_are_moved_apart_and_stay_in_order(things):
    wanted, sizes = sorted(place for place, _ in things), [size for _, size in things]
    places = style.apart(wanted, sizes, 300.0)
    for i in range(1, len(places)):
        assert places[i] - places[i - 1] >= (sizes[i] + sizes[i - 1]) / 2 - 1e-9
    assert places[-1] <= 300


def test_things_that_are_apart_stay_where_they_are():
    assert style.apart([10.0, 50.0, 100.0], [20.0] * 3, 300.0) == [10.0, 50.0, 100.0]


@pytest.mark.parametrize(
    ("value", "said"), [(0.01, "0.01"), (1, "1"), (2000, "2000"), (1e5, "1e5"), (1e12, "1e12"), (2e-4, "2e-4")]
)
def test_ticks_of_logarithmic_axes_are_plain(value, said):
    assert style.plain(value) == said


def test_a_short_logarithmic_axis_has_ticks_enough():
    made, axes = drawn(log="x")
    style.svg(made)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2, 5, 10]


def test_a_very_short_logarithmic_axis_has_ticks_enough():
    with style.look():
        made, axes = style.figure("A title", "x", "y", log="y")
        style.curve(axes, [0, 1], [0.6, 2.2])
    style.png(made)
    low, high = axes.get_ylim()
    assert [tick for tick in axes.get_yticks() if low <= tick <= high] == pytest.approx([0.7, 1, 1.5, 2])


def test_in_a_page_a_picture_takes_the_pages_colours_and_ids_of_its_own():
    with style.look():
        made, axes = style.figure("A title", "x", "y")
        style.points(axes, {"x": [1, 2], "y": [5.0, 6.0], "interval": [1.96, 0.98]}, "measured", color=style.GREEN)
    alone = style.svg(made)
    assert "#009e73" in alone
    one, two = (style.inline(alone, name, 'what it "shows"') for name in ("one", "two"))
    assert one.startswith('<svg role="img" aria-label="what it &quot;shows&quot;"')
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(href="|url\()#[^")]*', "", one))
    assert {"ink", "soft", "line", "green"} <= set(re.findall(r"var\(--(\w+)\)", one))
    ids = [set(re.findall(r'\bid="([^"]*)"', page)) for page in (one, two)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', one))
    assert used
    assert used <= ids[0]


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
        style.png(made)
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
