"""A study: what the source claims, what theory predicts, what is measured, and the verdict that follows.

A study is a folder of this package whose `__init__.py` holds its words and ends in `STUDY = Study(...)`. It has three
parts, a file each: `predict` (closed forms of `normwise.theory` only), `measure` (which calls no theory) and `figures`. Nothing has
to be registered anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from normwise.errors import NormwiseError, one_of
from normwise.reporting.slider import Slider
from normwise.studies.estimate import Estimate
from normwise.studies.source import Heading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDING: dict[str, Any] = {"finite_size": 1e-9, "reason": "what is exact is held to rounding of float64"}
SIZES = ("tiny", "quick", "full")  # seconds, to try things; CI, 20 to 40 s a study; the page, minutes
Progress = Callable[[float], None]  # told the share of a study that is done, 0 to 1
Item = TypeVar("Item")


@dataclass(frozen=True)
class Prediction:
    """What theory says about one quantity, before it is measured.

    Arguments:
        theory: the sharpest closed form we have
        claim: the source's own value; None where it gives none, and the theory is what is judged
        rival: the value of the theory that must be told apart from ours; the claim if that differs
        finite_size: how far theory may be off at this width, batch or number of samples, in the quantity's unit
        reason: where the finite-size term comes from; required with one
        claim_finite_size: the same for the claim under its own assumptions; `finite_size` where None
        identity: whether the claim is exact by construction, so that the measurement only checks the code

    """

    theory: float
    claim: float | None = None
    rival: float | None = None
    finite_size: float = 0.0
    reason: str = ""
    claim_finite_size: float | None = None
    identity: bool = False

    def __post_init__(self) -> None:
        """Refuse a prediction that nothing could contradict, and an unexplained allowance."""
        if self.other == self.theory:
            raise NormwiseError(
                f"rival must differ from theory, got {self.theory} for both; name another theory's value"
            )
        if self.reason.endswith("."):
            raise NormwiseError(f"reason must be words without a full stop, got {self.reason!r}")
        if self.finite_size < 0 or bool(self.finite_size) != bool(self.reason):
            raise NormwiseError(
                f"finite_size must be 0, or positive with a reason, got {self.finite_size} and {self.reason!r}"
            )

    @property
    def other(self) -> float:
        """The value our theory must be told apart from; the theory itself where nobody gave one."""
        return next((value for value in (self.rival, self.claim) if value is not None), self.theory)


@dataclass(frozen=True)
class Measurement:
    """What `measure` returns: plain numbers, lists and dicts, so that a result read from a file is the same.

    Arguments:
        estimates: by quantity, the same ones that `predict` names
        given: what theory takes as given: widths, batch sizes, correlations measured in data
        series: what the figures draw
        idealised: by quantity, the same quantity under the claim's own assumptions, where that can be arranged
        missing: of each part that lacks its optional data, what to install; it is measured again once they are there

    """

    estimates: Mapping[str, Estimate]
    given: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Any] = field(default_factory=dict)
    idealised: Mapping[str, Estimate] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @staticmethod
    def of(document: Mapping[str, Any]) -> Measurement:
        """Build from plain data."""
        estimates, idealised = (
            {name: Estimate(**one) for name, one in document[part].items()} for part in ("estimates", "idealised")
        )
        return Measurement(
            estimates, document["given"], document["series"], idealised, tuple(document.get("missing", ()))
        )


@dataclass(frozen=True)
class Study:
    """One of the source's claims, and what holds it against measurement.

    Arguments:
        name: what `normwise study run` calls it
        heading: the source's heading it belongs to
        title: of its section in the book
        claim: what the source says, quoted or paraphrased
        theory: the sharper theory in words, with its formula
        setting: on what it was measured
        outcome: what became of the claim, in one sentence
        advice: what a practitioner should do, in one sentence
        predict: from what `measure` calls `given`, the prediction of every quantity; closed forms of `theory` only
        measure: from a seed, a size and a place to report progress, the measurement; raises `MissingExtraError` or
            `MissingDataError` where it lacks optional data
        figures: from the measurement, pictures by name; drawn with `reporting.style`
        sliders: from the measurement, closed forms whose parameter is moved in the page
        lacks: what optional data its parts lack now, as `Measurement.missing` says it
        seen: from the measurement, in words, what no closed form predicts; its numbers are never written by hand
        order: of studies under the same heading
        version: raise it when `measure` changes, so that finished results are measured again

    """

    name: str
    heading: Heading
    title: str
    claim: str
    theory: str
    setting: str
    outcome: str
    advice: str
    predict: Callable[[Mapping[str, Any]], dict[str, Prediction]]
    measure: Callable[[int, str, Progress], Measurement]
    figures: Callable[[Measurement], dict[str, Figure]]
    sliders: Callable[[Measurement], Sequence[Slider]] = lambda _: ()
    seen: Callable[[Measurement], str] = lambda _: ""
    lacks: Callable[[], tuple[str, ...]] = tuple
    order: int = 0
    version: int = 1


def all_studies() -> list[Study]:
    """Return every study of the package, in the book's order."""
    package = importlib.import_module(__package__ or "normwise.studies")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = (importlib.import_module(f"{package.__name__}.{name}") for name in names)
    found = [study for module in modules if isinstance(study := getattr(module, "STUDY", None), Study)]
    headings = list(Heading)
    return sorted(found, key=lambda study: (headings.index(study.heading), study.order, study.name))


def find_study(name: str) -> Study:
    """Return the study of a name; raise `UsageError` that names all where there is none."""
    studies = {study.name: study for study in all_studies()}
    if name not in studies:
        raise one_of("study", name, tuple(studies))
    return studies[name]


def tracked(items: Sequence[Item], progress: Progress) -> Iterator[Item]:
    """Iterate, and report the share that is done."""
    for number, item in enumerate(items):
        progress(number / len(items))
        yield item
    progress(1.0)
