"""Causes: what each fix, alone and together with the others, brings back on held-back data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from normwise.audit.rule import Finding, Fix
from normwise.audit.score import Recovery, Scores, compare, evaluate
from normwise.audit.trace import DomainTrace, Trace
from normwise.errors import NormwiseError

MOST_CAUSES = 12
SMALLEST_STEPS = 4  # sizes tried in the search for the smallest change
NEARLY_ALL = 0.95
AS_GOOD = 0.9
WORTH = 0.005  # accuracy, or share of the loss, that a suspect's fix must surely recover
# The more specific rule names the cause where several lead to the same fix at one layer.
_SPECIFIC_FIRST = ("NW105", "NW104", "NW107", "NW205", "NW111", "NW601", "NW201")


@dataclass(frozen=True)
class Cause:
    """A fix, the rules that lead to it, and what it recovers; `share` is that of what all fixes together recover."""

    code: str
    codes: tuple[str, ...]
    name: str
    title: str
    fix: Fix
    recovery: Recovery
    minimal_layers: tuple[str, ...]
    share: float | None = None

    def message(self, metric: str) -> str:
        """Say what, where and how much."""
        r, unit = self.recovery, 100 if metric == "accuracy" else 1
        amount = f"{r.recovered * unit:.1f} +- {(r.high - r.low) / 2 * unit:.1f} points of accuracy"
        if metric != "accuracy":
            amount = f"{r.recovered:.3g} +- {(r.high - r.low) / 2:.2g} of {metric}"
        if r.low <= 0:
            return f"{self.title}: no sure effect on these data ({amount})."
        where = ""
        if len(self.minimal_layers) < len(self.fix.layers):
            where = (
                f"; {', '.join(self.minimal_layers[:3])}{' ...' if len(self.minimal_layers) > 3 else ''} alone do it"
            )
        share = "" if self.share is None else f", {self.share:.0%} of what all fixes together recover"
        return f"{self.title}: {amount} come back{share}{where}."


@dataclass(frozen=True)
class Attribution:
    """The metric's name and value now, causes best first, and what all fixes together recover."""

    metric: str
    samples: int
    baseline: float
    causes: list[Cause] = field(default_factory=list)
    together: Recovery | None = None


@dataclass
class _Candidate:
    fix: Fix
    findings: list[Finding]

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes, the most specific first."""
        known = {finding.code for finding in self.findings}
        return tuple(sorted(known, key=lambda c: (_SPECIFIC_FIRST.index(c) if c in _SPECIFIC_FIRST else -1, c)))


def attribute(
    trace: Trace,
    findings: list[Finding],
    suspects: list[Finding],
    titles: dict[str, str],
    tick: Callable[[], None],
) -> tuple[Attribution | None, list[Finding]]:
    """Apply every fix to a copy and measure; None where there is nothing to measure on.

    suspects: findings that count only if their fix is measured to recover something; those that do are returned too.
    """
    domain = trace.target or trace.data
    if domain is None:
        return None, []
    candidates = _candidates(findings)[:MOST_CAUSES]
    before = evaluate(trace.model, trace.task, domain.held)
    outcome = Attribution(before.name, len(before.values), before.mean)
    if len(before.values) < 2:
        return outcome, []
    if not domain.held_is_separate:
        trace.notes.append(
            "causes are measured on the batch they were found on: give at least two batches, or four samples"
        )
    try:
        copy.deepcopy(trace.model)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        trace.notes.append(f"causes are not measured: the model cannot be copied ({type(error).__name__})")
        return outcome, []
    causes: list[Cause] = []
    confirmed: list[Finding] = []
    known = {candidate.fix.kind for candidate in candidates}
    for candidate in [*candidates, *_candidates(s for s in suspects if s.fix is not None and s.fix.kind not in known)]:
        recovery = _measure(trace, domain, before, [candidate.fix])
        tick()
        if recovery is None:
            continue
        if candidate.fix.kind not in known:
            if before.name == "divergence" or recovery.low < WORTH * max(1.0, abs(recovery.before)):
                continue
            confirmed.extend(candidate.findings)
        causes.append(_cause(trace, domain, before, candidate, recovery, titles))
    causes = _ranked(causes)
    together = _together(trace, domain, before, causes)
    if together is not None and together.low > 0:
        causes = [replace(c, share=c.recovery.recovered / together.recovered) for c in causes]
    return replace(outcome, causes=causes, together=together), confirmed


def _ranked(causes: list[Cause]) -> list[Cause]:
    """Rank by what is recovered; of those that equal the best within its error, the one nearest the root goes first.

    The inputs come before a layer's configuration, and that before its statistics: the later ones also absorb what
    the earlier ones cause.
    """
    causes = sorted(causes, key=lambda cause: -cause.recovery.recovered)
    if not causes or causes[0].recovery.low <= 0:
        return causes
    best = causes[0].recovery
    enough = min(best.low, AS_GOOD * best.recovered)
    return sorted(causes, key=lambda c: (0, c.fix.order) if c.recovery.recovered >= enough else (1, 0))


def _candidates(findings: Iterable[Finding]) -> list[_Candidate]:
    """Group findings into one candidate for each kind of fix and most specific code.

    Exact fixes are left out: by definition they recover nothing.
    """
    pairs = [
        (finding, fix)
        for finding in sorted(findings, key=lambda finding: _rank(finding.code))
        for fix in finding.fixes
        if fix.action is not None and not fix.exact
    ]
    candidates: dict[tuple[str, str], _Candidate] = {}
    specific: dict[tuple[str, str], str] = {}
    for finding, fix in pairs:
        code = specific.setdefault((fix.kind, finding.layer), finding.code)
        known = candidates.setdefault((fix.kind, code), _Candidate(fix, []))
        known.findings.append(finding)
        known.fix = merged(known.fix, fix)
    return list(candidates.values())


def _rank(code: str) -> int:
    return _SPECIFIC_FIRST.index(code) if code in _SPECIFIC_FIRST else -1


def merged(first: Fix, second: Fix) -> Fix:
    """Return one fix for the layers of two of the same kind."""
    return first if first.layers == second.layers else first.with_layers([*first.layers, *second.layers])


def apply_fixes(model: nn.Module, fixes: Iterable[Fix]) -> None:
    """Apply fixes in their order, in place."""
    for fix in sorted(fixes, key=lambda fix: fix.order):
        if fix.action is not None:
            fix.action(model, fix.layers)


def _measure(trace: Trace, domain: DomainTrace, before: Scores, fixes: list[Fix]) -> Recovery | None:
    model = copy.deepcopy(trace.model)
    try:
        apply_fixes(model, fixes)
    except NormwiseError as error:
        trace.notes.append(f"not measured: {fixes[0].description} ({error})")
        return None
    after = evaluate(model, trace.task, domain.held)
    return compare(before, after) if after.name == before.name else None


def _cause(
    trace: Trace, domain: DomainTrace, before: Scores, candidate: _Candidate, recovery: Recovery, titles: dict[str, str]
) -> Cause:
    codes, fix = candidate.codes, candidate.fix
    name = next(finding.name for finding in candidate.findings if finding.code == codes[0])
    title = titles[codes[0]]
    if fix.kind == "input-normalisation":
        title = "The inputs are not normalised as in training"
    minimal = fix.layers
    if fix.ranked and recovery.low > 0:
        minimal = _smallest(trace, domain, before, fix, recovery)
    return Cause(codes[0], codes, name, title, fix, recovery, minimal)


def _smallest(trace: Trace, domain: DomainTrace, before: Scores, fix: Fix, full: Recovery) -> tuple[str, ...]:
    """Return the fewest of the layers, worst first, that bring back nearly all; a few sizes are tried."""
    total = len(fix.layers)
    sizes = sorted({max(1, total // 4**step) for step in range(1, SMALLEST_STEPS)})
    for size in (size for size in sizes if size < total):
        found = _measure(trace, domain, before, [fix.with_layers(fix.layers[:size])])
        if found is not None and found.recovered >= NEARLY_ALL * full.recovered:
            return fix.layers[:size]
    return fix.layers


def _together(trace: Trace, domain: DomainTrace, before: Scores, causes: list[Cause]) -> Recovery | None:
    """Measure all fixes at once; of two recalibrations the better one, as the second would undo the first."""
    chosen: list[Fix] = []
    seen: set[str] = set()
    for cause in causes:
        family = cause.fix.kind.split(":")[0]
        conflict = any(f.kind.startswith("recalibrate:") and f.kind != cause.fix.kind for f in chosen)
        if family == "recalibrate" and conflict:
            continue
        if cause.fix.kind not in seen or family == "recalibrate":
            chosen.append(cause.fix)
            seen.add(cause.fix.kind)
    return _measure(trace, domain, before, chosen) if chosen else None
