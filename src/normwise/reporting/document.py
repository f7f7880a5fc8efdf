"""Reading the report document: numbers in words, findings in groups, the one answer."""

from __future__ import annotations

import json
from typing import Any

SEVERITIES = ("error", "warning", "info")
_MANY = 3


def to_json(document: Any) -> str:
    """Return JSON that every parser takes: no NaN."""
    return json.dumps(document, indent=2, allow_nan=False, default=str)


def amount(document: dict[str, Any], value: float | None, *, signed: bool = False) -> str:
    """Say a value of the report's metric: percent for accuracy, three digits otherwise."""
    if value is None:
        return "-"
    metric = document.get("metric") or {}
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}%" if metric.get("unit") == "points" else f"{value:{sign}.3g}"


def gain(document: dict[str, Any], row: dict[str, Any]) -> str:
    """Say what a fix recovers, with its interval."""
    metric = document.get("metric") or {}
    factor, unit = (100, " points") if metric.get("unit") == "points" else (1, "")
    low, high, value = (row[key] * factor for key in ("low", "high", "recovered"))
    return f"{value:.1f}{unit} [{low:.1f}, {high:.1f}]" if factor == 100 else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def answer(document: dict[str, Any]) -> dict[str, str]:
    """Return the one thing to know (`headline`, `detail`) and what to type (`command`, possibly empty)."""
    cause = next((cause for cause in document["causes"] if cause["low"] > 0), None)
    if cause is not None:
        recovered = cause["message"].removeprefix(f"{cause['title']}: ")
        detail = f"{cause['description'].capitalize()}: {recovered}"
        return {"headline": cause["title"], "detail": detail, "command": cause["command"], "level": "error"}
    counts = document["summary"]
    worst = next((severity for severity in SEVERITIES if counts[severity]), None)
    if worst is None:
        return {
            "headline": "Nothing found",
            "detail": "No rule found anything to say.",
            "command": "",
            "level": "clean",
        }
    first = next(finding for finding in document["findings"] if finding["severity"] == worst)
    measured = "; no fix recovers anything surely" if document["metric"] is not None else ""
    fix = first["fix"]
    return {
        "headline": f"{counts[worst]} {worst}{'s' if counts[worst] > 1 and worst != 'info' else ''}{measured}",
        "detail": f"{first['code']} at {first['layer'] or 'the model'}: {first['message']}.",
        "command": "" if fix is None else fix["command"],
        "level": worst,
    }


def grouped(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return findings by severity and code: one row for each code, its layers, and its findings."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for finding in document["findings"]:
        key = (finding["severity"], finding["code"])
        row = rows.setdefault(key, {**finding, "findings": []})
        row["findings"].append(finding)
    ordered = sorted(rows.values(), key=lambda row: (SEVERITIES.index(row["severity"]), row["code"]))
    for row in ordered:
        names = [finding["layer"] or "(model)" for finding in row["findings"]]
        row["where"] = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")
    return ordered


def subject(document: dict[str, Any]) -> str:
    """Say what was audited, on what."""
    model = document["model"]
    text = f"{model['name']}: {model['norm_layers']} norm layers, {model['parameters']:,} parameters"
    for source in ("data", "target"):
        read = document[source]
        if read is not None:
            text += f"; {source}: {read['samples']} samples in {read['batches']} batches"
    return text
