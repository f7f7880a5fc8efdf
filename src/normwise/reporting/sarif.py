"""The report as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

from typing import Any

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def render(document: dict[str, Any], rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a SARIF log of one run; a result's logical location is its layer."""
    indices = {rule["code"]: index for index, rule in enumerate(rules)}
    driver = {
        "name": "normwise",
        "semanticVersion": document["version"],
        "rules": [_rule(rule) for rule in rules],
    }
    results = [_result(finding, indices, document["model"]["name"]) for finding in document["findings"]]
    run = {"tool": {"driver": driver}, "results": results, "properties": {"causes": document["causes"]}}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": rule["code"],
        "name": "".join(part.capitalize() for part in rule["name"].split("-")),
        "shortDescription": {"text": rule["title"]},
        "fullDescription": {"text": rule["what"]},
        "help": {"text": f"{rule['why']}\n\n{rule['measured']}\n\n{rule['fix']}"},
        "defaultConfiguration": {"level": _LEVELS[rule["severity"]]},
    }


def _result(finding: dict[str, Any], indices: dict[str, int], model: str) -> dict[str, Any]:
    layer = finding["layer"]
    name = f"{model}.{layer}" if layer else model
    location = {"logicalLocations": [{"name": layer or model, "fullyQualifiedName": name, "kind": "member"}]}
    result = {
        "ruleId": finding["code"],
        "level": _LEVELS[finding["severity"]],
        "message": {"text": finding["message"]},
        "locations": [location],
        "properties": {"evidence": finding["evidence"], "fix": finding["fix"]},
    }
    if finding["code"] in indices:
        result["ruleIndex"] = indices[finding["code"]]
    return result
