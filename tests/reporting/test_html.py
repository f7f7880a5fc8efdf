"""The page, in a real browser: self-contained, safe, and as wide as a phone."""

from __future__ import annotations

import re

import pytest
from reporting.browser import Page, opened
from reporting.documents import HOSTILE, hostile, many_layers

from normwise.reporting import html


def test_every_page_is_whole_and_asks_nothing_of_the_network(example):
    text = html.render(example)
    page = Page(text)
    assert not page.open
    assert [
        tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object", "embed", "audio", "video")
    ] == []
    asked = [a[key] for _, a in page.tags for key in ("src", "href", "action", "srcset", "xlink:href") if key in a]
    assert asked == ["data:,"]
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_pictures_say_what_they_show(example):
    pictures = [attributes for tag, attributes in Page(html.render(example)).tags if tag == "svg"]
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_fits_and_loads_nothing(tmp_path, width):
    needed, there, loaded, pictures, scripts = opened(html.render(many_layers(150, target=True)), tmp_path, width)
    assert there == pytest.approx(width, abs=20)
    assert needed <= there
    assert (loaded, scripts) == (0, 0)
    assert pictures == 4


def test_hostile_names_stay_text_and_fit(tmp_path):
    text = html.render(hostile())
    assert HOSTILE not in text
    assert "<script" not in text
    needed, there, loaded, _, scripts = opened(text, tmp_path, 390)
    assert (loaded, scripts) == (0, 0)
    assert needed <= there


def test_the_browser_test_would_notice_what_is_too_wide(tmp_path):
    wide = html.render(many_layers()).replace("<main>", '<main><p style="width: 900px">wide</p>')
    needed, there, *_ = opened(wide, tmp_path, 390)
    assert needed > there


def test_the_answer_comes_first_with_its_command():
    text = html.render(many_layers())
    places = [text.index(word) for word in ("<h1>", 'id="command"', 'id="causes"', 'id="depth"', 'id="findings"')]
    assert places == sorted(places)


def test_numbers_that_are_no_numbers_are_left_out_of_pictures(example):
    for picture in re.findall(r"<svg.*?</svg>", html.render(example), re.S):
        assert not re.search(r'"(nan|inf|-inf|None)', picture)
