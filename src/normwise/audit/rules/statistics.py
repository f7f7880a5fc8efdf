"""Rules that read the running statistics themselves; a checkpoint is enough for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from normwise.audit.fixes import advice, recalibration
from normwise.audit.rule import Finding, Fix, Rule, Severity, register
from normwise.audit.statistic import weight_of_initial_value_in
from normwise.audit.trace import Trace
from normwise.core.running import weight_of_initial_value
from normwise.models.walk import NormLayer, stays_in_eval


def _recalibration(trace: Trace, names: list[str]) -> Fix:
    if trace.data is None:
        return advice(
            "recalibrate:data", "recalibrate (needs data)", "normwise recalibrate MODEL --data DATA --output F", names
        )
    return recalibration("data", trace.data.fit, trace.task, names)


@register
class StatisticsNeverUpdated(Rule):
    """NW104."""

    code, name, severity = "NW104", "statistics-never-updated", Severity.ERROR
    title = "Running statistics still hold their initial values"
    what = "running_mean is exactly 0 and running_var exactly 1 in every channel."
    why = "In evaluation mode such a layer normalises nothing; the model sees data it was never trained on."
    measured = "By value, not by num_batches_tracked: counters are lost in conversions, values are not."
    known_problems = "A model nobody has trained yet looks the same, and is no better in evaluation mode."
    fix = "Recalibrate on data."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compare with 0 and 1."""
        for layer in trace.layers:
            mean, variance = layer.running_mean, layer.running_var
            if mean is None or variance is None or not bool((mean == 0).all() and (variance == 1).all()):
                continue
            yield self.finding(
                layer.name,
                f"all {mean.numel()} channels still at mean 0 and variance 1",
                {"channels": mean.numel(), "updates": layer.updates},
                fix=_recalibration(trace, [layer.name]),
            )


@register
class BrokenStatistics(Rule):
    """NW105."""

    code, name, severity = "NW105", "broken-statistics", Severity.ERROR
    title = "Running statistics are not finite, or a variance is negative"
    what = "NaN or Inf in the statistics, or a variance below 0; with data, the first batch that causes it."
    why = "One bad batch is enough: a NaN in an average stays. The model then answers NaN in evaluation mode only."
    measured = "By value. With data, the first batch whose input to the layer is not finite is named."
    known_problems = "A bad batch further on than the audit reads is not seen."
    fix = "Recalibrate on finite data."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Look for values that no data can have given, and for the batch that would give them."""
        for layer in trace.layers:
            mean, variance = layer.running_mean, layer.running_var
            seen = None if trace.data is None else trace.data.layers.get(layer.name)
            bad_batch = None if seen is None else seen.bad_batch
            if mean is not None and variance is not None:
                bad = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
                if bool(bad.any()):
                    evidence = {"channels": int(bad.sum()), "of": bad.numel(), "first_bad_batch": bad_batch}
                    yield self.finding(
                        layer.name,
                        f"{int(bad.sum())} of {bad.numel()} channels hold NaN, Inf or a negative variance",
                        evidence,
                        fix=_recalibration(trace, [layer.name]),
                    )
                    continue
            if bad_batch is not None and self._first(trace, layer):
                yield self.finding(
                    layer.name,
                    f"batch {bad_batch} (from 0) gives values here that are not finite; training on it breaks the statistics",
                    {"first_bad_batch": bad_batch},
                    fix=advice("clean-data", "drop or repair that batch", "torch.isfinite(x).all()"),
                )

    @staticmethod
    def _first(trace: Trace, layer: NormLayer) -> bool:
        layers = {} if trace.data is None else trace.data.layers
        bad = [seen for seen in layers.values() if seen.bad_batch is not None]
        return bool(bad) and min(bad, key=lambda seen: seen.depth).layer.name == layer.name


@register
class DeadChannels(Rule):
    """NW106."""

    code, name, severity = "NW106", "dead-channels", Severity.INFO
    title = "Channels that carry no signal"
    what = "Channels whose variance or whose gamma is about 0."
    why = (
        "A channel with variance far below eps, or with gamma 0, gives the constant beta. It costs time and memory, and "
        "a tiny variance blows a small shift of the data up by 1/sqrt(eps)."
    )
    measured = (
        "Variance below a thousandth of eps (the output's variance is then under 0.1%), or |gamma| below a thousandth "
        "of the layer's rms. Layers whose gammas are ALL zero are spared: that is how residual branches are initialised. "
        "A warning from a tenth of the channels on."
    )
    known_problems = "Pruned models hold such channels on purpose."
    fix = "None automatic: prune the channels, or train with a smaller weight decay on gamma."
    share_of_eps = 1e-3
    share_of_gamma = 1e-3
    many = 0.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Count channels without signal."""
        for layer in trace.layers:
            variance, gamma = layer.running_var, layer.weight
            if variance is None or not bool(torch.isfinite(variance).all()):
                continue
            flat = (variance < self.share_of_eps * layer.working_eps) & (variance >= 0)
            off = torch.zeros_like(flat)
            if gamma is not None and gamma.shape == variance.shape and bool((gamma != 0).any()):
                size = gamma.detach().abs()
                off = size < self.share_of_gamma * size.square().mean().sqrt()
            dead = flat | off
            if not bool(dead.any()):
                continue
            share = float(dead.double().mean())
            yield self.finding(
                layer.name,
                f"{int(dead.sum())} of {dead.numel()} channels give a constant",
                {
                    "channels": int(dead.sum()),
                    "of": dead.numel(),
                    "by_variance": int(flat.sum()),
                    "by_gamma": int(off.sum()),
                },
                severity=Severity.WARNING if share > self.many else Severity.INFO,
            )


@register
class ShortHistory(Rule):
    """NW205."""

    code, name, severity = "NW205", "short-history", Severity.WARNING
    title = "Running averages still hold their initial values"
    what = "Running statistics after too few updates: more than 5% of the initial 0 and 1 is left."
    why = "After k updates of momentum a the average still holds (1 - a)^k of where it began: 35% after 10 at 0.1."
    measured = (
        "From num_batches_tracked and momentum; with data also from the values, by regressing the gap between running "
        "and measured statistics on the gap between initial and measured: both must say more than 5%."
    )
    known_problems = "Without data a counter that was reset on trained statistics is taken at its word; 0 is not."
    fix = "Recalibrate, or train for longer."
    most = 0.05

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compute what is left of the initial value."""
        for layer in trace.layers:
            momentum, updates = layer.momentum, layer.updates
            if layer.running_mean is None or not momentum or not updates or stays_in_eval(layer.module):
                continue
            left = weight_of_initial_value(momentum, updates)
            if left <= self.most:
                continue
            evidence = {"updates": updates, "momentum": momentum, "initial_weight": left}
            seen = None if trace.data is None else trace.data.layers.get(layer.name)
            if seen is not None and seen.measured:
                evidence["initial_weight_measured"] = weight_of_initial_value_in(seen)
                if evidence["initial_weight_measured"] <= self.most:
                    continue
            yield self.finding(
                layer.name,
                f"after {updates} updates {left:.0%} of the initial statistics are left",
                evidence,
                fix=_recalibration(trace, [layer.name]),
            )
