"""Models and data that nobody here wrote."""

from __future__ import annotations

import pytest
from real import zoo

import normwise


@pytest.fixture(params=list(zoo.MODELS))
def pretrained(request, data_packages):
    return zoo.MODELS[request.param](data_packages)


NORMS = {"USPSNet": 2, "SVHNNet": 6, "Crepe": 6, "TransNetV2": 6, "EfficientNet": 49}


def test_static_rules_find_no_error(pretrained):
    report = normwise.audit(pretrained)
    assert report.model["norm_layers"] == NORMS[type(pretrained).__name__]
    assert report.exit_code("error") == 0
    assert not any(f.code == "NW104" for f in report.findings)


def test_usps_on_digits_is_no_error_as_data_and_a_shift_as_target(data_packages):
    model = zoo.usps(data_packages)
    assert normwise.audit(model, zoo.digits_for_usps()).exit_code("error") == 0
    report = normwise.audit(model, target=zoo.digits_for_usps())
    assert any(f.code == "NW601" for f in report.findings)
    assert all(row["target_shift"] is not None for row in report.layers)


def test_usps_without_input_normalisation_leads_to_the_inputs(data_packages):
    report = normwise.audit(zoo.usps(data_packages), zoo.digits_for_usps(normalised=False))
    assert report.attribution.baseline < 0.2
    top = report.causes[0]
    assert top.fix.kind == "input-normalisation"
    assert top.recovery.low > 0.4
    evidence = next(f.evidence for f in report.findings if "input_scale" in f.evidence)
    assert evidence["input_scale"] == pytest.approx(zoo.USPS_STD, rel=0.15)
    assert evidence["input_offset"][0] == pytest.approx(zoo.USPS_MEAN, abs=0.1)


def test_lite0_on_photographs_finds_no_error(data_packages):
    report = normwise.audit(zoo.lite0(data_packages), zoo.photograph_crops(batches=4))
    assert report.exit_code("error") == 0
    assert len(report.layers) == 49
    assert report.attribution.baseline > 0.5
