"""The book as Markdown."""

from __future__ import annotations

import re

from studies.coins import coin

from normwise.studies.markdown import studies_page
from normwise.studies.run import read_folder, run_studies
from normwise.studies.study import Heading


def test_the_page_has_the_same_numbers_as_the_book(tmp_path):
    studies = [coin("first", claim=0.9), coin("second", heading=Heading.GRAPHS, theory=0.3)]
    run_studies(studies, tmp_path, size="tiny", seed=4)
    text = studies_page(tmp_path, studies, "images")
    assert text.startswith("# Studies\n")
    assert "`normwise study run --all --size tiny --seed 4 --output DIR`" in text
    first, second = (text.index(f"### The {name} & its sides") for name in ("first", "second"))
    assert first < second
    section = text[first:second]
    assert "![A coin. share of heads over coin. theory, measured.](images/first-heads.png)" in section
    (row,) = re.findall(r"^\| heads \| (.*) \|$", section, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    assert (cells[0], cells[2], cells[5], cells[6]) == ("0.9", "0.8", "", "does not hold")
    (result, _) = read_folder(tmp_path, studies)
    assert cells[4] == f"{result.comparisons[0].errors_off:+.1f}"
    assert "[The first & its sides](#the-first--its-sides) | The first is as fair as it says. |" in text
    assert "**Seen besides.** Heads came up 0." in section
    assert "Flip the first." in section
    assert "**The verdict.** The first is as fair as it says. Does not hold: 1. Theory agrees with every" in section
    assert "Beyond the claim: 1. Theory does not explain every measurement" in text[second:]
