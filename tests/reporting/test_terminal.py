"""The report in a terminal."""

from __future__ import annotations

import io

from reporting.documents import HOSTILE, hostile, many_layers
from rich.console import Console

from normwise.reporting import terminal


def rendered(document, width: int = 200) -> str:
    stream = io.StringIO()
    terminal.render(document, Console(file=stream, width=width))
    return stream.getvalue()


def test_every_document_renders_at_every_width(example):
    for width in (40, 80, 200):
        assert example["model"]["name"][:5] in rendered(example, width)


def test_the_answer_comes_first_then_causes_then_findings():
    text = rendered(many_layers())
    places = [
        text.index(word) for word in ("> normwise recalibrate MODEL --data NW201", "causes, by accuracy", "findings")
    ]
    assert places == sorted(places)
    assert "31.2 points [28.2, 34.2]" in text


def test_forty_nine_repeats_are_one_row():
    lines = [line for line in rendered(many_layers()).splitlines() if "and 46 more" in line]
    assert len(lines) == 1


def test_markup_in_names_is_text():
    assert HOSTILE in rendered(hostile())
