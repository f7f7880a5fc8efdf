"""SARIF, held against the official schema of 2.1.0."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from reporting.documents import many_layers

from normwise.audit.report import rule_documents
from normwise.reporting import sarif
from normwise.reporting.document import to_json


@pytest.fixture(scope="module")
def validator():
    text = (Path(__file__).parent / "data" / "sarif-2.1.0-rtm.5.json").read_text()
    return jsonschema.Draft4Validator(json.loads(text))


def test_every_document_is_valid_sarif(example, validator):
    validator.validate(json.loads(to_json(sarif.render(example, rule_documents()))))


def test_the_schema_would_notice(validator):
    log = sarif.render(many_layers(), rule_documents())
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator.is_valid(log)


def test_results_name_rule_level_layer_and_evidence():
    log = sarif.render(many_layers(), rule_documents())
    (run,) = log["runs"]
    result = run["results"][0]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    (location,) = result["locations"][0]["logicalLocations"]
    found = many_layers()["findings"][0]
    assert (rule["id"], result["ruleId"], result["level"]) == ("NW201", "NW201", "error")
    assert location["fullyQualifiedName"].endswith(found["layer"])
    assert result["properties"]["evidence"] == found["evidence"]
    assert {r["level"] for r in run["results"]} == {"error", "warning", "note"}


def test_every_rule_has_its_texts():
    rules = sarif.render(many_layers(), rule_documents())["runs"][0]["tool"]["driver"]["rules"]
    assert len(rules) == len(rule_documents())
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
