"""`normwise bench`: a table, or JSON and nothing else; the cases are small here, and every family is there."""

from __future__ import annotations

import sys

import pytest
from cli.workshop import Workshop

from normwise.studies import bench_cases, bench_run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cases, "CASES", tuple(case.small() for case in bench_cases.CASES))
    monkeypatch.setattr("normwise.cli.bench._QUICK", (0, 2))
    monkeypatch.setattr("normwise.cli.bench._FULL", (0, 3))
    monkeypatch.setattr(bench_run, "fix_allocator", lambda: "left as it was")  # it would stay so for all tests


@pytest.mark.usefixtures("small")
def test_json_is_all_there_is_on_stdout(workshop: Workshop):
    result = workshop.run("bench", "--json", "--quick")
    assert (result.code, result.err) == (0, "")
    document = result.document
    assert {case["family"] for case in document["cases"]} == set(bench_cases.FAMILIES)
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
