"""Every norm of a graph network lets it learn a graph whose classes are two cliques."""

from __future__ import annotations

import pytest
import torch
from studies.graph_correlation.cliques import cliques

from normwise.layers import GraphBatchNorm
from normwise.studies.graph_correlation.networks import NORMS, Split, accuracy, trained


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("name", NORMS)
def test_a_network_learns_with_every_norm(name):
    graph = cliques()
    split = Split.of(graph, 0)
    model = trained(graph, NORMS[name], [graph.whole] * 40, 40, split, 0)
    assert accuracy(model, graph, split) > 0.8


def test_only_known_labels_teach():
    graph, split = cliques(), Split.of(cliques(), 1)
    assert len(split.known) == 40
    assert set(split.known.tolist()).isdisjoint(split.held.tolist())
    graph.labels[split.held] = 1 - graph.labels[split.held]
    model = trained(graph, NORMS["BatchNorm"], [graph.whole] * 40, 40, split, 0)
    assert accuracy(model, graph, split) < 0.2


def test_graph_batch_norm_learns_the_weights_that_batch_norm_learns():
    graph, split = cliques(), Split.of(cliques(), 0)
    parts = [graph.part(graph.ball(centre, 16)) for centre in split.known.tolist()]
    plain, graphs = (trained(graph, norm, parts, 30, split, 0) for norm in (NORMS["BatchNorm"], GraphBatchNorm))
    for one, other in zip(plain.parameters(), graphs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
