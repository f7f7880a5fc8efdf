"""What was found, in words: a row a comparison, for the book, for its Markdown and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normwise.studies.estimate import Estimate
from normwise.studies.run import Result
from normwise.studies.verdict import Comparison, Verdict

_BEYOND = "beyond the claim"  # said of numbers that only theory predicts
_IDENTITY = "identity"  # said of claimed numbers that are exact by construction
_ALONE = {True: "theory agrees", False: "theory disagrees"}
_LEVELS = {Verdict.HOLDS: "holds", Verdict.IDEALISED: "idealised", Verdict.FAILS: "fails", Verdict.UNDECIDED: "quiet"}
_EXACT = 4  # significant digits of what was computed, not sampled
READING = (
    "Each study holds a claim about batch normalization against the sharpest theory there is and against a measurement. "
    'Brackets, and what follows ±, are 95% intervals; in the tables a value without them was computed, not sampled. "Off" '
    "counts the standard errors between measurement and theory; the rival is what theory must be told apart from.",
    "A prediction agrees within three standard errors (more where few replicates tell the error: as many as keep the "
    "chance of a false alarm at 0.27%) and the finite-size term that is stated, and it must be able to fail: both are at "
    "most a fifth of the gap to the rival, else the quantity is undecided. By chance one right prediction in 370 fails.",
    "A claim holds where it agrees with the measurement; it holds only under idealisation where it agrees with a "
    "measurement under its own assumptions, and not with a network as it is; otherwise it does not hold. Of quantities "
    "beyond the claim, for which it gives no number, theory alone is judged. An identity is a claimed number that is exact "
    "by construction: its measurement checks the code and is no evidence for the claim.",
    "In the pictures a dashed line is a claim, or what holds elsewhere and is named; another line is theory; a dot with its "
    "95% interval was measured. Where a picture shows several kinds of thing, each has one colour for its line and its "
    "dots, and hollow dots are the same thing in another state.",
)


@dataclass(frozen=True)
class Row:
    """One comparison in words, rounded to what its error allows; "" where there is nothing to say.

    Arguments:
        quantity: what is compared
        claim, theory, rival: the values predicted
        measured: with its 95% interval in brackets, or alone where it was computed and not sampled
        off: how many standard errors it lies from theory
        idealised: the same as measured, under the claim's own assumptions
        finite_size: the term that is allowed beside the error, and the number of its reason
        verdict: on the claim, or on theory where nothing is claimed
        level: the verdict's colour: holds, idealised, fails or quiet
        doubt: why theory is not borne out here

    """

    quantity: str
    claim: str
    theory: str
    rival: str
    measured: str
    off: str
    idealised: str
    finite_size: str
    verdict: str
    level: str
    doubt: str


def rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Return every comparison in words."""
    noted = reasons(comparisons)
    return [_row(one, noted) for one in comparisons]


def reasons(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Return by its number each reason that is given for a finite-size term, in the order of the rows."""
    found = dict.fromkeys(one.prediction.reason for one in comparisons if one.prediction.reason)
    return {f"{number}": reason for number, reason in enumerate(found, 1)}


def _row(comparison: Comparison, noted: Mapping[str, str]) -> Row:
    prediction, measured, ideal = comparison.prediction, comparison.measured, comparison.idealised
    places = _places(measured, prediction.theory)
    note = next((number for number, reason in noted.items() if reason == prediction.reason), "")
    return Row(
        quantity=comparison.quantity,
        claim="" if prediction.claim is None else f"{prediction.claim:.4g}",
        theory=_said(prediction.theory, places),
        rival=f"{prediction.other:.4g}",
        measured=_interval(measured, places),
        off="" if comparison.errors_off is None else f"{comparison.errors_off:+.1f}",
        idealised="" if ideal is None else _interval(ideal, _places(ideal, ideal.value)),
        finite_size=f"{prediction.finite_size:.2g} ({note})" if prediction.finite_size else "",
        verdict=_verdict(comparison),
        level="quiet" if comparison.identity else _LEVELS[comparison.verdict],
        doubt="" if comparison.sound else "too rough to tell" if comparison.agrees else "disagrees",
    )


def _verdict(comparison: Comparison) -> str:
    if comparison.identity:
        return _IDENTITY
    return str(comparison.verdict) if comparison.prediction.claim is not None else _ALONE[comparison.agrees]


def _places(measured: Estimate, theory: float) -> int:
    """Return the decimal places that show two digits of an error, or some digits of what has none."""
    if measured.error > 0:
        return max(0, min(6, 1 - math.floor(math.log10(measured.error))))
    largest = max(abs(measured.value), abs(theory))
    return max(0, _EXACT - 1 - math.floor(math.log10(largest))) if largest else 0


def _said(value: float, places: int) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:.0f}" if value == round(value) and abs(value) >= 10 else f"{value:.{places}f}"


def _interval(estimate: Estimate, places: int) -> str:
    """Say a value, and its 95% interval where it was sampled."""
    if not estimate.error:
        return _said(estimate.value, places)
    low, high = (estimate.value + sign * estimate.interval for sign in (-1, 1))
    return f"{_said(estimate.value, places)} [{_said(low, places)}, {_said(high, places)}]"


def tally(result: Result) -> list[tuple[str, int, str]]:
    """Return what was found of the claimed numbers and beside them: in words, how often, and its colour."""
    claimed = [one for one in result.comparisons if one.prediction.claim is not None and not one.identity]
    counts = [(str(v), sum(one.verdict is v for one in claimed), _LEVELS[v]) for v in Verdict]
    counts.append((_IDENTITY, sum(one.identity for one in result.comparisons), "quiet"))
    counts.append((_BEYOND, sum(one.prediction.claim is None for one in result.comparisons), "quiet"))
    return [found for found in counts if found[1]]


def borne_out(result: Result) -> str:
    """Say whether the sharper theory explains what was measured."""
    if result.sound:
        return "Theory agrees with every measurement of the table."
    return "Theory does not explain every measurement, or the measurement is too rough to tell."


def command(name: str, manifest: Mapping[str, Any]) -> str:
    """Return what measures a study again."""
    return f"normwise study run {name} --size {manifest['size']} --seed {manifest['seed']} --output again"


def image(study: str, figure: str) -> str:
    """Return the file name of a study's figure, as it lies beside its results."""
    return f"{study}-{figure}.png"
