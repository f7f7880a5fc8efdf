"""Rules that read a layer's configuration: momentum, eps, tracking, precision, weight decay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from normwise.audit.fixes import advice, full_precision, set_attribute, tracked
from normwise.audit.rule import Finding, Rule, Severity, register
from normwise.audit.statistic import Shift, shift_of
from normwise.audit.trace import Trace
from normwise.care.policy import affine_parameters
from normwise.models.walk import stays_in_eval

DEFAULT_MOMENTUM = 0.1


@register
class MomentumOutOfRange(Rule):
    """NW102."""

    code, name, severity = "NW102", "momentum-out-of-range", Severity.WARNING
    title = "Running statistics never move, or forget too fast"
    what = "A momentum of 0, of 0.5 or more, or None on statistics that no longer describe the data."
    why = (
        "torch's momentum a is the weight of the NEW batch; TensorFlow's and Keras' is that of the old value, so that a "
        "ported 0.99 keeps one batch of memory. A running mean's variance tends to a/(2-a) of a batch mean's: 1/19 at "
        "0.1, 1/3 at 0.5, 0.98 at 0.99. At 0 nothing is ever learned. None averages over the whole history, also over "
        "the epochs in which the weights were different."
    )
    measured = (
        "Read from the layer; the share a/(2-a) is the evidence. None is reported only where data show a shift beyond "
        "NW201's threshold."
    )
    known_problems = "A momentum of 0 on a model that will only be used for inference is harmless, if odd."
    fix = "Set momentum to 0.1, or to 1 - m for a ported m. Outputs in evaluation mode do not change."
    exact = True
    highest = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Read momentum of every layer that can learn statistics."""
        for layer in trace.layers:
            if layer.statistics is None or stays_in_eval(layer.module) or not hasattr(layer.module, "momentum"):
                continue
            momentum = layer.momentum
            if momentum is None:
                shift = self._shift(trace, layer.name)
                if shift is None or not shift.large:
                    continue
                text = f"momentum=None averages over all history, which is {shift.size:.2f} sd off today's data"
                evidence = {"momentum": "None", "shift": shift.size, "updates": layer.updates}
            elif momentum == 0:
                text, evidence = "momentum=0: running statistics never move", {"momentum": 0.0}
            elif momentum >= self.highest:
                noise = momentum / (2 - momentum)
                text = f"momentum={momentum:g} keeps {noise:.0%} of a single batch's noise; ported from TensorFlow?"
                evidence = {"momentum": momentum, "share_of_batch_noise": noise}
            else:
                continue
            ported = momentum is not None and momentum > 1 - self.highest and momentum < 1
            value = round(1 - momentum, 6) if ported and momentum is not None else DEFAULT_MOMENTUM
            yield self.finding(
                layer.name, text, evidence, fix=set_attribute("momentum", value, [layer.name], exact=True)
            )

    @staticmethod
    def _shift(trace: Trace, name: str) -> Shift | None:
        seen = None if trace.data is None else trace.data.layers.get(name)
        return None if seen is None else shift_of(seen)


@register
class EpsMismatch(Rule):
    """NW103."""

    code, name, severity = "NW103", "eps-mismatch", Severity.WARNING
    title = "eps is too small for the dtype, or unlike the rest of the model"
    what = "An eps below the square of the dtype's relative precision, or a factor of 10 or more from its siblings."
    why = (
        "A constant channel of size 1 still has rounding noise of the dtype's precision u; dividing by sqrt(eps) lifts "
        "it to u/sqrt(eps), which reaches 1 where eps = u^2: 1.4e-14 in float32, 9.5e-7 in float16, 6.1e-5 in bfloat16. "
        "An eps unlike its siblings usually comes from porting weights (TensorFlow trains with 1e-3)."
    )
    measured = "Read from the layers; siblings are the most common eps of the model."
    known_problems = "A model assembled from two, each with its own eps, is right as it is: ignore the rule there."
    fix = "Set eps to the siblings' value. This changes outputs, most where variances are small."
    exact = False
    factor = 10.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compare every layer's eps with its dtype and its siblings."""
        known = [layer for layer in trace.layers if layer.eps is not None]
        if not known:
            return
        usual, count = Counter(layer.eps for layer in known).most_common(1)[0]
        for layer in known:
            eps, table = layer.working_eps, layer.running_var
            table = table if table is not None else layer.weight
            dtype = torch.float32 if table is None or not table.is_floating_point() else table.dtype
            smallest = torch.finfo(dtype).eps ** 2
            unlike = (
                count > 1
                and usual is not None
                and not (1 / self.factor < (eps + 1e-300) / (usual + 1e-300) < self.factor)
            )
            if eps >= smallest and not unlike:
                continue
            evidence = {"eps": eps, "smallest_useful": smallest, "siblings": usual}
            too_small = eps < smallest
            text = (
                f"eps={eps:g} is below {smallest:.1g}, where {str(dtype).removeprefix('torch.')} rounding noise "
                "of a constant channel becomes output"
                if too_small
                else f"eps={eps:g} where {count} other layers have {usual:g}"
            )
            value = usual if unlike and usual is not None and usual >= smallest else max(1e-5, smallest)
            yield self.finding(layer.name, text, evidence, fix=set_attribute("eps", value, [layer.name], exact=False))


@register
class BatchStatisticsInEval(Rule):
    """NW107."""

    code, name, severity = "NW107", "batch-statistics-in-eval", Severity.ERROR
    title = "Predictions depend on the rest of the batch"
    what = "A batch norm with track_running_stats=False: it uses batch statistics in evaluation mode too."
    why = (
        "The same sample gets another prediction in another batch, and a batch of one fails or gives zeros. It is often "
        "set by somebody who wanted to freeze the statistics."
    )
    measured = "Read from the layer. With data, NW301 proves the dependence."
    known_problems = "Some image translation models do this on purpose, with batches of one."
    fix = "Keep running statistics and measure them on data."
    exact = False

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Find norms without statistics."""
        for layer in trace.layers:
            if layer.statistics is not None:
                continue
            data = trace.data
            fix = (
                tracked("data", data.fit, trace.task, [layer.name])
                if data is not None
                else advice("track-statistics", "track_running_stats=True and recalibrate (needs data)", "--data")
            )
            yield self.finding(
                layer.name,
                "track_running_stats=False: batch statistics in evaluation mode",
                {"track_running_stats": "False"},
                fix=fix,
            )


@register
class LowPrecisionStatistics(Rule):
    """NW110."""

    code, name, severity = "NW110", "low-precision-statistics", Severity.WARNING
    title = "Running statistics are kept in half precision"
    what = "running_mean or running_var in float16 or bfloat16."
    why = (
        "An update moves the average by momentum times the gap; with 8 bits (bfloat16) a step below 1/256 of the value "
        "rounds away, so that at momentum 0.1 a mean that is off by less than 2% of its size never gets there. float16 "
        "variances overflow at 65504."
    )
    measured = "Read from the buffers; the smallest gap that still moves the average is the evidence."
    known_problems = "For inference alone the loss is one rounding."
    fix = "Keep the layer in float32 (torch's operator takes half inputs with float32 statistics)."
    exact = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Read buffer dtypes."""
        for layer in trace.layers:
            variance = layer.running_var
            if variance is None or variance.dtype not in (torch.float16, torch.bfloat16):
                continue
            momentum = layer.momentum or DEFAULT_MOMENTUM
            lost = torch.finfo(variance.dtype).eps / 2 / momentum
            dtype = str(variance.dtype).removeprefix("torch.")
            yield self.finding(
                layer.name,
                f"statistics in {dtype}: gaps below {lost:.1%} of their size are never closed",
                {"dtype": dtype, "smallest_moving_gap": lost},
                fix=full_precision([layer.name]),
            )


@register
class DecayedAffine(Rule):
    """NW112."""

    code, name, severity = "NW112", "decayed-affine", Severity.INFO
    title = "Weight decay pulls at gamma and beta"
    what = "The optimizer decays the norms' weight and bias (needs the optimizer)."
    why = (
        "The layers before a norm are scale-free, so that decaying gamma shrinks the signal itself, and decaying beta "
        "moves the threshold of the activation after it. He et al. 2019 (Bag of Tricks, section 3.1) leave both out."
    )
    measured = "Read from the optimizer's parameter groups."
    known_problems = "The effect is small, and some recipes decay everything."
    fix = "Put them into a parameter group with weight_decay=0."
    exact = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Look the affine parameters up in the optimizer's groups."""
        if trace.optimizer is None:
            return
        decay = {id(p): g.get("weight_decay", 0) for g in trace.optimizer.param_groups for p in g["params"]}
        for layer in trace.layers:
            found = max((decay.get(id(parameter), 0) for parameter in affine_parameters(layer)), default=0)
            if found:
                yield self.finding(
                    layer.name,
                    f"weight_decay={found:g} on weight and bias",
                    {"weight_decay": float(found)},
                    fix=advice(
                        "no-decay",
                        "put norm parameters into a group with weight_decay=0",
                        "{'params': norm_parameters, 'weight_decay': 0}",
                        [layer.name],
                    ),
                )
