"""Results in a folder: kept, resumed, refused, and never overwritten silently."""

from __future__ import annotations

import json

import pytest
from studies.coins import coin

from normwise.errors import DataError, UsageError
from normwise.studies.run import Missing, Result, read_folder, run_studies
from normwise.studies.verdict import compare


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_result_is_written_with_its_verdicts(tmp_path):
    (result,) = run_studies([coin(claim=0.9)], tmp_path / "out", size="tiny", seed=3)
    document = json.loads((tmp_path / "out/coin.json").read_text(encoding="utf-8"))
    assert (document["study"], document["version"], document["size"], document["seed"]) == ("coin", 1, "tiny", 3)
    (comparison,) = document["comparisons"]
    assert comparison["verdict"] == "does not hold"
    assert (comparison["agrees"], comparison["resolved"]) == (True, True)
    assert comparison["measured"]["value"] == result.measurement.estimates["heads"].value
    assert document["measurement"]["series"]["heads"]["error"][0] > 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coin.json", "studies.json"]


def test_what_is_finished_is_not_measured_again(tmp_path):
    calls, said = [], []
    study = coin(before=lambda: calls.append(1))
    first = run_studies([study], tmp_path, size="tiny")
    again = run_studies([study], tmp_path, size="tiny", tell=said.append)
    assert calls == [1]
    assert again[0].to_dict() == first[0].to_dict()
    assert said == ["coin: finished before, kept"]


def test_another_version_is_measured_again_and_said(tmp_path):
    calls, said = [], []
    run_studies([coin()], tmp_path, size="tiny")
    run_studies([coin(version=2, before=lambda: calls.append(1))], tmp_path, size="tiny", tell=said.append)
    assert calls == [1]
    assert "another version" in said[0]
    assert json.loads((tmp_path / "coin.json").read_text())["version"] == 2


def test_a_study_that_lacked_a_part_is_measured_again_once_the_part_is_there(tmp_path):
    lacking, said, calls = ["the edge needs the package 'scanpy'"], [], []
    study = coin(partly=lambda: tuple(lacking), before=lambda: calls.append(1))
    (result,) = run_studies([study], tmp_path, size="tiny", tell=said.append)
    assert isinstance(result, Result)
    assert said == ["coin: a part was not run; the edge needs the package 'scanpy'"]
    run_studies([study], tmp_path, size="tiny", tell=said.append)
    assert said[1:] == ["coin: finished before, kept", "coin: a part was not run; the edge needs the package 'scanpy'"]
    assert calls == [1]
    lacking.clear()
    run_studies([study], tmp_path, size="tiny", tell=said.append)
    assert said[3:] == ["coin: a part of it lacked optional data that are here now; measuring again"]
    run_studies([study], tmp_path, size="tiny", tell=said.append)
    assert said[4:] == ["coin: finished before, kept"]
    assert calls == [1, 1]


def test_spoilt_data_of_one_study_do_not_stop_the_others(tmp_path):
    def spoilt() -> None:
        raise DataError("edges.csv: expected numbers, got 'x'")

    first, second = run_studies([coin("poor", before=spoilt), coin()], tmp_path, size="tiny")
    assert isinstance(first, Missing)
    assert first.reason == "edges.csv: expected numbers, got 'x'"
    assert isinstance(second, Result)


def test_predictions_are_those_of_today(tmp_path):
    run_studies([coin(theory=0.6)], tmp_path, size="tiny")
    assert not json.loads((tmp_path / "coin.json").read_text())["comparisons"][0]["agrees"]
    run_studies([coin(theory=0.5)], tmp_path, size="tiny")
    assert json.loads((tmp_path / "coin.json").read_text())["comparisons"][0]["agrees"]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    calls = []

    def stop() -> None:
        raise KeyboardInterrupt

    first, second = coin("first", before=lambda: calls.append("first")), coin("second", before=stop)
    with pytest.raises(KeyboardInterrupt):
        run_studies([first, second], tmp_path, size="tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "studies.json"]
    second = coin("second", before=lambda: calls.append("second"))
    results = run_studies([first, second], tmp_path, size="tiny")
    assert calls == ["first", "second"]
    assert all(isinstance(result, Result) for result in results)


@pytest.mark.parametrize(("size", "seed"), [("quick", 0), ("tiny", 1)])
def test_another_size_or_seed_is_refused(tmp_path, size, seed):
    run_studies([coin()], tmp_path, size="tiny")
    before = contents(tmp_path)
    with pytest.raises(
        UsageError, match=r"holds studies of size 'tiny', seed 0, not of size .*; choose another folder"
    ):
        run_studies([coin()], tmp_path, size=size, seed=seed)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [("notes.txt", "mine"), ("studies.json", "{}"), ("studies.json", "no json"), ("studies.json", '["a list"]')],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="choose another"):
        run_studies([coin()], tmp_path, size="tiny")
    assert contents(tmp_path) == {name: text.encode()}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="expected a folder"):
        run_studies([coin()], tmp_path / "file", size="tiny")
    assert (tmp_path / "file").read_text() == "kept"


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "empty").mkdir()
    assert run_studies([coin()], tmp_path / "empty", size="tiny")


@pytest.mark.parametrize("text", ["half of it", "[]", '{"study": "coin", "version": 1, "size": "tiny", "seed": 0}'])
def test_a_spoilt_result_is_said_and_left(tmp_path, text):
    run_studies([coin()], tmp_path, size="tiny")
    if text.startswith("{"):
        text = json.dumps({**json.loads(text), "seconds": 1, "measurement": {"estimates": 3}})
    (tmp_path / "coin.json").write_text(text)
    with pytest.raises(UsageError, match=r"coin.json' is no result of a study"):
        run_studies([coin()], tmp_path, size="tiny")
    assert (tmp_path / "coin.json").read_text() == text


def test_a_study_without_its_data_is_left_out_and_the_others_run(tmp_path):
    said = []
    outcomes = run_studies([coin("poor", lacks="scanpy"), coin()], tmp_path, size="tiny", tell=said.append)
    assert isinstance(outcomes[0], Missing)
    assert "'scanpy'" in outcomes[0].reason
    assert isinstance(outcomes[1], Result)
    assert said == [f"poor: not run; {outcomes[0].reason}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coin.json", "studies.json"]


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(UsageError, match="size must be one of 'tiny', 'quick', 'full', got 'huge'"):
        run_studies([coin()], tmp_path / "out", size="huge")
    assert not (tmp_path / "out").exists()


def test_progress_is_told_with_the_name(tmp_path):
    said = []
    run_studies([coin("a"), coin("b")], tmp_path, size="tiny", progress=lambda *told: said.append(told))
    assert said[0] == ("a", 0.0)
    assert said[-1] == ("b", 1.0)


def test_a_folder_is_read_in_the_order_of_the_studies(tmp_path):
    a, b, c = coin("a"), coin("b"), coin("c")
    run_studies([a, b], tmp_path, size="tiny")
    results = read_folder(tmp_path, [b, c, a])
    assert [result.study.name for result in results] == ["b", "a"]
    assert compare(b.predict({}), results[0].measurement) == results[0].comparisons
    with pytest.raises(UsageError, match="expected a folder that `normwise study run` wrote"):
        read_folder(tmp_path / "nowhere", [a])
