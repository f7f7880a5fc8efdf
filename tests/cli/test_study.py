"""`normwise study`: list, run, resume, refuse."""

from __future__ import annotations

import json

import pytest
from cli.workshop import Workshop
from studies.coins import coin

from normwise.studies import study
from normwise.studies.study import Heading, all_studies


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package hold a sound study, a wrong one and one that lacks its data, and no other."""
    known = [
        coin(),
        coin("wrong", theory=0.3, heading=Heading.GRAPHS),
        coin("poor", heading=Heading.PRIVACY, lacks="scanpy"),
    ]
    monkeypatch.setattr(study, "all_studies", lambda: known)


def test_list_names_every_study_in_order(workshop: Workshop):
    result = workshop.run("study", "list")
    assert result.code == 0
    places = [result.out.index(f" {one.name} ") for one in all_studies()]
    assert places == sorted(places)


def test_one_study_runs_and_is_kept(workshop: Workshop):
    arguments = ("study", "run", "small-batch", "--size", "tiny", "--output", "out")
    first = workshop.run(*arguments)
    assert first.code == 0
    assert "small-batch: How noisy the statistics of small batches are" in first.out
    assert first.err == "book: out/book.html\n"  # no bar in a pipe
    before = workshop.contents()
    again = workshop.run(*arguments)
    assert again.code == 0
    assert again.out == first.out
    assert again.err.startswith("small-batch: finished before, kept\n")
    assert workshop.contents() == before


def test_all_run_and_the_exit_code_says_that_theory_failed(workshop: Workshop, coins: None):
    result = workshop.run("study", "run", "--all", "--size", "tiny", "--output", "out", "--seed", "2")
    assert result.code == 1
    assert "disagrees" in result.out
    assert "1 of 2 quantities not borne out; one right prediction in 370 fails by chance" in result.err
    assert "poor: not run; flipping coins needs the package 'scanpy'" in result.err
    page = (workshop.folder / "out/book.html").read_text(encoding="utf-8")
    assert all(f'<section id="{name}"' in page for name in ("coin", "wrong", "poor"))
    assert json.loads((workshop.folder / "out/studies.json").read_text())["seed"] == 2


def test_a_sound_study_gives_zero_and_joins_the_book(workshop: Workshop, coins: None):
    assert workshop.run("study", "run", "wrong", "--size", "tiny", "--output", "out").code == 1
    assert workshop.run("study", "run", "coin", "--size", "tiny", "--output", "out").code == 0
    page = (workshop.folder / "out/book.html").read_text(encoding="utf-8")
    assert all(f'<section id="{name}"' in page for name in ("coin", "wrong"))


def test_an_interrupted_run_says_so_and_keeps_what_is_finished(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    late = {"order": 1, "before": interrupt}
    monkeypatch.setattr(study, "all_studies", lambda: [coin(), coin("late", **late)])
    arguments = ("study", "run", "--all", "--size", "tiny", "--output", "out")
    result = workshop.run(*arguments)
    assert result.code == 130
    assert result.err == "interrupted; finished studies are kept: run the same command to go on\n"
    assert (workshop.folder / "out/coin.json").exists()
    late["before"] = lambda: None
    assert workshop.run(*arguments).err.startswith("coin: finished before, kept\n")


def test_on_a_terminal_there_is_a_bar(workshop: Workshop, coins: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = workshop.run("study", "run", "coin", "--size", "tiny", "--output", "out")
    assert "1 of 1: coin" in result.err
    assert "1 of 1" not in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nosuch", "study must be one of 'coin', 'wrong', 'poor', got 'nosuch'"),
        ("", "expected the name of one study or --all, got neither"),
        ("coin --all", "expected the name of one study or --all, got both"),
        ("coin --size huge", "size must be one of 'tiny', 'quick', 'full', got 'huge'"),
        ("coin --seed -1", "seed must be 0 or more, got -1"),
        ("coin --output mine", "'mine' exists and holds no studies; choose another folder"),
        ("coin --output mine/file", "expected a folder, got the file 'mine/file'"),
        ("coin --output done", "'done' holds studies of size 'tiny', seed 5, not of size 'quick', seed 0"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(workshop: Workshop, coins: None, arguments: str, said: str):
    (workshop.folder / "mine").mkdir()
    workshop.write("mine/file", "kept")
    workshop.run("study", "run", "coin", "--size", "tiny", "--seed", "5", "--output", "done")
    assert said in workshop.refused("study", "run", *arguments.split())


def test_a_study_asked_for_by_name_needs_its_data(workshop: Workshop, coins: None):
    before = workshop.contents()
    result = workshop.run("study", "run", "poor", "--size", "tiny", "--output", "out")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("normwise: error: flipping coins needs the package 'scanpy'")
    assert workshop.contents() == before
