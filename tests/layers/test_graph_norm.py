"""`GraphNorm`: the conformance suite, and what its learnt share of the mean does."""

from __future__ import annotations

import math

import loop_oracle as loops
import numpy as np
import torch
from conformance import EPS, LayerCase, LayerConformance
from graph_batches import REFUSALS, SHAPES, index, some_graphs

from normwise.layers import GraphNorm


def oracle(x, side, state, momentum):
    """Cai et al.: take a share of the graph's mean off, divide by the root mean square of what is left."""
    graph, y = side[0].tolist(), np.empty_like(x)
    means = loops.measure(x, np.asarray(side[0]).reshape(-1, 1))
    rest = {(i, c): x[i, c] - state["mean_scale"][c] * means[graph[i], c][1] for i, c in np.ndindex(*x.shape)}
    for i, c in np.ndindex(*x.shape):
        squares = [rest[j, c] ** 2 for j in range(len(x)) if graph[j] == graph[i]]
        y[i, c] = (
            rest[i, c] / math.sqrt(math.fsum(squares) / len(squares) + EPS) * state["weight"][c] + state["bias"][c]
        )
    return y, {}


class TestGraphNorm(LayerConformance):
    case = LayerCase(
        create=GraphNorm,
        oracle=oracle,
        evaluate=lambda x, side, state: oracle(x, side, state, None)[0],
        shapes=SHAPES,
        side=some_graphs,
        groups=index,
        trivial_side=None,
        refusals=REFUSALS,
        running=False,
        groups_are_centred=False,
        twin=False,
    )


def test_the_whole_mean_off_is_instance_normalization_and_none_of_it_keeps_a_regular_graph_apart():
    layer, batch = GraphNorm(2), torch.tensor([0, 0, 0, 1, 1, 1])
    x = torch.tensor([[1.0, 4.0]] * 3 + [[2.0, -3.0]] * 3)
    assert layer(x, batch).abs().max() < 1e-4
    with torch.no_grad():
        layer.mean_scale.zero_()
    torch.testing.assert_close(layer(x, batch), x.sign(), rtol=1e-4, atol=0)


def test_a_graph_of_one_node_keeps_the_share_of_it_that_is_not_taken_off():
    layer, x = GraphNorm(2), torch.tensor([[3.0, -2.0]])
    torch.testing.assert_close(layer(x), torch.zeros(1, 2))
    with torch.no_grad():
        layer.mean_scale.fill_(0.5)
        layer.bias.fill_(1.0)
    torch.testing.assert_close(layer(x), 1 + 0.5 * x / (0.25 * x**2 + EPS).sqrt())


def test_the_printed_form_and_construction():
    assert repr(GraphNorm(3)) == "GraphNorm(3, eps=1e-05)"
    layer = GraphNorm(3, device="meta", dtype=torch.float64)
    assert layer.mean_scale.is_meta
    assert layer.mean_scale.dtype == torch.float64
    assert layer.in_channels == 3
