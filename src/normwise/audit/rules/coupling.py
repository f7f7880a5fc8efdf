"""Rules about samples that reach each other."""

from __future__ import annotations

from collections.abc import Iterator

from normwise.audit.fixes import advice, tracked
from normwise.audit.rule import Finding, Rule, Severity, register
from normwise.audit.trace import Trace


@register
class CrossSampleLeak(Rule):
    """NW301."""

    code, name, severity = "NW301", "cross-sample-leak", Severity.ERROR
    title = "One sample's output depends on another sample"
    what = "In evaluation mode, changing one sample of a batch changes the output of another."
    why = "A prediction that depends on its company cannot be reproduced, cached, or trusted by the next user."
    measured = (
        "Two probes on one small batch, same random state: one sample is changed and the others' outputs compared; and "
        "the gradient of the others' outputs, in a random direction, by that sample. Either being non-zero is proof. "
        "The layer named is the first whose output leaks."
    )
    known_problems = "An output whose first axis is not the batch cannot be probed; the report says so."
    fix = "Where a norm without running statistics is to blame, give it some."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Read what the probe found."""
        leak = trace.leak
        if leak is None:
            return
        layer = str(leak["layer"])
        blamed = next((known for known in trace.layers if known.name == layer and known.statistics is None), None)
        fix = (
            tracked("data", trace.data.fit, trace.task, [layer])
            if blamed is not None and trace.data is not None
            else advice("uncouple", "normalise with statistics that do not depend on the batch", "normwise.convert")
        )
        yield self.finding(
            layer,
            f"changing one sample moves another's output by {leak['perturbation']:.2g} of its size",
            {key: value for key, value in leak.items() if key != "layer"},
            fix=fix,
        )
