"""The verdict: what a measurement says about a theory, and about the source's claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from normwise.errors import NormwiseError
from normwise.studies.estimate import Estimate
from normwise.studies.study import Measurement, Prediction

RESOLUTION = 5.0  # the error, and the finite-size term, fit this often between two theories that are told apart


class Verdict(StrEnum):
    """What a measurement says about the source's claim."""

    HOLDS = "holds"
    IDEALISED = "holds only under idealisation"
    FAILS = "does not hold"
    UNDECIDED = "undecided"  # the measurement is too rough to tell the claim from another theory


@dataclass(frozen=True)
class Comparison:
    """One quantity: predicted, measured, judged."""

    quantity: str
    prediction: Prediction
    measured: Estimate
    idealised: Estimate | None = None

    @property
    def agrees(self) -> bool:
        """Whether theory agrees: within the tolerance of 3 standard errors and the stated finite-size term."""
        return _agree(self.prediction.theory, self.measured, self.prediction.finite_size)

    @property
    def resolved(self) -> bool:
        """Whether the rival theory disagrees, and error and finite-size term are both at most a fifth of the gap to it.

        An error of few replicates counts as the known error that would have its tolerance.
        """
        prediction = self.prediction
        return _tells_apart(self.measured, prediction.finite_size, prediction.theory, prediction.other)

    @property
    def sound(self) -> bool:
        """Whether theory agrees where it could have failed."""
        return self.agrees and self.resolved

    @property
    def identity(self) -> bool:
        """Whether the claim is exact by construction and the measurement says so: no evidence for the claim."""
        return self.prediction.identity and self.agrees

    @property
    def errors_off(self) -> float | None:
        """How many standard errors the measurement lies above theory; None where nothing was sampled."""
        return (self.measured.value - self.prediction.theory) / self.measured.error if self.measured.error else None

    @property
    def verdict(self) -> Verdict:
        """What becomes of the source's claim: an idealisation must have been measured to save it.

        What agrees must also have been measured well enough to tell the claim from the rival theory, and from ours where
        the claim is the rival.
        """
        prediction, ideal = self.prediction, self.idealised
        claim = prediction.theory if prediction.claim is None else prediction.claim
        other = prediction.theory if prediction.other == claim else prediction.other
        if _agree(claim, self.measured, prediction.finite_size):
            told_apart = _tells_apart(self.measured, prediction.finite_size, claim, other)
            return Verdict.HOLDS if told_apart else Verdict.UNDECIDED
        allowed = prediction.finite_size if prediction.claim_finite_size is None else prediction.claim_finite_size
        if ideal is None or not _agree(claim, ideal, allowed):
            return Verdict.FAILS
        told_apart = _tells_apart(ideal, allowed, claim, prediction.theory)
        return Verdict.IDEALISED if told_apart else Verdict.UNDECIDED

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, judged."""
        judged = {"agrees": self.agrees, "resolved": self.resolved, "errors_off": self.errors_off}
        judged["verdict"] = str(self.verdict)
        return {**asdict(self), **judged}


def _agree(predicted: float, measured: Estimate, allowed: float) -> bool:
    return abs(measured.value - predicted) <= measured.tolerance + allowed


def _tells_apart(measured: Estimate, allowed: float, one: float, other: float) -> bool:
    """Say whether a measurement that agrees with one value could have told it from the other, and did."""
    fine = RESOLUTION * max(measured.tolerance / 3, allowed) <= abs(one - other)
    return fine and not _agree(other, measured, allowed)


def compare(predictions: Mapping[str, Prediction], measurement: Measurement) -> list[Comparison]:
    """Hold predictions against measurements; raise where the two do not name the same quantities."""
    different = predictions.keys() ^ measurement.estimates.keys() | measurement.idealised.keys() - predictions.keys()
    if different:
        raise NormwiseError(f"predict and measure must name the same quantities, only one has {sorted(different)}")
    return [
        Comparison(name, prediction, measurement.estimates[name], measurement.idealised.get(name))
        for name, prediction in predictions.items()
    ]
