"""Without a graph's data everything else is measured, and the page says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwise.reporting import style
from normwise.studies.graph_correlation import STUDY
from normwise.studies.graph_correlation.predict import mixed, neighbouring
from normwise.studies.verdict import compare


@pytest.fixture
def _no_cora(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path))
    monkeypatch.setattr(
        sys, "path", [folder for folder in sys.path if not (Path(folder) / "graphdatascience").exists()]
    )


@pytest.mark.usefixtures("_no_cora")
def test_everything_else_is_measured_without_cora():
    made = STUDY.measure(0, "tiny", lambda _: None)
    compared = {one.quantity: one for one in compare(STUDY.predict(made.given), made)}
    assert all(one.sound for one in compared.values())
    assert {neighbouring("digits"), mixed("digits")} < compared.keys()
    assert {neighbouring("Cora"), mixed("Cora")}.isdisjoint(compared)
    (reason,) = made.missing
    assert "pip install" in reason
    assert "graphdatascience" in reason
    with style.look():
        figures = STUDY.figures(made)
    assert "mixed-digits" in figures
    assert not any("Cora" in name for name in figures)
    assert "digits" in STUDY.seen(made)
    assert "Cora" not in STUDY.seen(made)


@pytest.mark.usefixtures("_no_cora")
def test_without_any_graph_the_made_part_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    made = STUDY.measure(0, "tiny", lambda _: None)
    assert all(one.sound for one in compare(STUDY.predict(made.given), made))
    assert len(made.missing) == 2
    assert "scikit-learn" in made.missing[1]
    with style.look():
        assert set(STUDY.figures(made)) == {"kept", "output", "negative"}
    assert STUDY.seen(made) == ""
