"""What the benchmark compares computes the same; what it counts is what there is; its document is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from normwise.core.kernels import use_backend
from normwise.errors import UsageError
from normwise.layers import BatchNorm
from normwise.reporting.document import to_json
from normwise.studies.bench.cases import CASES, FAMILIES, cases_of, graphs, plain
from normwise.studies.bench.contenders import OURS, Absent, Case, Contender, Target, differences, saved_share
from normwise.studies.bench.rivals import Composite
from normwise.studies.bench.timing import Spread, compare

IDS = [f"{case.family} {case.title}" for case in CASES]


def ways(case: Case) -> list[Contender]:
    found = list(case.contenders(case.shape))
    return [one for one in found if isinstance(one, Contender)]


def contender(module: nn.Module, name: str = OURS, **options: bool) -> Contender:
    return Contender(
        name, module, (torch.randn(32, 16, 32, 32).requires_grad_(),), torch.randn(32, 16, 32, 32), **options
    )


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_contenders_compute_the_same(case: Case, backend: str):
    case = case.small()
    with use_backend(backend):
        found = differences(ways(case))
    if not any(isinstance(one, Absent) for one in case.contenders(case.shape)):
        assert found, "nothing says that ours is right"
    assert max(found.values(), default=0) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_yardstick_is_another_function_and_the_rest_are_not(case: Case):
    found = ways(case.small())
    for one in found:
        if not one.equal:
            assert min(differences([replace(one, equal=True), *found]).values()) < 1e-5  # the others still agree
            assert (
                differences([next(way for way in found if way.name == OURS), replace(one, equal=True)])[one.name] > 0.01
            )


def test_a_contender_that_computes_something_else_is_found_out():
    layer = Composite(16)
    layer.bias.data += 0.01
    ours = contender(BatchNorm(16))
    assert differences([ours, replace(ours, name="other", module=layer)])["other"] > 1e-3
    assert differences([ours, replace(ours, name="other", module=layer, equal=False)]) == {}


def test_a_wrong_gradient_is_found_out():
    class Blocked(nn.Module):  # the output of batch normalization, without the gradient through its statistics
        def forward(self, x: Tensor) -> Tensor:
            variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0, keepdim=True)
            return (x - mean) * (variance + 1e-5).rsqrt()

    ours = contender(BatchNorm(16))
    ours.inputs[0].data += 1
    found = differences([ours, replace(ours, name="other", module=Blocked(), dy=ours.dy + ours.inputs[0].detach())])
    assert found["other"] > 1e-3


@pytest.mark.parametrize("backend", ["cpu", "native"])
def test_batch_norm_keeps_its_input_and_nothing_of_that_size_besides(backend: str):
    with use_backend(backend):
        assert saved_share(contender(BatchNorm(16))) == pytest.approx(1, abs=0.01)


def test_saved_bytes_count_memory_once_and_parameters_not():
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * x.view_as(x) * self.weight[:, :1]  # keeps x twice, x * x, and a view of the weight

    assert saved_share(contender(Views())) == pytest.approx(2, abs=1e-6)
    assert saved_share(contender(Composite(16))) == pytest.approx(3, abs=0.01)


def test_ratios_are_taken_within_rounds():
    slow_machine = [1.0, 10.0, 100.0]
    spread = Spread.of_ratio([0.5, 6.0, 50.0], slow_machine)
    assert (spread.median, spread.low, spread.high) == pytest.approx((0.5, 0.5, 0.55))


def tiny(*targets: Target) -> Case:
    return Case("batch", "tiny", (8, 4, 3), plain, targets)


def test_the_document_holds_every_contender_and_the_floor():
    told = []
    cases = [tiny(Target(1e9), Target(1e-9)), replace(tiny(), family="graph", contenders=graphs, shape=(64, 6))]
    document = compare(
        cases, seconds=0, least=4, allocator="x", tell=lambda number, title: told.append((number, title))
    )
    assert json.loads(to_json(document)) == document
    assert told == [(0, "batch tiny 8x4x3"), (1, "graph tiny 64x6")]
    assert document["schema"] == "normwise-bench/1"
    assert document["allocator"] == "x"
    assert (document["torch"], document["threads"], document["clock"]) == (torch.__version__, 1, "CPU time")
    assert document["cpu"]
    first = document["cases"][0]
    assert [one["name"] for one in first["contenders"]] == ["nn.BatchNorm1d", OURS, "var_mean, autograd", "floor"]
    assert first["rounds"] == 4
    for case in document["cases"]:
        baseline = case["contenders"][0]
        assert baseline["name"] == case["baseline"]
        assert baseline["total"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        for one in case["contenders"]:
            assert 0 < one["forward_ms"] < one["total_ms"]
            for ratio in (one["forward"], one["total"]):
                assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
            assert (one["saved"] is None) == (one["name"] == "floor")
    met, missed = first["targets"]
    assert (met["met"], met["limit"], met["against"]) == (True, 1e9, "nn.BatchNorm1d")
    assert missed["met"] is False
    assert met["ratio"] == first["contenders"][1]["total"]


def test_more_threads_are_wall_time_and_only_for_the_while():
    document = compare([tiny()], threads=2, seconds=0, least=2)
    assert (document["threads"], document["clock"]) == (2, "wall time")
    assert torch.get_num_threads() == 1


def test_a_peer_that_is_not_installed_is_named_and_its_target_stays_open(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    case = Case("graph", "", (64, 6), graphs, (Target(0.2, "PyG GraphNorm"), Target(1e9)))
    document = compare([case], seconds=0, least=2)
    assert document["missing"] == {"PyG GraphNorm": "torch-geometric"}
    (row,) = document["cases"]
    assert [one["name"] for one in row["contenders"]] == ["nn.BatchNorm1d", OURS, "floor"]
    unknown, known = row["targets"]
    assert (unknown["met"], unknown["ratio"]) == (None, None)
    assert known["met"] is True


def test_every_target_names_a_contender():
    pyg = {"PyG GraphNorm"}
    for case in CASES:
        names = {one.name for one in ways(case.small())} | pyg
        assert {target.against for target in case.targets} <= {None, *names}


def test_families():
    assert cases_of(None) == CASES
    assert FAMILIES == (
        "batch",
        "act",
        "masked",
        "graph",
        "domain",
        "conditional",
        "timewise",
        "ghost",
        "renorm",
        "across",
    )
    assert {case.family for case in cases_of("act")} == {"act"}
    with pytest.raises(UsageError, match=r"family must be one of 'batch', .*, got 'nonsense'"):
        cases_of("nonsense")
    assert len(set(IDS)) == len(IDS)


FAULTS = """
import resource, sys, torch
from normwise.studies.bench.timing import fix_allocator
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(fix_allocator() if sys.argv[1] == "fixed" else "as it came", *[faults() for _ in range(24)], sep="|")
"""


def page_faults(how: str) -> tuple[str, list[int]]:
    """How memory is given, and the page faults of one tensor after another."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    said, *faults = done.stdout.strip().split("|")
    return said, [int(count) for count in faults]


def test_a_fixed_allocator_gives_memory_that_was_used_before():
    said, faults = page_faults("fixed")
    if said.startswith("not fixed"):
        pytest.skip(f"memory is {said}")
    assert said == "fixed: freed memory is kept and used again"
    assert min(faults[-4:]) < faults[0] / 10
    assert min(page_faults("left")[1][-4:]) > faults[0] / 2  # or there was nothing to fix
