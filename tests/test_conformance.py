"""The conformance suite itself: no layer is without it, and a backward pass that lacks a term does not pass it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
import torch
from conformance import LayerConformance
from conformance.sabotage import TERMS, without_term
from torch.autograd.gradcheck import GradcheckError

import normwise.layers
from normwise.layers import GraphBatchNorm

FOLDER = Path(__file__).parent / "layers"
BACKENDS = ("reference", "cpu", "cuda")
ON_TORCHS_OPERATOR = {"TestAcrossChannelNorm", "TestGraphLayerNormOfNodes"}
CENTRES_ONLY = {"TestPairNormOfNodes"}  # whose kernels have a scale that is no function of x


@pytest.fixture(autouse=True)
def short_messages(monkeypatch):
    """`gradcheck` measures everything again, slowly, for its message."""
    monkeypatch.setattr(sys.modules["torch.autograd.gradcheck"], "_run_slow_mode_and_get_error", lambda *_: "")


def suites() -> dict[str, type[LayerConformance]]:
    """The suites of all layers, by name."""
    found = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        module = pytest.importorskip(f"tests.layers.{path.stem}")
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and issubclass(kind, LayerConformance) and kind is not LayerConformance:
                found[name] = kind
    return found


SUITES = suites()


def test_every_layer_has_its_suite():
    covered = {type(suite.case.create(3)) for suite in SUITES.values()}
    kinds = [getattr(normwise.layers, name) for name in normwise.layers.__all__]
    layers = {kind for kind in kinds if issubclass(kind, torch.nn.Module)}
    wrapped = {type(GraphBatchNorm(3).module)}
    assert covered == layers - {GraphBatchNorm} | wrapped


def checks(suite: LayerConformance):
    """The checks of the suite that differentiate; kernels that are interpreted take part in the quicker one."""
    yield suite.test_gradient_equals_finite_differences_of_the_oracle, {}
    if not suite.interpreted:
        yield suite.test_first_derivatives, {"training": True}


def notices(check, options) -> bool:
    """Whether a check of the suite fails."""
    try:
        check(**options)
    except (AssertionError, GradcheckError):
        return True
    return False


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SUITES)
def test_a_missing_term_is_noticed(name, backend, term):
    suite, ours = SUITES[name](), name not in ON_TORCHS_OPERATOR
    there = ours and not (name in CENTRES_ONLY and term in ("x", "T"))
    with suite.running_on(backend):
        for check, options in checks(suite):
            with without_term(backend, term) as called:
                assert notices(check, options) is there
                assert bool(called) is ours


@pytest.mark.parametrize("term", ["dy", "S", "T"])  # the others are nothing where statistics are given
@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.case.running])
def test_so_it_is_with_given_statistics_wherever_the_backend_runs_them(name, backend, term):
    suite = SUITES[name]()
    with suite.running_on(backend), without_term(backend, term) as called:
        noticed = notices(suite.test_first_derivatives, {"training": False})
        assert noticed is (("apply_backward" if term == "dy" else "reduce_backward") in called)
