"""Rules about what stands around a norm: a bias, a freeze, a second use, dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normwise.audit.fixes import advice, drop_bias, frozen, recalibration
from normwise.audit.rule import Finding, Rule, Severity, register
from normwise.audit.statistic import SHIFT, difference
from normwise.audit.trace import Trace
from normwise.care.policy import affine_parameters
from normwise.models.walk import NormLayer


@register
class BiasBeforeNorm(Rule):
    """NW101."""

    code, name, severity = "NW101", "bias-before-norm", Severity.INFO
    title = "A bias that the next norm cancels"
    what = "A convolution or linear layer with a bias whose only reader is a norm."
    why = "The norm subtracts the mean, and the bias with it: it has no effect, no gradient in training, and costs."
    measured = (
        "The model's wiring, by symbolic trace or by watching one forward pass: the norm must be the only reader."
    )
    known_problems = "With frozen statistics the bias does act, and does learn."
    fix = "Fold it into the running mean and build the layer with bias=False."
    exact = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Read the wiring."""
        producers = {layer.name: producer for layer in trace.layers if (producer := _cancelled(trace, layer))}
        for name, producer in producers.items():
            bias = trace.model.get_submodule(producer).bias
            half = isinstance(bias, Tensor) and bias.dtype in (torch.float16, torch.bfloat16)
            yield self.finding(
                name,
                f"the bias of '{producer}' is cancelled here",
                {"producer": producer, "parameters": bias.numel() if isinstance(bias, Tensor) else 0},
                fix=drop_bias(producers, exact=not half).with_layers([name]),
            )


def _cancelled(trace: Trace, layer: NormLayer) -> str | None:
    """Return the layer whose bias only this norm reads, if there is one."""
    feed = trace.wiring[layer.name]
    if feed.producer is None or not feed.sole or feed.producer_calls != 1 or feed.calls != 1:
        return None
    if not trace.normalises_batches(layer):
        return None  # frozen statistics cancel nothing
    producer, ranks = trace.model.get_submodule(feed.producer), trace.ranks_of(layer.name)
    if isinstance(producer, nn.Linear) and ranks - {2}:
        return None  # its bias lies on the last axis, the norm's channels on the first after the batch
    bias = producer._parameters.get("bias")
    return feed.producer if bias is not None and bias.ndim == 1 and len(bias) == layer.channels else None


@register
class HalfFrozen(Rule):
    """NW108."""

    code, name, severity = "NW108", "half-frozen", Severity.WARNING
    title = "A norm is only half frozen"
    what = (
        "A frozen affine with statistics that still move in training, statistics frozen by a call to eval() that the "
        "next train() undoes, or (info) frozen statistics with a learning affine."
    )
    why = (
        "Freezing parameters does not freeze buffers: each training batch moves running_mean and running_var, and the "
        "frozen part drifts away from what it was."
    )
    measured = "Flags of the layer and of the model around it."
    known_problems = "Moving statistics under a frozen affine are wanted in some adaptation methods."
    fix = "normwise.freeze(model, affine=True), which survives train(). Evaluation does not change."
    exact = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compare what learns with what is frozen, unless the whole model is frozen."""
        if not any(parameter.requires_grad for parameter in trace.model.parameters()):
            return
        for layer in trace.layers:
            if layer.statistics is None:
                continue
            found = self._found(trace, layer)
            if found is not None:
                severity, text = found
                fix = frozen([layer.name]) if severity is Severity.WARNING else None
                evidence = {"statistics_move": trace.moves(layer), "affine_learns": self._learns(layer)}
                yield self.finding(layer.name, text, evidence, fix=fix, severity=severity)

    @staticmethod
    def _learns(layer: NormLayer) -> bool:
        return any(parameter.requires_grad for parameter in affine_parameters(layer))

    def _found(self, trace: Trace, layer: NormLayer) -> tuple[Severity, str] | None:
        moves, parameters = trace.moves(layer), affine_parameters(layer)
        if moves and trace.was_training.get("") and not trace.was_training.get(layer.name, True):
            return Severity.WARNING, "in eval mode inside a model in train mode: the next train() undoes it"
        if moves and parameters and not self._learns(layer):
            return Severity.WARNING, "weight and bias are frozen, the statistics still move in training"
        if not moves and parameters and self._learns(layer) and layer.momentum != 0:
            return Severity.INFO, "statistics are frozen, weight and bias still learn"
        return None


@register
class SharedNorm(Rule):
    """NW109."""

    code, name, severity = "NW109", "shared-norm", Severity.INFO
    title = "One norm normalises several places"
    what = "One module is used several times in a forward pass."
    why = (
        "Its running statistics mix the places, which in training each used their own: where the places differ, "
        "evaluation is wrong at all of them."
    )
    measured = "The moments at each use are compared: a warning above half a standard deviation beyond sampling error."
    known_problems = "A Siamese network's second call sees the same distribution, and is only noted."
    fix = "Give each place a norm of its own; weights may stay shared."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compare the places of every norm used more than once."""
        for seen in () if trace.data is None else trace.data.layers.values():
            if len(seen.places) < 2:
                continue
            gap = max(difference(seen.places[0], place) for place in seen.places[1:])
            apart = gap > SHIFT
            yield self.finding(
                seen.layer.name,
                f"used {len(seen.places)} times in a pass; the places are {gap:.2f} sd apart",
                {"places": len(seen.places), "largest_gap": gap},
                severity=Severity.WARNING if apart else Severity.INFO,
                fix=advice("own-norm", "give each place its own norm", "one nn.BatchNorm per place", [seen.layer.name])
                if apart
                else None,
            )


@register
class DropoutBeforeNorm(Rule):
    """NW111."""

    code, name, severity = "NW111", "dropout-before-norm", Severity.WARNING
    title = "Dropout before a norm shifts the variance in evaluation"
    what = "Dropout upstream of a norm, with no other norm between."
    why = (
        "Dropout scales what it keeps by 1/(1-p), which keeps the mean and raises the variance. The running variance is "
        "learned with dropout on and used with dropout off. Li et al. 2019, 'Understanding the Disharmony between "
        "Dropout and Batch Normalization by Variance Shift', equations 7-9."
    )
    measured = "The variance at the norm with dropout on over that with it off, on one small batch; 10% counts."
    known_problems = "After global pooling, and with small p, the effect can be harmless."
    fix = "Recalibrate (statistics are then measured with dropout off), or move the dropout behind the last norm."
    least = 1.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Read the ratios the probe measured."""
        for layer in trace.layers:
            ratio = trace.dropout_ratios.get(layer.name)
            if ratio is None or abs(math.log(ratio)) < math.log(self.least):
                continue
            sources = trace.wiring[layer.name].dropouts
            fix = None if trace.data is None else recalibration("data", trace.data.fit, trace.task, [layer.name])
            yield self.finding(
                layer.name,
                f"dropout ({', '.join(sources) or 'upstream'}) makes the variance {ratio:.2f} times as large in training",
                {"variance_ratio": ratio, "dropouts": list(sources)},
                fix=fix,
            )
