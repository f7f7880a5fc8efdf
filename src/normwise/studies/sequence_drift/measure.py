"""Sequences whose drift is known, an LSTM that hears speech, and recognisers of speakers under every norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from normwise.errors import MissingDataError
from normwise.layers import MaskedBatchNorm
from normwise.studies.estimate import Estimate, dots, root_mean, series
from normwise.studies.sequence_drift.made import DRIFT, LENGTHS, STEPS, drifted
from normwise.studies.sequence_drift.predict import (
    EVEN_FIRST,
    EVEN_LAST,
    FIRST,
    LAST,
    LATE,
    NOISE,
    PADDED,
    SPOKEN_FIRST,
    SPOKEN_LATE,
    SPOKEN_NOISE,
    SPREAD,
    TIMEWISE,
)
from normwise.studies.sequence_drift.recogniser import NORMS, WIDTH, Recogniser, trained
from normwise.studies.sequence_drift.speech import drifting_unit, moments, outputs
from normwise.studies.sequence_drift.vowels import Utterances, vowels
from normwise.studies.study import Measurement, Progress, tracked

_BATCHES = {"tiny": 4, "quick": 10, "full": 100}  # of made sequences in each replicate
_SPOKEN = {"tiny": 20, "quick": 250, "full": 2500}  # and of utterances, of one unit
_REPLICATES = 12
_VOICES = 5  # utterances alive, below which a step is not shown: it is one voice's
_EPOCHS, _TRAINED = {"tiny": 1, "quick": 6, "full": 15}, {"tiny": 3, "quick": 5, "full": 10}
_Part = tuple[dict[str, Estimate], dict[str, Any]]  # estimates and what the figures draw


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Normalise made sequences; where there is speech, look at what drifts in an LSTM, and train recognisers."""
    generator = torch.Generator().manual_seed(seed)
    given = {"drift": DRIFT, "steps": STEPS, "lengths": LENGTHS.tolist()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        estimates, shown = _made(size, generator, lambda share: progress(share / 4))
        ideal = {FIRST: estimates[EVEN_FIRST], LAST: estimates[EVEN_LAST]}
        if missing := lacks():
            return Measurement(estimates, given, shown, ideal, missing)
        train, held = vowels()
        speech, (spoken, drawn) = _heard(size, train, generator)
        accuracy = _accuracy(size, train, held, generator, lambda share: progress((1 + 3 * share) / 4))
    return Measurement(
        {**estimates, **spoken}, {**given, "speech": speech}, {**shown, **drawn, "accuracy": accuracy}, ideal
    )


def lacks() -> tuple[str, ...]:
    """Return what to install where there is no speech."""
    try:
        vowels()
    except MissingDataError as error:
        return (str(error),)
    return ()


def _made(size: str, generator: torch.Generator, progress: Progress) -> _Part:
    """Return what is left of a drift that we made."""
    runs = [drifted(_BATCHES[size], generator) for _ in tracked(range(_REPLICATES), progress)]
    found = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    noise = [Estimate.jackknife(root_mean, column) for column in found["noise"].T]
    places = {
        EVEN_FIRST: ("even", 0), EVEN_LAST: ("even", -1), FIRST: ("masked", 0),
        LAST: ("masked", -1), PADDED: ("padded", -1), TIMEWISE: ("time-wise", -1),
    }  # fmt: skip
    estimates = {name: Estimate.of(found[kind][:, step]) for name, (kind, step) in places.items()}
    steps = range(1, STEPS + 1)
    shown = {kind: series(steps, found[kind]) for kind in ("even", "masked", "padded", "time-wise")}
    estimates |= {SPREAD: Estimate.of(found["spread"]), NOISE: noise[-1]}
    return estimates, {**shown, "noise": dots(steps, noise)}


def _heard(size: str, train: Utterances, generator: torch.Generator) -> tuple[dict[str, Any], _Part]:
    """Return the moments of a unit of a trained LSTM, and what is left of its drift in batches of utterances."""
    model = trained(Recogniser(MaskedBatchNorm(WIDTH), WIDTH), train, _EPOCHS[size], generator)
    unit = drifting_unit(model, train, LATE)
    speech = {"voices": _VOICES, **moments(unit, train.lengths)}
    shown = sum(count >= _VOICES for count in speech["step counts"])
    runs = [outputs(unit, train.lengths, _SPOKEN[size], generator) for _ in range(_REPLICATES)]
    ways = {"spoken": _ratio, "spoken, time-wise": _ratio, "spoken noise": _root_ratio}
    found = {
        kind: [Estimate.jackknife(way, step) for step in np.array([run[kind][:shown] for run in runs]).swapaxes(0, 1)]
        for kind, way in ways.items()
    }
    estimates = {
        SPOKEN_FIRST: found["spoken"][0],
        SPOKEN_LATE: found["spoken"][LATE - 1],
        SPOKEN_NOISE: found["spoken noise"][LATE - 1],
    }
    return speech, (estimates, {kind: dots(range(1, shown + 1), each) for kind, each in found.items()})


def _ratio(pairs: np.ndarray) -> float:
    """Return the mean of what is in sums and how many there are, `(r, 2)`."""
    total, count = pairs.sum(0)
    return float(total / count)


def _root_ratio(pairs: np.ndarray) -> float:
    return _ratio(pairs) ** 0.5


def _accuracy(
    size: str, train: Utterances, held: Utterances, generator: torch.Generator, progress: Progress
) -> dict[str, Any]:
    """Return the share of held-back utterances whose speaker recognisers of each norm name."""
    right: dict[str, list[float]] = {name: [] for name in NORMS}
    for name in tracked([name for name in NORMS for _ in range(_TRAINED[size])], progress):
        model = trained(Recogniser(NORMS[name](), WIDTH), train, _EPOCHS[size], generator).eval()
        right[name].append(float((model(held).argmax(1) == held.labels).double().mean()))
    return {"names": list(NORMS), **series(range(len(NORMS)), np.array(list(right.values())).T)}
