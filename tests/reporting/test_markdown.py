"""The report as Markdown."""

from __future__ import annotations

from reporting.documents import hostile, many_layers

from normwise.reporting import markdown


def test_every_document_renders(example):
    text = markdown.render(example)
    assert text.startswith("# normwise: ")
    assert text.endswith("\n")


def test_tables_have_as_many_cells_as_heads():
    for made in (many_layers(), hostile()):
        rows = [line.replace("\\|", "") for line in markdown.render(made).splitlines() if line.startswith("|")]
        assert {row.count("|") for row in rows} == {5, 7}


def test_the_command_and_all_fixes_together_are_there():
    text = markdown.render(many_layers())
    assert "```sh\nnormwise recalibrate MODEL --data NW201" in text
    assert "| all together | 55.0% | 86.2% |" in text


def test_names_make_no_markup():
    outside = markdown.render(hostile()).split("```")
    assert "<script" not in outside[0] + outside[2]
