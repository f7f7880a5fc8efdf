"""Biases by the moments of the steps, weighted by how many sequences have a step; and what finite batches add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normwise.studies.study import Prediction
from normwise.theory import sequence as theory
from normwise.theory.mixture import MeanVariance

LATE = 20  # a step that half the utterances have not
EVEN_FIRST, EVEN_LAST = (f"output mean at the {step} step, pooled, 20 steps each" for step in ("first", "last"))
FIRST, LAST = (f"output mean at the {step} step, pooled, 5 to 20 steps" for step in ("first", "last"))
PADDED = "output mean at the last step, pooled with the padding, 5 to 20 steps"
SPREAD = "output variance within a step, pooled, 5 to 20 steps"
TIMEWISE = "output mean at the last step, time-wise, 5 to 20 steps"
NOISE = "error of the last step's own mean, time-wise, in standard deviations"
SPOKEN_FIRST, SPOKEN_LATE = (f"output mean at the {step} step, pooled, LSTM on speech" for step in ("1st", f"{LATE}th"))
SPOKEN_NOISE = f"error of the {LATE}th step's own mean, LSTM on speech, in standard deviations"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return biases as batches of this size leave them; the claim's are of a line and equal lengths."""
    uneven, number = alive(given), len(given["lengths"])
    even = theory.drawn_output(line(given), np.full(given["steps"], number)).mean
    pooled, (count, end) = theory.drawn_output(line(given), uneven), (int(uneven[-1]), float(line(given).mean[-1]))
    return {
        EVEN_FIRST: Prediction(float(even[0]), claim=float(even[0]), rival=0.0),
        EVEN_LAST: Prediction(float(even[-1]), claim=float(even[-1]), rival=0.0),
        FIRST: Prediction(float(pooled.mean[0]), claim=float(even[0])),
        LAST: Prediction(float(pooled.mean[-1]), claim=float(even[-1])),
        PADDED: Prediction(float(padded(given).mean[-1]), rival=float(pooled.mean[-1])),
        SPREAD: Prediction(float(pooled.variance[0]), rival=1.0),
        TIMEWISE: Prediction(
            0.0,
            claim=0.0,
            rival=float(pooled.mean[-1]),
            finite_size=theory.timewise_rounding(count, end),
            reason="a bound on what rounding in single precision leaves of a step's mean output",
            identity=True,
        ),
        NOISE: Prediction(float(theory.timewise_error(count)), rival=float(theory.timewise_error(number))),
        **(_spoken(given["speech"]) if "speech" in given else {}),
    }


def _spoken(speech: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what a batch of utterances leaves to the LSTM's unit, and the error of its late steps' own means."""
    pooled, own = spoken_bias(speech), spoken_error(speech)[LATE - 1]
    return {
        SPOKEN_FIRST: Prediction(float(pooled[0]), rival=0.0),
        SPOKEN_LATE: Prediction(float(pooled[LATE - 1]), rival=0.0),
        SPOKEN_NOISE: Prediction(float(own), rival=float(theory.timewise_error(speech["batch"]))),
    }


def line(given: Mapping[str, Any], drift: float | None = None) -> MeanVariance:
    """Return the moments by step of the made sequences, of their own drift or another."""
    slope, steps = given["drift"] if drift is None else drift, np.arange(given["steps"])
    return MeanVariance(slope * steps, np.ones(len(steps)))


def alive(given: Mapping[str, Any]) -> np.ndarray:
    """Return how many of the made sequences of 5 to 20 steps have each step."""
    return theory.alive(np.array(given["lengths"]))


def padded(given: Mapping[str, Any], drift: float | None = None) -> MeanVariance:
    """Return the output at every step where the zeros of the padding count as one step more."""
    made, counts = line(given, drift), alive(given)
    steps = MeanVariance(np.append(made.mean, 0.0), np.append(made.variance, 0.0))
    output = theory.drawn_output(steps, np.append(counts, len(given["lengths"]) * given["steps"] - counts.sum()))
    return MeanVariance(np.asarray(output.mean)[:-1], np.asarray(output.variance)[:-1])


def spoken_bias(speech: Mapping[str, Any]) -> np.ndarray:
    """Return the bias at every step of speech that pooled statistics of a batch leave to the LSTM's unit."""
    steps = MeanVariance(np.array(speech["step means"]), np.array(speech["step variances"]))
    counts, scatter = np.array(speech["step counts"]), {name: np.array(one) for name, one in speech["scatter"].items()}
    share = speech["batch"] / speech["utterances"]
    bias = np.asarray(theory.pooled_output(steps, counts, speech["eps"]).mean)
    return theory.drawn_bias(bias, theory.Scatter(values=counts.sum() * share, counts=counts * share, **scatter))


def spoken_error(speech: Mapping[str, Any]) -> np.ndarray:
    """Return the error of every step's own mean in a batch of utterances, in standard deviations."""
    shares = np.array(speech["step counts"]) / speech["utterances"]
    return np.array([theory.drawn_timewise_error(speech["batch"], share, speech["least"]) for share in shares])
