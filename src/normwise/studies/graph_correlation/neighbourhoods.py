"""Batches of neighbourhoods of a real graph: how alike their nodes are, what norms keep of them, what networks learn."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from normwise.care.recalibrate import recalibrate
from normwise.layers import BatchNorm, GraphBatchNorm
from normwise.studies.graph_correlation.graphs import Batch, Graph, side_by_side
from normwise.studies.graph_correlation.networks import (
    NODE,
    NORM_CHANNELS,
    NORMS,
    Network,
    NormOf,
    Split,
    accuracy,
    trained,
)

NODES = 64  # of a batch
MIXTURES = (1, 2, 4, 8)  # neighbourhoods in a batch, of as many nodes together


def variance_and_correlation(values: Tensor) -> tuple[float, float]:
    """Return the variance of all values `(neighbourhoods, n, c)` and the correlation of two of one neighbourhood.

    Both about the mean of them all, and over every pair: nothing here is sampled, or a variance within a batch.
    """
    deviations = values.double() - values.double().mean((0, 1))
    square, sums = deviations.square().sum(), deviations.sum(1).square().sum()
    count = values.shape[1]
    return float(square / values.numel()), float((sums - square) / (square * (count - 1)))


def smoothed(graph: Graph) -> Tensor:
    """Return every node's neighbourhood, nearest nodes first: `(nodes, n, c)` of 16 random directions of its features."""
    directions = torch.randn(graph.features.shape[1], 16, generator=torch.Generator().manual_seed(0))
    features = graph.adjacency @ (graph.features @ directions)
    return torch.stack([features[graph.ball(centre, NODES)] for centre in range(len(features))])


def averaged(values: Tensor, mixed: int, batches: int, generator: torch.Generator) -> float:
    """Return what our BatchNorm keeps of so many batches, each of `mixed` random neighbourhoods of `(all, n, c)`."""
    norm = BatchNorm(values.shape[-1], momentum=None)
    with torch.no_grad():
        for _ in range(batches):
            norm(values[torch.randint(len(values), (mixed,), generator=generator)].flatten(0, 1))
    return float(norm.get_buffer("running_var").mean())


def learnt(graph: Graph, mixed: int, steps: int, followed: int, seed: int) -> dict[str, Any]:
    """Train with BatchNorm and with layer norm on batches of `mixed` neighbourhoods of labelled nodes, the same for both.

    GraphBatchNorm trains as BatchNorm does, with the batch's statistics: the trained network gets either norm, and
    `followed` more batches, from which it is also recalibrated. Returns by way the accuracy, by way the running variance over
    the variance of all those neighbourhoods' nodes at the norm, and the correlation of two nodes of one there.
    """
    split = Split.of(graph, seed)
    parts = [graph.part(graph.ball(centre, NODES // mixed)) for centre in split.known.tolist()]
    model, other = (
        trained(graph, NORMS[n], _drawn(parts, mixed, seed), steps, split, seed) for n in ("BatchNorm", NODE)
    )
    variance, correlation = variance_and_correlation(torch.stack([_before_norm(model, part) for part in parts]))
    more = list(islice(_drawn(parts, mixed, seed + 1), followed))
    kept = {
        name: _follow(model, norm, more)
        for name, norm in (("BatchNorm", BatchNorm), ("GraphBatchNorm", GraphBatchNorm))
    }
    models = {name: followed for name, (followed, _) in kept.items()}
    models["recalibrated"] = copy.deepcopy(model)
    recalibrate(models["recalibrated"], [batch[:2] for batch in more])
    variances = {name: average for name, (_, average) in kept.items()}
    variances["recalibrated"] = _running_variance(models["recalibrated"].norm)
    models[NODE] = other
    return {
        "accuracy": {name: accuracy(one, graph, split) for name, one in models.items()},
        "kept": {name: one / variance for name, one in variances.items()},
        "correlation": correlation,
    }


def _drawn(parts: Sequence[Batch], mixed: int, seed: int) -> Iterator[Batch]:
    """Yield batches of `mixed` random neighbourhoods, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield side_by_side([parts[i] for i in torch.randint(len(parts), (mixed,), generator=generator).tolist()])


def _before_norm(model: Network, batch: Batch) -> Tensor:
    """Return what arrives at the norm, `(n, c)`."""
    with torch.no_grad():
        return model.first(batch.smooth)


def _follow(model: Network, norm: NormOf, batches: Sequence[Batch]) -> tuple[Network, float]:
    """Return the network with this norm, after batches that changed no weight, and its running variance over time.

    Averaged over the second half of them: by then the first value is forgotten.
    """
    followed, kept = copy.deepcopy(model), list[float]()
    followed.norm = norm(NORM_CHANNELS)
    getattr(followed.norm, "module", followed.norm).load_state_dict(model.norm.state_dict())
    with torch.no_grad():
        for batch in batches:
            followed.norm(_before_norm(model, batch))
            kept.append(_running_variance(followed.norm))
    return followed.eval(), fmean(kept[len(kept) // 2 :])


def _running_variance(norm: nn.Module) -> float:
    """Return the mean running variance of a norm's channels."""
    return float(getattr(norm, "module", norm).get_buffer("running_var").mean())
