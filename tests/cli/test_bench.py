"""`normwise bench`: a table, or JSON and nothing else; the cases are small here, and every family is there."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from cli.workshop import DOCS, Workshop

from normwise.studies.bench import cases, timing


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CASES", tuple(case.small() for case in cases.CASES))
    monkeypatch.setattr("normwise.cli.bench._QUICK", (0, 2))
    monkeypatch.setattr("normwise.cli.bench._FULL", (0, 3))
    monkeypatch.setattr(timing, "fix_allocator", lambda: "left as it was")  # it would stay so for all tests


@pytest.mark.usefixtures("small")
def test_json_is_all_there_is_on_stdout(workshop: Workshop):
    result = workshop.run("bench", "--json", "--quick")
    assert (result.code, result.err) == (0, "")
    document = result.document
    assert {case["family"] for case in document["cases"]} == set(cases.FAMILIES)
    assert {case["rounds"] for case in document["cases"]} == {2}
    assert document["allocator"] == "left as it was"


@pytest.mark.usefixtures("small")
def test_a_table_in_a_pipe_is_plain(workshop: Workshop):
    result = workshop.run("bench", "timewise")
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    lines = result.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("case"))
    assert "1 thread (CPU time)" in result.out
    assert "torch" in result.out
    assert lines[start + 1].startswith("timewise 128 steps 64x6x5")
    table = {line[:30].strip().removesuffix(" (does less)"): line.split() for line in lines[start + 2 : start + 7]}
    assert list(table) == ["nn.BatchNorm1d", "normwise", "channels x steps in one BN", "module per step", "floor"]
    assert "<=" in table["normwise"]
    assert "1" in table["nn.BatchNorm1d"]


@pytest.mark.usefixtures("small")
def test_on_a_terminal_progress_goes_to_stderr(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = workshop.run("bench", "ghost", "--json", "--threads", "2")
    assert result.document["threads"] == 2
    assert "ghost 8 parts" in result.err


@pytest.mark.usefixtures("small")
def test_a_missing_peer_is_named_with_its_package(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    result = workshop.run("bench", "graph")
    assert result.code == 0
    assert "not measured: PyG GraphNorm; pip install torch-geometric" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "family must be one of 'batch', 'act'"),
        (("--threads", "0"), "threads must be at least 1, got 0"),
    ],
)
def test_bad_usage_is_one_line(workshop: Workshop, arguments: tuple[str, ...], message: str):
    assert message in workshop.refused("bench", *arguments)


@pytest.mark.usefixtures("small")
def test_the_page_is_written_from_the_json(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = "\n".join(("before", *generator.MARKS, "after")) + "\n"
    monkeypatch.setattr(generator, "BENCHMARKS", workshop.write("page.md", page))
    documents = [workshop.run("bench", "graph", "--json", "--threads", count).document for count in ("1", "2")]
    for name, document in zip("12", documents, strict=True):
        for case in document["cases"]:
            for target in case["targets"]:
                target["met"] = name == "1"
        workshop.write(f"{name}.json", json.dumps(document))
    for _ in range(2):  # a second time replaces, and changes nothing
        generator.write_layers([workshop.folder / "1.json", workshop.folder / "2.json"])
        page = generator.BENCHMARKS.read_text(encoding="utf-8").splitlines()
        assert (page[0], page[-1]) == ("before", "after")
        table = [line for line in page if line.startswith("| graph ")]
        assert len(table) == len(documents[0]["cases"])
        assert all("PyG" in line for line in table)
        missed = [line for line in page if line.startswith("- graph ")]
        assert len(missed) == 6
        assert all("2 threads" in line and "floor" in line for line in missed)


def test_the_page_has_its_place():
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for mark in ("<!-- layers, by docs/generate.py -->", "<!-- end of layers -->"):
        assert text.count(mark) == 1
