"""The report: causes first, then findings, in every format, and the fixes ready to apply."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normwise.audit.attribute import Attribution, Cause, apply_fixes, merged
from normwise.audit.rule import Finding, Fix, Severity, all_rules, select_rules
from normwise.audit.statistic import shift_of
from normwise.audit.trace import DomainTrace, Trace
from normwise.errors import one_of
from normwise.reporting.document import finite, to_json

SCHEMA = "normwise-report/1"
_LEVELS = {"error": (Severity.ERROR,), "warning": (Severity.ERROR, Severity.WARNING)}
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Report:
    """What an audit found. `causes` are ranked by what their fix recovers on held-back data."""

    findings: list[Finding]
    attribution: Attribution | None
    model: dict[str, Any]
    data: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    layers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def causes(self) -> list[Cause]:
        """Causes, best first; empty where attribution was off or had nothing to measure on."""
        return [] if self.attribution is None else self.attribution.causes

    def exit_code(self, level: str = "error") -> int:
        """Return 1 if there are findings at or above a level ("error" or "warning"), else 0."""
        if level not in _LEVELS:
            raise one_of("level", level, tuple(_LEVELS))
        return int(any(finding.severity in _LEVELS[level] for finding in self.findings))

    def apply(self, model: nn.Module, codes: Collection[str] | None = None, *, unsafe: bool = False) -> list[str]:
        """Apply the fixes to a model, in place; return what was done, a line each.

        Exact fixes only, unless `unsafe`; codes limits them to some rules. A fix that only a person can make is left.
        Of two recalibrations, on the data and on the target, the one that recovered more is made.
        """
        chosen = None if codes is None else {rule.code for rule in select_rules(codes, None)}
        fixes: dict[str, Fix] = {}
        for finding in self.findings:
            fix = finding.fix
            if fix is None or fix.action is None or fix.advice or (chosen is not None and finding.code not in chosen):
                continue
            if fix.exact or unsafe:
                fixes[fix.kind] = merged(fixes[fix.kind], fix) if fix.kind in fixes else fix
        rivals = [kind for kind in fixes if kind.startswith("recalibrate:")]
        for kind in rivals if len(rivals) > 1 else []:
            if kind != self._better_of(rivals):
                del fixes[kind]
        ordered = sorted(fixes.values(), key=lambda fix: fix.order)
        apply_fixes(model, ordered)
        return [f"{fix.description} ({len(fix.layers)} layers)" for fix in ordered]

    def _better_of(self, kinds: list[str]) -> str:
        ranked = [cause.fix.kind for cause in self.causes if cause.fix.kind in kinds]
        return ranked[0] if ranked else max(kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `docs/report-schema.json`."""
        from normwise import __version__

        a = self.attribution
        counts = {level.value: sum(f.severity is level for f in self.findings) for level in Severity}
        return finite(
            {
                "schema": SCHEMA,
                "version": __version__,
                "model": self.model,
                "data": self.data,
                "target": self.target,
                "metric": None
                if a is None
                else {
                    "name": a.metric,
                    "unit": "points" if a.metric == "accuracy" else "",
                    "higher_is_better": a.metric == "accuracy",
                    "samples": a.samples,
                },
                "baseline": None if a is None else a.baseline,
                "causes": [] if a is None else [_cause_document(cause, a.metric) for cause in a.causes],
                "together": None if a is None or a.together is None else asdict(a.together),
                "findings": [_finding_document(finding) for finding in self.findings],
                "layers": self.layers,
                "notes": self.notes,
                "summary": counts,
            }
        )

    def to_json(self) -> str:
        """Return the document as JSON."""
        return to_json(self.to_dict())

    def to_sarif(self) -> dict[str, Any]:
        """Return SARIF 2.1.0 for code scanning."""
        from normwise.reporting import sarif

        return sarif.render(self.to_dict(), rule_documents())

    def to_markdown(self) -> str:
        """Return Markdown for a pull request."""
        from normwise.reporting import markdown

        return markdown.render(self.to_dict())

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page; return its path."""
        from normwise.reporting import files, html

        files.write_atomically(Path(path), html.render(self.to_dict()))
        return Path(path)


def rule_documents() -> list[dict[str, Any]]:
    """Return every rule's texts as plain data."""
    names = ("code", "name", "title", "what", "why", "measured", "known_problems", "fix", "exact")
    return [{name: getattr(rule, name) for name in names} | {"severity": rule.severity.value} for rule in all_rules()]


def describe_layers(trace: Trace) -> list[dict[str, Any]]:
    """Return one row a norm, in order of execution, with its shift against data and target."""
    order = {name: seen.depth for _, domain in reversed(trace.domains) for name, seen in domain.layers.items()}
    rows = []
    for layer in sorted(trace.layers, key=lambda layer: order.get(layer.name, len(order))):
        row: dict[str, Any] = {"name": layer.name, "kind": type(layer.module).__name__, "channels": layer.channels or 0}
        row |= _shift_columns(trace.data, layer.name, "") | _shift_columns(trace.target, layer.name, "target_")
        found = [d.layers[layer.name].values_in(d.typical_batch, d) for _, d in trace.domains if layer.name in d.layers]
        row["values"] = round(found[0]) if found and math.isfinite(found[0]) else 0
        rows.append(row)
    return rows


def _shift_columns(domain: DomainTrace | None, name: str, prefix: str) -> dict[str, Any]:
    names = ("shift", "log_ratio", "shift_quantiles", "log_ratio_quantiles")
    seen = None if domain is None else domain.layers.get(name)
    shift = None if seen is None or seen.layer.statistics is None else shift_of(seen)
    if seen is None or shift is None:
        return dict.fromkeys((prefix + column for column in names), None)
    by_channel, ratio = seen.shift()
    levels = torch.tensor(_QUANTILES, dtype=by_channel.dtype, device=by_channel.device)
    values = (shift.size, shift.log_ratio, by_channel.quantile(levels).tolist(), ratio.log().quantile(levels).tolist())
    return {prefix + column: value for column, value in zip(names, values, strict=True)}


def _cause_document(cause: Cause, metric: str) -> dict[str, Any]:
    return {
        "code": cause.code,
        "codes": list(cause.codes),
        "name": cause.name,
        "title": cause.title,
        "message": cause.message(metric),
        "layers": list(cause.fix.layers),
        "minimal_layers": list(cause.minimal_layers),
        **asdict(cause.recovery),
        "share": cause.share,
        "description": cause.fix.description,
        "command": cause.fix.command,
        "exact": cause.fix.exact,
    }


def _finding_document(finding: Finding) -> dict[str, Any]:
    fix = finding.fix
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "layer": finding.layer,
        "message": finding.message,
        "evidence": finding.evidence,
        "fix": None if fix is None else {"description": fix.description, "command": fix.command, "exact": fix.exact},
    }
