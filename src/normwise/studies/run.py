"""Running studies into a folder: what is finished is kept, what is missing is said, nothing is overwritten silently."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from normwise import __version__
from normwise.errors import DataError, MissingDataError, MissingExtraError, UsageError, one_of
from normwise.reporting.document import to_json
from normwise.reporting.files import write_atomically
from normwise.studies.study import SIZES, Measurement, Study
from normwise.studies.verdict import Comparison, compare

MANIFEST = "studies.json"
_SCHEMA = "normwise-studies/1"


@dataclass(frozen=True)
class Result:
    """A finished study. Predictions are made anew whenever it is read: only the measurement is expensive."""

    study: Study
    size: str
    seed: int
    seconds: float
    measurement: Measurement

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every quantity, predicted and measured."""
        return compare(self.study.predict(self.measurement.given), self.measurement)

    @property
    def sound(self) -> bool:
        """Whether the sharper theory agrees everywhere, and could have failed."""
        return all(comparison.sound for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the document beside the figures."""
        study = self.study
        return {
            "schema": "normwise-study/1",
            "normwise": __version__,
            "study": study.name,
            "version": study.version,
            "size": self.size,
            "seed": self.seed,
            "seconds": round(self.seconds, 2),
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "measurement": self.measurement.to_dict(),
        }


@dataclass(frozen=True)
class Missing:
    """A study that did not run for want of an optional package or its data, or because the data are spoilt."""

    study: Study
    reason: str


def run_studies(
    studies: Sequence[Study],
    folder: Path,
    *,
    size: str = "quick",
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda _name, _share: None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Result | Missing]:
    """Run what is not finished in a folder of this size and seed; each study's result is written as soon as it is there.

    Raises `UsageError` for a folder that holds something else. `progress` is told a study's name and the share of it
    that is done; `tell` what was kept, measured again or not run.
    """
    if size not in SIZES:
        raise one_of("size", size, SIZES)
    manifest = {"schema": _SCHEMA, "size": size, "seed": seed}
    _check(folder, manifest)
    outcomes: list[Result | Missing] = []
    for study in studies:
        outcome = read_result(study, folder, size, seed)
        if outcome is not None and (not outcome.measurement.missing or outcome.measurement.missing == study.lacks()):
            tell(f"{study.name}: finished before, kept")
        else:
            if outcome is not None:
                tell(f"{study.name}: a part of it lacked optional data that are here now; measuring again")
            elif (folder / f"{study.name}.json").exists():
                tell(f"{study.name}: its result is of another version, size or seed; measuring again")
            outcome = _run(study, size, seed, lambda share, name=study.name: progress(name, share))
        if isinstance(outcome, Result):
            if not (folder / MANIFEST).exists():
                write_atomically(folder / MANIFEST, to_json(manifest))
            write_atomically(folder / f"{study.name}.json", to_json(outcome.to_dict()))
            for reason in outcome.measurement.missing:
                tell(f"{study.name}: a part was not run; {reason}")
        else:
            tell(f"{study.name}: not run; {outcome.reason}")
        outcomes.append(outcome)
    return outcomes


def _run(study: Study, size: str, seed: int, progress: Callable[[float], None]) -> Result | Missing:
    start = time.perf_counter()
    try:
        measurement = study.measure(seed, size, progress)
    except (MissingDataError, MissingExtraError, DataError) as error:
        return Missing(study, str(error))
    plain = Measurement.of(json.loads(to_json(measurement.to_dict())))
    return Result(study, size, seed, time.perf_counter() - start, plain)


def _check(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but studies of this size and seed."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output: expected a folder, got the file '{folder}'; choose another path")
    if not (folder / MANIFEST).exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"output: '{folder}' exists and holds no studies; choose another folder, or an empty one")
        return
    found = _read(folder / MANIFEST)
    if found != manifest:
        held = f"size {found.get('size')!r}, seed {found.get('seed')!r}" if found.get("schema") == _SCHEMA else "others"
        wanted = f"size {manifest['size']!r}, seed {manifest['seed']}"
        raise UsageError(f"output: '{folder}' holds studies of {held}, not of {wanted}; choose another folder")


def read_result(study: Study, folder: Path, size: str, seed: int) -> Result | None:
    """Return a study's finished result; None where there is none, or one of another version, size or seed."""
    path = folder / f"{study.name}.json"
    if not path.exists():
        return None
    document = _read(path)
    try:
        wanted = (study.name, study.version, size, seed)
        if tuple(document[key] for key in ("study", "version", "size", "seed")) != wanted:
            return None
        return Result(study, size, seed, document["seconds"], Measurement.of(document["measurement"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise _spoilt(path) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return size and seed of the studies of a folder."""
    if not (folder / MANIFEST).exists():
        raise UsageError(f"studies: expected a folder that `normwise study run` wrote, got '{folder}'")
    manifest = _read(folder / MANIFEST)
    if manifest.keys() != {"schema", "size", "seed"}:
        raise _spoilt(folder / MANIFEST)
    return manifest


def read_folder(folder: Path, studies: Sequence[Study]) -> list[Result]:
    """Return the finished results of a folder of studies, in the order given."""
    manifest = read_manifest(folder)
    found = (read_result(study, folder, manifest["size"], manifest["seed"]) for study in studies)
    return [result for result in found if result is not None]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _spoilt(path) from error
    if not isinstance(document, dict):
        raise _spoilt(path)
    return document


def _spoilt(path: Path) -> UsageError:
    return UsageError(f"output: '{path}' is no result of a study; move it away, or choose another folder")
