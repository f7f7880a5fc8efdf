"""Measured values: a mean, its standard error, and how far the truth may be from it.

A standard error of a few replicates is itself uncertain: of 3, one estimate in ten lies more than 3 of them off. So
tolerances and intervals are Student's, with the chance that 3 and 1.96 of a known error have (Student 1908, "The
probable error of a mean").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from normwise.errors import NormwiseError

DOUBT = math.erfc(3 / math.sqrt(2))  # the chance that a true prediction is rejected: 0.27%, beyond 3 known errors
_OUTSIDE = 0.05  # the chance that a 95% interval misses


@dataclass(frozen=True)
class Estimate:
    """A measured value, its standard error, and of how many replicates the error is known.

    `replicates` is None where the error is exact: 0 for what is counted or computed, not sampled.
    """

    value: float
    error: float
    replicates: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a number."""
        if not (math.isfinite(self.value) and math.isfinite(self.error)):
            raise NormwiseError(
                f"value and error must be finite, got {self.value} +- {self.error}; mend the measurement"
            )

    @property
    def interval(self) -> float:
        """Half the length of the 95% interval."""
        return student(_OUTSIDE, self.replicates) * self.error

    @property
    def tolerance(self) -> float:
        """How far off a true prediction may be: 3 standard errors, and Student's factor of as small a chance for few."""
        return student(DOUBT, self.replicates) * self.error

    @staticmethod
    def of(samples: Any) -> Estimate:
        """Return the mean of independent replicates `(r,)`, r >= 3, with its standard error."""
        values = _replicates(samples)
        return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values))

    @staticmethod
    def jackknife(statistic: Callable[[np.ndarray], float], samples: Any) -> Estimate:
        """Return a statistic of all replicates `(r, ...)` with its jackknife error, replicates left out one by one."""
        values = _replicates(samples)
        each = np.array([statistic(np.delete(values, i, axis=0)) for i in range(len(values))])
        error = math.sqrt((len(values) - 1) / len(values) * float(((each - each.mean()) ** 2).sum()))
        return Estimate(float(statistic(values)), error, len(values))


def _replicates(samples: Any) -> np.ndarray:
    values = np.asarray(samples, dtype=float)
    if values.ndim == 0 or len(values) < 3:
        raise NormwiseError(f"samples must hold at least 3 replicates, got shape {values.shape}; measure more")
    return values


def dots(x: Sequence[float] | np.ndarray, estimates: Sequence[Estimate]) -> dict[str, list[float]]:
    """Return what a figure draws: `x`, and of each estimate the value `y`, standard `error` and half `interval`."""
    return {
        "x": np.asarray(x, dtype=float).tolist(),
        "y": [one.value for one in estimates],
        "error": [one.error for one in estimates],
        "interval": [one.interval for one in estimates],
    }


def series(x: Sequence[float] | np.ndarray, samples: Any) -> dict[str, list[float]]:
    """Return what a figure draws of replicates `(r, len(x))`."""
    return dots(x, [Estimate.of(column) for column in np.asarray(samples, dtype=float).T])


def told(measured: Mapping[str, Sequence[float]], place: int = -1) -> str:
    """Say one of the dots of a figure, with half of its 95% interval, if it has one: `0.93 ± 0.02`."""
    value, half = measured["y"][place], measured["interval"][place]
    if not half:
        return f"{value:.3g}"
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{places}f} ± {half:.{places}f}"


def overlapping(measured: Mapping[str, Sequence[float]], *places: int) -> bool:
    """Say whether the 95% intervals of these dots of a figure, or of all, have a value in common."""
    chosen = places or range(len(measured["y"]))
    lows, highs = ([measured["y"][place] + sign * measured["interval"][place] for place in chosen] for sign in (-1, 1))
    return max(lows) <= min(highs)


def root_mean(squares: np.ndarray) -> float:
    """Return the square root of the mean: a statistic to jackknife, of replicates of mean squares."""
    return float(np.sqrt(np.mean(squares)))


def root_mean_square(values: Any) -> float:
    """Return the root mean square of an array, or of a tensor without a gradient."""
    return root_mean(np.square(np.asarray(values)))


@cache
def student(chance: float, replicates: int | None) -> float:
    """Return how many standard errors of so many replicates are exceeded, on either side, with this chance.

    By bisection in the exact finite sums for whole degrees of freedom. None: the error is known, as of infinitely many.

    Reference: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.

    >>> print(round(student(0.05, 3), 2), round(student(0.05, None), 2))
    4.3 1.96
    """
    if replicates is None:
        return NormalDist().inv_cdf(1 - chance / 2)
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(freedom)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, replicates - 1) < 1 - chance else (low, middle)
    return math.tan(low) * math.sqrt(replicates - 1)


def _inside(angle: float, freedom: int) -> float:
    """Return the chance that |t| is below `sqrt(freedom) tan(angle)`."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
