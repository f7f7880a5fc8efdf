"""The planted cause leads, its interval excludes zero, and its fix, applied, brings the accuracy back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from audit.patients import batches, raw, trained
from torch import nn

import normwise


def stale(model: nn.Module) -> None:
    model[4].running_mean += 1.5 * model[4].running_var.sqrt()


def broken(model: nn.Module) -> None:
    model[1].running_var[3] = math.nan


def reset(model: nn.Module) -> None:
    model[4].reset_running_stats()


def eps(model: nn.Module) -> None:
    model[4].eps = 1.0


PLANTS = {"NW201": stale, "NW105": broken, "NW104": reset, "NW103": eps}


def accuracy(model: nn.Module, data) -> float:
    with torch.no_grad():
        return float(torch.cat([(model(x).argmax(1) == y).double() for x, y in data]).mean())


@pytest.mark.parametrize("code", PLANTS)
def test_the_planted_cause_leads(code):
    model = trained()
    PLANTS[code](model)
    report = normwise.audit(model, batches())
    top = report.causes[0]
    assert top.code == code
    assert top.recovery.low > 0
    before = accuracy(model, batches())
    assert report.apply(model, unsafe=True)
    model.eval()
    assert accuracy(model, batches()) > before + 0.2


@pytest.mark.parametrize("as_target", [False, True])
def test_missing_input_normalisation_leads(as_target):
    report = normwise.audit(trained(), batches() if as_target else raw(), target=raw() if as_target else None)
    top = report.causes[0]
    assert top.fix.kind == "input-normalisation"
    assert top.recovery.low > 0.3
    evidence = next(f.evidence for f in report.findings if "input_scale" in f.evidence)
    assert evidence["input_scale"] == pytest.approx(0.376, rel=0.1)
    assert evidence["input_offset"][0] == pytest.approx(0.305, abs=0.05)


def test_the_smallest_change_is_named():
    model = trained()
    stale(model)
    assert normwise.audit(model, batches()).causes[0].minimal_layers == ("4",)


def test_a_sound_model_has_no_cause():
    assert normwise.audit(trained(), batches()).causes == []


def test_without_labels_the_gap_between_eval_and_train_is_the_measure():
    model = trained()
    stale(model)
    report = normwise.audit(model, [x for x, _ in batches()])
    assert report.attribution.metric == "divergence"
    assert report.causes[0].code == "NW201"
    assert report.causes[0].recovery.low > 0


def test_regression_is_measured_by_its_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)).train()
    data = [(x := torch.randn(32, 4), x.sum(1, keepdim=True)) for _ in range(12)]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    model[1].running_mean += 3
    report = normwise.audit(model, data)
    assert report.attribution.metric == "loss"
    assert report.causes[0].code == "NW201"
    assert report.causes[0].recovery.low > 0


def test_attribution_can_be_switched_off():
    model = trained()
    stale(model)
    report = normwise.audit(model, batches(), attribution=False)
    assert report.attribution is None
    assert report.causes == []


def test_safe_fixes_leave_the_output_and_unsafe_ones_are_asked_for():
    model = trained()
    stale(model)
    before = copy.deepcopy(model.state_dict())
    report = normwise.audit(model, batches())
    assert report.apply(model) == []
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert report.apply(model, codes=["NW104"], unsafe=True) == []
    assert len(report.apply(model, codes=["NW201"], unsafe=True)) == 1
