"""`audit`: one trace, every rule, the causes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normwise.audit.attribute import Attribution, attribute
from normwise.audit.probe import DROPOUT_SAMPLES, probe_dropout, probe_leak
from normwise.audit.report import Report, describe_layers
from normwise.audit.rule import Finding, Severity, all_rules, select_rules
from normwise.audit.trace import DomainTrace, Trace, split_batches, trace_domain
from normwise.errors import ModelError, one_of
from normwise.models.batch import batch_size, divisible, read_batches, take_samples
from normwise.models.preserve import preserved
from normwise.models.task import Task
from normwise.models.walk import norm_layers
from normwise.models.wiring import find_wiring

ROLES = ("discriminator", "contrastive", "causal", "private")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def audit(
    model: nn.Module,
    data: Iterable[Any] | None = None,
    *,
    target: Iterable[Any] | None = None,
    task: Task | None = None,
    role: str | None = None,
    step: Callable[[nn.Module, Any], Any] | None = None,
    optimizer: Optimizer | None = None,
    world_size: int = 1,
    select: Iterable[str] | str | None = None,
    ignore: Iterable[str] | str | None = None,
    max_batches: int = 16,
    attribution: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Say what a model's normalization will break, prove it with numbers, and rank the causes by what fixing recovers.

    model: any `nn.Module`; it is bit for bit the same afterwards, also on an exception. data: batches as ONE process
    sees them in training. target: batches of the domain the model is deployed in, labels optional. task: how to run
    the model on a batch (`Task`). role: None, "discriminator", "contrastive", "causal" or "private". step: one
    training step of the user's own, `step(model, batch)`; no rule of this release reads it. optimizer: for NW112. world_size:
    number of processes. select, ignore: rule codes or their beginnings. max_batches: most batches read of each source.
    attribution: whether to measure what each fix recovers (extra, bounded). progress: called with a word at each stage.

    Without data the rules that need none are applied. Costs two evaluation passes over the data and a few small probes.

    Raises: `ModelError`, `DataError`, `UsageError`.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model: expected a torch.nn.Module, got {type(model).__name__}; pass an instance")
    if role is not None and role not in ROLES:
        raise one_of("role", role, ROLES)
    rules = select_rules(select, ignore)
    tell = progress or (lambda _: None)
    norm_layers(model)  # refuses what cannot be audited, before anything runs
    modes = {name: module.training for name, module in model.named_modules()}
    with preserved(model):
        model.train()
        would_train = {name: module.training for name, module in model.named_modules()}
        trace = _trace(model, data, target, task or Task(), tell, max_batches)
        trace.optimizer, trace.role, trace.world_size = optimizer, role, world_size
        trace.was_training, trace.would_train = modes, would_train
        for name, module in model.named_modules():
            module.training = modes.get(name, module.training)
        findings = [finding for rule in rules for finding in rule.check(trace)]
        causes, confirmed = None, []
        if attribution:
            titles = {rule.code: rule.title for rule in all_rules()}
            suspects = [finding for rule in rules for finding in rule.suspect(trace)]
            causes, confirmed = attribute(trace, findings, suspects, titles, lambda: tell("causes"))
    findings = sorted([*_escalated(findings, causes), *confirmed], key=lambda f: (_ORDER[f.severity], f.code))
    return Report(
        findings,
        causes,
        {
            "name": type(model).__name__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "norm_layers": len(trace.layers),
        },
        _described(trace.data),
        _described(trace.target),
        describe_layers(trace),
        trace.notes,
    )


def _trace(
    model: nn.Module,
    data: Iterable[Any] | None,
    target: Iterable[Any] | None,
    task: Task,
    tell: Callable[[str], None],
    max_batches: int,
) -> Trace:
    layers = norm_layers(model)
    known = _read(data, "data", max_batches)
    aim = _read(target, "target", max_batches)
    sample = known or aim
    probe = None if sample is None else sample.fit[0]
    whole = probe is None or not divisible(probe)
    probe = probe if whole else take_samples(probe, slice(0, DROPOUT_SAMPLES))
    run = None if probe is None else (lambda: task.run(model, probe if whole else take_samples(probe, slice(0, 2))))
    model.eval()
    trace = Trace(model, task, layers, find_wiring(model, run), known, aim)
    if not layers:
        trace.notes.append("the model has no layer with batch statistics")
    if probe is None:
        trace.notes.append("no data given: only rules that read the model itself were applied")
        return trace
    for domain in (known, aim):
        if domain is not None:
            trace_domain(model, task, domain, lambda: tell("trace"))
    leak = (
        "the leak probe (NW301) needs batches that can be taken apart, every tensor with the samples first"
        if whole
        else probe_leak(model, task, probe)
    )
    if isinstance(leak, str):
        trace.notes.append(leak)
    else:
        trace.leak = leak
    if any(trace.wiring[layer.name].dropouts for layer in layers):
        trace.dropout_ratios = probe_dropout(model, task, probe)
    tell("probes")
    return trace


def _read(data: Iterable[Any] | None, argument: str, max_batches: int) -> DomainTrace | None:
    if data is None:
        return None
    batches = list(read_batches(data, argument=argument, max_batches=max_batches))
    return split_batches(batches, _last_batch(data, batch_size(batches[0])))


def _last_batch(data: Iterable[Any], size: int) -> int | None:
    """Return the size of a loader's last batch where it can be known without reading to the end."""
    given = getattr(data, "batch_size", None)
    if getattr(data, "drop_last", True) or not isinstance(given, int) or given != size:
        return None
    dataset = getattr(data, "dataset", None)
    if not hasattr(dataset, "__len__"):
        return None
    sampler = getattr(data, "sampler", None)
    count = len(sampler) if hasattr(sampler, "__len__") else len(dataset)  # type: ignore[arg-type]
    return count % given or given


def _escalated(findings: list[Finding], causes: Attribution | None) -> list[Finding]:
    """Turn shifts into errors where their fix was measured to bring something back."""
    if causes is None or causes.metric == "divergence":
        return findings
    costly = {(code, cause.fix.kind) for cause in causes.causes if cause.recovery.low > 0 for code in cause.codes}
    return [
        replace(finding, severity=Severity.ERROR)
        if finding.code in ("NW201", "NW601") and finding.fix is not None and (finding.code, finding.fix.kind) in costly
        else finding
        for finding in findings
    ]


def _described(domain: DomainTrace | None) -> dict[str, Any] | None:
    if domain is None:
        return None
    return {"batches": domain.batches, "samples": sum(domain.batch_sizes), "batch_size": domain.typical_batch}
