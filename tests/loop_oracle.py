"""Normalization one value at a time, for the oracles of the layers: slow, plain, and no relation of the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from conformance import EPS

Statistics = dict[
    tuple[int, int], tuple[int, float, float]
]  # of a group and channel: count, mean, summed squares about it


def places(x: np.ndarray, groups: np.ndarray) -> Iterator[tuple[tuple[int, ...], int]]:
    """Every place of x that belongs to a group, with the group; groups are `(n, 1, *)` or broadcast to it."""
    spread = np.broadcast_to(groups, x.shape)
    for place in np.ndindex(*x.shape):
        if spread[place] >= 0:
            yield place, int(spread[place])


def measure(x: np.ndarray, groups: np.ndarray) -> Statistics:
    """Count, mean and summed squares of each group and channel."""
    members: dict[tuple[int, int], list[float]] = {}
    for place, group in places(x, groups):
        members.setdefault((group, place[1]), []).append(float(x[place]))
    found = {}
    for key, values in members.items():
        mean = math.fsum(values) / len(values)
        found[key] = len(values), mean, math.fsum((value - mean) ** 2 for value in values)
    return found


def standardise(
    x: np.ndarray,
    groups: np.ndarray,
    mean_and_variance: Callable[[int, int], tuple[float, float]],
    affine: Callable[[tuple[int, ...]], tuple[float, float]],
) -> np.ndarray:
    """Return `(x - mean) / sqrt(variance + eps) * weight + bias`, 0 outside all groups.

    mean_and_variance: of a group and channel. affine: weight and bias of a place.
    """
    y = np.zeros_like(x)
    for place, group in places(x, groups):
        (mean, variance), (weight, bias) = mean_and_variance(group, place[1]), affine(place)
        y[place] = (x[place] - mean) / math.sqrt(variance + EPS) * weight + bias
    return y


def by_batch(statistics: Statistics) -> Callable[[int, int], tuple[float, float]]:
    """The mean and population variance of the batch."""
    return lambda group, channel: (
        statistics[group, channel][1],
        statistics[group, channel][2] / statistics[group, channel][0],
    )


def shared(state: dict[str, np.ndarray]) -> Callable[[tuple[int, ...]], tuple[float, float]]:
    """A weight and bias by channel."""
    return lambda place: (state["weight"][place[1]], state["bias"][place[1]])


def updated(state: dict[str, np.ndarray], statistics: Statistics, momentum: float) -> dict[str, np.ndarray]:
    """The running tables `(c,)` after one step with these statistics of group 0, or `(g, c)` after each of theirs.

    Groups of one value change nothing; `momentum` is a number or one a group.
    """
    mean, variance = state["running_mean"].copy(), state["running_var"].copy()
    rates = np.broadcast_to(momentum, mean.shape[:-1])
    for (group, channel), (count, mu, m2) in statistics.items():
        row = channel if mean.ndim == 1 else (group, channel)
        if count > 1:
            rate = float(rates if mean.ndim == 1 else rates[group])
            mean[row] += rate * (mu - mean[row])
            variance[row] += rate * (m2 / (count - 1) - variance[row])
    return {"running_mean": mean, "running_var": variance}


def counted(state: dict[str, np.ndarray], statistics: Statistics) -> dict[str, np.ndarray]:
    """The counter `(g,)` after a step with these statistics."""
    counter = state["num_batches_tracked"].copy()
    for group in {group for (group, _), (count, _, _) in statistics.items() if count > 1}:
        counter[group] += 1
    return {"num_batches_tracked": counter}
