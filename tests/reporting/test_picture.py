"""From a figure to a picture."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from reporting.figures import drawn, names

from normwise.reporting import picture, style


def test_a_figure_is_the_same_each_time():
    assert picture.svg(drawn()[0]) == picture.svg(drawn()[0])
    assert picture.png(drawn()[0]) == picture.png(drawn()[0])
    assert picture.png(drawn()[0]).startswith(b"\x89PNG")


@pytest.mark.parametrize("log", ["", "y", "xy"])
def test_names_of_curves_do_not_overlap_and_stand_beside_the_panel(log):
    made, axes = drawn(("theory", "measured", "two\nlines", "idealised"), log=log)
    picture.png(made)
    made.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in names(axes)), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert all(box.x0 >= axes.get_window_extent().x1 for box in boxes)
    assert all(box.x1 <= made.bbox.x1 and box.y1 <= made.bbox.y1 for box in boxes)


def test_a_short_logarithmic_axis_has_ticks_enough():
    made, axes = drawn(log="x")
    picture.svg(made)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2, 5, 10]


def test_a_very_short_logarithmic_axis_has_ticks_enough():
    with style.look():
        made, axes = style.figure("A title", "x", "y", log="y")
        style.curve(axes, [0, 1], [0.6, 2.2])
    picture.png(made)
    low, high = axes.get_ylim()
    assert [tick for tick in axes.get_yticks() if low <= tick <= high] == pytest.approx([0.7, 1, 1.5, 2])


def test_in_a_page_a_picture_takes_the_pages_colours_and_ids_of_its_own():
    with style.look():
        made, axes = style.figure("A title", "x", "y")
        style.points(axes, {"x": [1, 2], "y": [5.0, 6.0], "interval": [1.96, 0.98]}, "measured", color=style.GREEN)
    alone = picture.svg(made)
    assert "#009e73" in alone
    one, two = (picture.inline(alone, name, 'what it "shows"') for name in ("one", "two"))
    assert one.startswith('<svg role="img" aria-label="what it &quot;shows&quot;"')
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(href="|url\()#[^")]*', "", one))
    assert {"ink", "soft", "line", "green"} <= set(re.findall(r"var\(--(\w+)\)", one))
    ids = [set(re.findall(r'\bid="([^"]*)"', page)) for page in (one, two)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', one))
    assert used
    assert used <= ids[0]


@pytest.mark.parametrize(
    ("places", "ticks"),
    [([4, 16, 128], [4, 16, 128]), ([4, 4.5, 128], [5, 10, 20, 50, 100]), (range(4, 129, 4), [5, 10, 20, 50, 100])],
)
def test_ticks_of_a_logarithmic_axis_are_at_the_data_where_they_are_few_and_apart(places, ticks):
    with style.look():
        made, axes = style.figure("A title", "x", "y", log="x")
        style.points(axes, {"x": list(places), "y": [1.0] * len(places), "interval": [0.1] * len(places)})
    picture.svg(made)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == ticks


def test_numbers_of_a_logarithmic_axis_are_all_said_alike():
    with style.look():
        made, axes = style.figure("A title", "x", "y", log="y")
        style.curve(axes, [0, 1], [1e-3, 1e9])
    picture.svg(made)
    low, high = axes.get_ylim()
    said = [tick.get_text() for tick in axes.get_yticklabels() if low <= tick.get_position()[1] <= high]
    assert len(said) > 3
    assert all(text == "1" or (text.startswith("10") and text.strip("10")) for text in said)


def test_a_picture_says_in_words_what_it_shows():
    with style.look():
        made, axes = style.figure("A title", "steps", "loss, nats")
        style.curve(axes, [0, 1], [0.6, 2.2], "the\ntheory")
        style.mark(axes, 1, "the end")
    assert picture.alt_text(made) == "A title. loss, nats over steps. the theory, the end."
    with style.look():
        shown = style.gallery("Digits", {"drawn": np.zeros((1, 1, 4, 4)), "real": np.ones((1, 1, 4, 4))})
    assert picture.alt_text(shown) == "Digits. drawn. real."
