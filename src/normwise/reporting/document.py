"""Reading the report document: numbers in words, findings in groups, the one answer."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

SEVERITIES = ("error", "warning", "info")
_MANY = 3
_OF_SHIFTS = ("NW20", "NW60")  # codes whose findings are as bad as their layer's shift


def to_json(document: Any) -> str:
    """Return JSON that every parser takes: numbers that are not finite become null."""
    return json.dumps(finite(document), indent=2, allow_nan=False, default=str)


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def surely(cause: dict[str, Any]) -> bool:
    """Whether a cause's fix was measured to recover something: its interval lies above zero."""
    return cause["low"] is not None and cause["low"] > 0


def amount(document: dict[str, Any], value: float | None, *, signed: bool = False) -> str:
    """Say a value of the report's metric: percent for accuracy, three digits otherwise."""
    if value is None:
        return "-"
    metric = document.get("metric") or {}
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}%" if metric.get("unit") == "points" else f"{value:{sign}.3g}"


def gain(document: dict[str, Any], row: dict[str, Any]) -> str:
    """Say what a fix recovers, with its interval."""
    if any(row[key] is None for key in ("low", "high", "recovered")):
        return "not measurable"
    metric = document.get("metric") or {}
    factor, unit = (100, " points") if metric.get("unit") == "points" else (1, "")
    low, high, value = (row[key] * factor for key in ("low", "high", "recovered"))
    return f"{value:.1f}{unit} [{low:.1f}, {high:.1f}]" if factor == 100 else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def answer(document: dict[str, Any]) -> dict[str, str]:
    """Return the one thing to know (`headline`, `detail`) and what to type (`command`, possibly empty)."""
    cause = next((cause for cause in document["causes"] if surely(cause)), None)
    if cause is not None:
        recovered = cause["message"].removeprefix(f"{cause['title']}: ")
        detail = f"{capital(cause['description'])}: {recovered}"
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
        "detail": f"{first['code']} at {first['layer'] or 'the model'}: {_sentence(first['message'])}",
        "command": "" if fix is None else fix["command"],
        "level": worst,
    }


def grouped(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return findings by severity and code: one row for each code, its findings, and where they are, the worst first."""
    shifts = {layer["name"]: _shift(layer) for layer in document["layers"]}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for finding in document["findings"]:
        key = (finding["severity"], finding["code"])
        row = rows.setdefault(key, {**finding, "findings": []})
        row["findings"].append(finding)
    ordered = sorted(rows.values(), key=lambda row: (SEVERITIES.index(row["severity"]), row["code"]))
    for row in ordered:
        if row["code"].startswith(_OF_SHIFTS):
            row["findings"].sort(key=lambda finding: -shifts.get(finding["layer"], 0.0))
            row |= row["findings"][0]
        names = [finding["layer"] or "(model)" for finding in row["findings"]]
        row["where"] = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")
    return ordered


def with_names(document: dict[str, Any], names: dict[str, list[str] | None]) -> dict[str, Any]:
    """Return the document with the placeholders of its commands (MODEL, DATA, TARGET) filled in, ready to type."""
    known = {word: shlex.join(words) for word, words in names.items() if words is not None}
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, known)) + r")\b")

    def filled(row: dict[str, Any]) -> dict[str, Any]:
        command = row["command"]
        return row | {"command": pattern.sub(lambda word: known[word[0]], command)} if known else row

    findings = [f if f["fix"] is None else f | {"fix": filled(f["fix"])} for f in document["findings"]]
    return document | {"causes": [filled(cause) for cause in document["causes"]], "findings": findings}


def capital(text: str) -> str:
    """Begin with a capital letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def subject(document: dict[str, Any]) -> str:
    """Say what was audited, on what."""
    model = document["model"]
    text = f"{model['name']}: {model['norm_layers']} norm layers, {model['parameters']:,} parameters"
    for source in ("data", "target"):
        read = document[source]
        if read is not None:
            text += f"; {source}: {read['samples']} samples in {read['batches']} batches"
    return text


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _shift(layer: dict[str, Any]) -> float:
    """Return how far a layer's statistics are off, in standard deviations or log ratios."""
    columns = ("shift", "log_ratio", "target_shift", "target_log_ratio")
    return max(abs(layer.get(column) or 0.0) for column in columns)
