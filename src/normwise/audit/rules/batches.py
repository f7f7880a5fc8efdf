"""Rules about the data: whether statistics describe it, how noisy a batch is, whether there is enough of it."""

from __future__ import annotations

from collections.abc import Iterator

from normwise.audit.fixes import advice, input_affine, recalibration
from normwise.audit.inputs import explain_input
from normwise.audit.rule import Finding, Rule, Severity, register
from normwise.audit.score import compare
from normwise.audit.statistic import Shift, shift_of
from normwise.audit.trace import DomainTrace, Trace
from normwise.core.moments import MIN_VALUES


class _ShiftRule(Rule):
    """Running statistics against one source of data."""

    domain = "data"

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compare every layer's running statistics with what the data gave."""
        domain = dict(trace.domains).get(self.domain)
        if domain is None:
            return
        shifts = {name: shift_of(seen) for name, seen in domain.layers.items() if seen.layer.statistics is not None}
        large = {name: shift for name, shift in shifts.items() if shift is not None and shift.large}
        by_size = sorted((name for name in shifts), key=lambda n: -_size(shifts[n]))
        cure = recalibration(self.domain, domain.fit, trace.task, by_size)
        severity = Severity.ERROR if _costs(domain) else Severity.WARNING
        explained = explain_input(trace, domain, next(iter(domain.layers))) if large else None
        for name, shift in large.items():
            evidence = {
                "mean_shift": shift.size,
                "mean_shift_error": shift.size_error,
                "variance_ratio": shift.ratio,
                "log_variance_ratio_error": shift.log_ratio_error,
                "samples": domain.layers[name].moments.clusters,
            }
            if domain.deployed is not None and domain.batchwise is not None:
                evidence[f"{domain.deployed.name}_with_running_statistics"] = domain.deployed.mean
                evidence[f"{domain.deployed.name}_with_batch_statistics"] = domain.batchwise.mean
            text, others = f"{self.domain}: {shift}", ()
            if explained is not None and name == explained.layer:
                evidence |= explained.evidence
                text = f"{text}; the inputs look like {explained.sentence}"
                others = (input_affine(explained.producer, explained.scale, explained.offset),)
            yield self.finding(name, text, evidence, fix=cure, alternatives=others, severity=severity)

    def suspect(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding that holds only if recalibrating is measured to recover something.

        A shift below the threshold at every layer can still cost accuracy when it is there at all of them.
        """
        scored = trace.domains[-1:]  # what causes are measured on
        domain = dict(scored).get(self.domain)
        seen = {} if domain is None else {n: s for n, s in domain.layers.items() if s.layer.statistics is not None}
        shifts = {name: shift for name, layer in seen.items() if (shift := shift_of(layer)) is not None}
        if domain is None or not shifts:
            return
        by_size = sorted(shifts, key=lambda name: -_size(shifts[name]))
        worst = by_size[0]
        yield self.finding(
            worst,
            f"{self.domain}: {shifts[worst]}, the largest of small shifts at {len(shifts)} layers that cost together",
            {"mean_shift": shifts[worst].size, "variance_ratio": shifts[worst].ratio, "layers": len(shifts)},
            fix=recalibration(self.domain, domain.fit, trace.task, by_size),
        )


def _size(shift: Shift | None) -> float:
    return -1.0 if shift is None else max(shift.size, abs(shift.log_ratio))


def _costs(domain: DomainTrace) -> bool:
    """Return whether batch statistics do better than the running ones beyond sampling error."""
    if domain.deployed is None or domain.batchwise is None or domain.deployed.name != domain.batchwise.name:
        return False
    return compare(domain.deployed, domain.batchwise).low > 0


@register
class TrainEvalGap(_ShiftRule):
    """NW201."""

    code, name, severity = "NW201", "train-eval-gap", Severity.WARNING
    title = "Running statistics do not describe the data"
    what = "Running mean or variance that differ from those of the data the model is given."
    why = (
        "In training the norm uses the batch, in evaluation its memory. Where the two differ the model is another one "
        "in evaluation: the 76% in train(), 10% in eval() of the forums."
    )
    measured = (
        "Every norm's input is measured with batch statistics used upstream, so that a layer is blamed only for its own "
        "memory. The shift of the mean, in running standard deviations and pooled over channels, must exceed 0.5, or the "
        "variance ratio leave [0.5, 2], both beyond two standard errors, which come from the spread between samples. "
        "An error where it costs: running statistics do worse than batch or recalibrated ones, beyond a 95% interval. "
        "Shifts below the thresholds at every layer are a warning if recalibrating surely recovers something."
    )
    known_problems = (
        "A model fine-tuned with frozen statistics is at home with them: then nothing is lost, and it stays a warning."
    )
    fix = "Recalibrate. If the shift enters at the input, normalise the inputs as in training instead."


@register
class DomainShift(_ShiftRule):
    """NW601."""

    code, name, severity = "NW601", "domain-shift", Severity.WARNING
    title = "The target's statistics are not the source's"
    what = "Running statistics that do not describe the data of the domain the model is deployed in."
    why = "A camera, a hospital, a microphone: a shift of the inputs becomes a shift at every norm's input."
    measured = "As NW201, on `target`; the gain of adapting is measured on its held-back batches if there are labels."
    known_problems = "A target batch with other class proportions shifts statistics too; adapting to it can do harm."
    fix = "Recalibrate on the target, or normalise its inputs."
    domain = "target"


@register
class TooFewValues(Rule):
    """NW202."""

    code, name, severity = "NW202", "too-few-values", Severity.ERROR
    title = "A training step will fail for want of values"
    what = "A batch that leaves a channel with a single value where training needs two."
    why = "'Expected more than 1 value per channel when training': at the end of the epoch, or on one rank only."
    measured = "Values a channel in every batch seen, and in the loader's last batch where its length is known."
    known_problems = "Data meant for evaluation only may end in a batch of one: nothing will fail there."
    fix = "drop_last=True, another batch size, or freeze the statistics."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Find single values, seen or to come."""
        data = trace.data
        if data is None:
            return
        coming = data.batch_sizes if data.last_batch is None else [*data.batch_sizes, data.last_batch]
        fewest = min(coming)
        for seen in data.layers.values():
            if not seen.places or not trace.normalises_batches(seen.layer):
                continue
            values = round(seen.values_in(fewest, data))
            if values >= MIN_VALUES:
                continue
            where = f"a batch of {fewest}" if fewest in data.batch_sizes else f"the loader's last batch, of {fewest}"
            yield self.finding(
                seen.layer.name,
                f"1 value per channel in {where}: training raises an error there",
                {"fewest_values": values, "samples": fewest},
                fix=advice(
                    "drop-last", "drop the last batch, or change the batch size", "DataLoader(..., drop_last=True)"
                ),
            )


@register
class NoisyBatchStatistics(Rule):
    """NW203."""

    code, name, severity = "NW203", "noisy-batch-statistics", Severity.WARNING
    title = "Batches are too small for steady statistics"
    what = "Mean or variance of a batch that jump from batch to batch."
    why = (
        "Positions of one image are not independent, so that 4 images of 3136 pixels are worth little more than 4 "
        "values. Training then sees random scales and shifts, and running averages remember the noise."
    )
    measured = (
        "The spread of sample means (for the mean) and of squared deviations (for the variance) between samples gives "
        "the standard error at this batch size: above 0.25 standard deviations or 50% of the variance it is reported."
    )
    known_problems = "Some noise regularises; models that only run in evaluation mode do not feel it."
    fix = "Larger batches, SyncBatchNorm, frozen statistics, or group normalization."
    most_mean, most_variance = 0.25, 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Compute both standard errors at the size of the batches given."""
        data = trace.data
        for seen in () if data is None else data.layers.values():
            if data is None or not seen.measured or not trace.normalises_batches(seen.layer):
                continue
            if seen.moments.clusters < 2 * MIN_VALUES:
                continue
            size = data.typical_batch * seen.moments.clusters / data.fit_samples
            alive = seen.moments.values.variance > seen.layer.working_eps
            if not bool(alive.any()):
                continue
            mean = float(seen.moments.relative_error_of_mean(size)[alive].square().mean().sqrt())
            variance = float(seen.moments.relative_error_of_variance(size)[alive].square().mean().sqrt())
            if mean <= self.most_mean and variance <= self.most_variance:
                continue
            yield self.finding(
                seen.layer.name,
                f"at batch size {data.typical_batch} a batch's mean is uncertain by {mean:.2f} sd, its variance by {variance:.0%}",
                {
                    "batch_size": data.typical_batch,
                    "error_of_mean": mean,
                    "error_of_variance": variance,
                    "effective_size": 1 / mean**2 if mean else float("inf"),
                },
                fix=advice(
                    "larger-batches",
                    "use larger or synchronised batches, or freeze the statistics",
                    "normwise.freeze(model)",
                    [seen.layer.name],
                ),
            )
