"""The answer, the groups, and JSON that every parser takes."""

from __future__ import annotations

import json
import shlex

import jsonschema
import pytest
from conftest import ROOT
from reporting.documents import EXAMPLES, cause, document, finding, layer, many_layers

from normwise.reporting.document import amount, answer, capital, gain, grouped, to_json, with_names


@pytest.fixture(scope="module")
def schema():
    return json.loads((ROOT / "docs" / "report-schema.json").read_text())


def test_json_is_strict_and_fits_the_published_schema(example, schema):
    read = json.loads(to_json(example), parse_constant=lambda word: pytest.fail(f"JSON holds {word}"))
    jsonschema.Draft202012Validator(schema).validate(read)


@pytest.mark.parametrize(
    "change", [{"schema": "other/1"}, {"summary": {}}, {"causes": [{"code": "NW201"}]}, {"extra": 1}]
)
def test_the_schema_refuses_other_documents(schema, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(many_layers() | change)


def test_numbers_that_are_not_finite_become_null():
    evidence = json.loads(to_json(EXAMPLES["holes"]()))["findings"][0]["evidence"]
    assert evidence == {"mean": None, "variance": None, "table": [1.0, None]}


def test_the_answer_is_the_first_cause_that_surely_recovers():
    unsure, sure = cause("NW111", 0.02, half=0.1), cause("NW205", 0.01, half=0.005)
    told = answer(document(causes=[unsure, sure]))
    assert told["command"] == sure["command"]
    assert told["headline"] == sure["title"]
    assert told["detail"].endswith("much comes back.")


def test_without_a_sure_cause_the_worst_finding_answers():
    findings = [finding("NW302", "info", "a"), finding("NW105", "error", "b")]
    told = answer(document(causes=[cause("NW111", 0.0)], findings=findings))
    assert told["headline"].startswith("1 error")
    assert told["detail"].startswith("NW105 at b")
    assert told["level"] == "error"


def test_nothing_found_is_said():
    assert answer(document())["level"] == "clean"


def test_a_question_keeps_its_mark():
    asked = finding("NW601", "error", "bn") | {"message": "is it missing?"}
    assert answer(document(findings=[asked]))["detail"].endswith("missing?")


def test_findings_of_one_rule_are_one_row_with_the_worst_layers_first():
    layers = [layer(name, shift=size) for name, size in (("a", 0.1), ("b", 3.0), ("c", 0.6), ("d", 1.0), ("e", 0.2))]
    made = document(layers=layers, findings=[finding("NW201", "warning", row["name"]) for row in layers])
    (row,) = grouped(made)
    assert row["where"] == "b, d, c and 2 more"
    assert row["layer"] == "b"


def test_groups_go_by_severity():
    severities = [row["severity"] for row in grouped(many_layers())]
    assert severities == ["error", "warning", "info"]


def test_amounts_are_in_the_unit_of_the_metric():
    loss = {"name": "loss", "unit": "", "higher_is_better": False, "samples": 4}
    assert amount(document(), 0.1234) == "12.3%"
    assert amount(document(metric=loss), 1.2345) == "1.23"
    assert gain(document(), cause("NW201", 0.3)) == "30.0 points [27.0, 33.0]"
    assert gain(document(), {"low": None, "high": None, "recovered": None}) == "not measurable"


def test_capital_leaves_the_rest():
    assert capital("fold BatchNorm") == "Fold BatchNorm"


def test_commands_are_ready_to_type():
    made = many_layers()
    filled = with_names(
        made, {"MODEL": ["zoo:make('a b')", "--task", "zoo:task"], "DATA": ["zoo:loader"], "TARGET": None}
    )
    (_, command, model, *options) = shlex.split(filled["causes"][0]["command"])
    assert (command, model, options[:3]) == ("recalibrate", "zoo:make('a b')", ["--task", "zoo:task", "--data"])
    assert made["causes"][0]["command"].startswith("normwise recalibrate MODEL")
    assert with_names(made, {}) == made
