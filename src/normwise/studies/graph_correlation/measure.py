"""Correlated nodes in one batch: what training, running averages and exact merging see; then real graphs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from normwise.errors import MissingDataError, MissingExtraError
from normwise.studies.estimate import Estimate, dots, series
from normwise.studies.graph_correlation import correlated, neighbourhoods
from normwise.studies.graph_correlation.graphs import Graph, cora, neighbours_of_digits
from normwise.studies.graph_correlation.networks import NORMS, Split, accuracy, trained
from normwise.studies.graph_correlation.predict import (
    BALL,
    EVAL,
    EXACT,
    FEW,
    MERGED,
    MIXED,
    NEGATIVE,
    NEGATIVE_POPULATION,
    RHO,
    RUNNING,
    STRONG,
    TRAIN,
    mixed,
    neighbouring,
)
from normwise.studies.study import Measurement, Progress, tracked

CORRELATIONS = (0.0, 0.4, 0.7, RHO)
OF_FEW = (-1 / (FEW - 1), -0.1, 0.0, 0.2, 0.4)


@dataclass(frozen=True)
class _Plan:
    """How much is measured.

    Batches and replicates of what is drawn; networks of each norm on the whole graph, and for how many epochs; networks
    of each way on batches of neighbourhoods, for how many steps, and how many batches their norms follow afterwards.
    """

    batches: int
    replicates: int
    networks: int
    epochs: int
    mixed_networks: int
    steps: int
    followed: int


_PLANS = {
    "tiny": _Plan(40, 8, 3, 1, 3, 3, 20),
    "quick": _Plan(80, 8, 3, 30, 4, 250, 200),
    "full": _Plan(400, 20, 5, 150, 6, 1200, 200),
}
_EVALUATED = 5  # times as many batches where only averages are kept


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Draw correlated batches for our layers to average; cut neighbourhoods out of graphs; classify nodes with each norm."""
    plan, found = _PLANS[size], defaultdict[str, list[Any]](list)
    given: dict[str, Any] = {"merged batches": plan.batches, "averaged batches": _EVALUATED * plan.batches}
    given |= {"followed batches": plan.followed, "correlation": {}, "correlation at the norm": {}}
    shown: dict[str, Any] = {"accuracy": {}, "mixtures": {}}
    graphs, missing = _graphs()
    with torch.random.fork_rng(devices=[]):
        generator = torch.Generator().manual_seed(seed)
        for _ in tracked(range(plan.replicates), lambda share: progress(share / 4)):
            for name, value in _made(plan.batches, generator).items():
                found[name].append(value)
        shown |= {n: series(CORRELATIONS, found.pop(n)) for n in ("running", "inflated", "merged", "train")}
        shown |= {n: series(OF_FEW, found.pop(n)) for n in ("bessel", "population")}
        for graph in tracked(graphs, lambda share: progress(0.25 + 0.75 * share)):
            generator = torch.Generator().manual_seed(seed)
            ratios, given["correlation"][graph.name] = _kept(graph, plan, generator)
            found |= ratios
            seeds = torch.randint(2**31, (max(plan.networks, plan.mixed_networks),), generator=generator).tolist()
            shown["accuracy"][graph.name] = _by_norm(graph, plan.epochs, seeds[: plan.networks])
            drawn, correlations = _by_mixture(graph, plan, seeds[: plan.mixed_networks])
            shown["mixtures"][graph.name], given["correlation at the norm"][graph.name] = drawn, correlations
    return Measurement({name: Estimate.of(values) for name, values in found.items()}, given, shown, missing=missing)


def lacks() -> tuple[str, ...]:
    """Return what to install for the graphs whose data are not there."""
    return _graphs()[1]


def _graphs() -> tuple[list[Graph], tuple[str, ...]]:
    """Return the graphs whose data are there, and what to install for the others."""
    found, missing = list[Graph](), list[str]()
    readers: tuple[Callable[[], Graph], ...] = (cora, neighbours_of_digits)
    for read in readers:
        try:
            found.append(read())
        except (MissingDataError, MissingExtraError) as error:
            missing.append(str(error))
    return found, tuple(missing)


def _made(batches: int, generator: torch.Generator) -> dict[str, Any]:
    """Return one replicate of everything that is drawn."""
    kept = [correlated.trained_and_kept(rho, batches, generator) for rho in CORRELATIONS]
    one: dict[str, Any] = {name: [each[name] for each in kept] for name in kept[0]}
    one["inflated"] = [correlated.evaluated(rho, _EVALUATED * batches, generator) for rho in CORRELATIONS]
    at = CORRELATIONS.index(RHO)
    one[RUNNING], one[EVAL], one[MERGED] = (one[n][at] for n in ("running", "inflated", "merged"))
    one[EXACT] = correlated.exponentially(RHO, batches, generator)
    one[TRAIN] = correlated.trained_and_kept(STRONG, batches, generator)["train"]
    few = [correlated.variances(rho, FEW, 2 * batches, generator) for rho in OF_FEW]
    one["bessel"], one["population"] = np.transpose(few).tolist()
    one[NEGATIVE], one[NEGATIVE_POPULATION] = few[0]
    return one


def _kept(graph: Graph, plan: _Plan, generator: torch.Generator) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return what an average keeps of batches of one and of several neighbourhoods, and how correlated those are."""
    around = neighbourhoods.smoothed(graph)
    near = around[:, : BALL // MIXED]
    variance, together = neighbourhoods.variance_and_correlation(around)
    variance_near, nearer = neighbourhoods.variance_and_correlation(near)
    ratios: dict[str, list[float]] = {neighbouring(graph.name): [], mixed(graph.name): []}
    for _ in range(2 * plan.replicates):
        one = neighbourhoods.averaged(around, 1, _EVALUATED * plan.batches, generator)
        several = neighbourhoods.averaged(near, MIXED, plan.batches, generator)
        ratios[neighbouring(graph.name)].append(one / variance)
        ratios[mixed(graph.name)].append(several / variance_near)
    return ratios, {"together": together, "mixed": nearer}


def _by_norm(graph: Graph, epochs: int, seeds: list[int]) -> dict[str, Any]:
    """Return the accuracy of each norm's networks, the whole graph one batch."""
    scores = defaultdict[str, list[float]](list)
    for seed in seeds:
        split = Split.of(graph, seed)
        for name, norm in NORMS.items():
            model = trained(graph, norm, [graph.whole] * epochs, epochs, split, seed)
            scores[name].append(accuracy(model, graph, split))
    return {name: dots([0], [Estimate.of(values)]) for name, values in scores.items()}


def _by_mixture(graph: Graph, plan: _Plan, seeds: list[int]) -> tuple[dict[str, Any], list[float]]:
    """Return accuracy and what is kept by way, over the neighbourhoods in a batch, and how correlated those are."""
    runs = [
        [neighbourhoods.learnt(graph, count, plan.steps, plan.followed, seed) for count in neighbourhoods.MIXTURES]
        for seed in seeds
    ]
    drawn = {
        what: {
            way: series(range(len(neighbourhoods.MIXTURES)), [[one[what][way] for one in run] for run in runs])
            for way in runs[0][0][what]
        }
        for what in ("accuracy", "kept")
    }
    return drawn, np.mean([[one["correlation"] for one in run] for run in runs], axis=0).tolist()
