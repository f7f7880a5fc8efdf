"""`GraphLayerNorm`: the conformance suite in both modes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance
from graph_batches import BAD_NODES, REFUSALS, SHAPES, index, some_graphs
from torch import nn

from normwise.errors import UsageError
from normwise.layers import GraphLayerNorm


def normalised(values):
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values) + EPS)
    return [(value - mean) / deviation for value in values]


def oracle(members, x, side, state, momentum):
    """Ba, Kiros and Hinton: one mean and deviation for the values of all channels of `members` of the graph or node."""
    y = np.empty_like(x)
    for nodes in members(side[0].tolist()):
        rows = np.reshape(normalised(x[nodes].ravel().tolist()), (len(nodes), -1))
        y[nodes] = rows * state["weight"] + state["bias"]
    return y, {}


def of_graphs(graph):
    return [[i for i, g in enumerate(graph) if g == wanted] for wanted in sorted(set(graph))]


def of_nodes(graph):
    return [[i] for i in range(len(graph))]


def case(mode, members, refusals):
    compute = partial(oracle, members)
    return LayerCase(
        create=partial(GraphLayerNorm, mode=mode),
        oracle=compute,
        evaluate=lambda x, side, state: compute(x, side, state, None)[0],
        shapes=SHAPES,
        side=some_graphs,
        groups=index,
        trivial_side=None,
        refusals=refusals,
        running=False,
        groups_are_centred=False,
        twin=False,
    )


class TestGraphLayerNorm(LayerConformance):
    case = case("graph", of_graphs, REFUSALS)


class TestGraphLayerNormOfNodes(LayerConformance):
    case = case("node", of_nodes, BAD_NODES)


def test_of_nodes_it_is_torchs_layer_norm_and_loads_its_state_dict():
    ours, theirs, x = GraphLayerNorm(4, mode="node"), nn.LayerNorm(4), torch.randn(5, 4)
    nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x, torch.tensor([0, 1, 0, 1, 0])), theirs(x))


def test_one_graph_is_the_same_with_and_without_a_batch():
    layer, x = GraphLayerNorm(4), torch.randn(5, 4)
    torch.testing.assert_close(layer(x, torch.zeros(5, dtype=torch.long)), layer(x))


def test_construction_and_the_printed_form():
    with pytest.raises(UsageError, match="mode must be one of 'graph', 'node', got 'nodes'"):
        GraphLayerNorm(4, mode="nodes")
    assert repr(GraphLayerNorm(4)) == "GraphLayerNorm(4, eps=1e-05, affine=True, mode=graph)"
    assert list(GraphLayerNorm(4, affine=False).state_dict()) == []
