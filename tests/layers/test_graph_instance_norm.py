"""`GraphInstanceNorm`: the conformance suite, and whose moments its buffers follow."""

from __future__ import annotations

from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance
from graph_batches import REFUSALS, SHAPES, index, one_graph, some_graphs
from torch import nn

from normwise.layers import GraphInstanceNorm, Source, StatisticsPolicy
from normwise.models.walk import norm_layers


def oracle(x, side, state, momentum):
    """Each graph by its own statistics; the buffers move towards the average graph that has two nodes or more."""
    graph = np.asarray(side[0]).reshape(-1, 1)
    statistics = loops.measure(x, graph)
    y = loops.standardise(x, graph, loops.by_batch(statistics), loops.shared(state))
    average = {}
    for channel in range(x.shape[1]):
        full = [(mean, m2 / (n - 1)) for (_, c), (n, mean, m2) in statistics.items() if c == channel and n > 1]
        if full:
            mean, variance = (sum(column) / len(full) for column in zip(*full))
            average[0, channel] = 2, mean, variance
    return y, loops.updated(state, average, momentum)


def evaluate(x, side, state):
    graph = np.asarray(side[0]).reshape(-1, 1)
    running = lambda _, c: (state["running_mean"][c], state["running_var"][c])  # noqa: E731
    return loops.standardise(x, graph, running, loops.shared(state))


class TestGraphInstanceNorm(LayerConformance):
    case = LayerCase(
        create=partial(GraphInstanceNorm, affine=True, track_running_stats=True),
        oracle=oracle,
        evaluate=evaluate,
        shapes=SHAPES,
        side=some_graphs,
        groups=index,
        trivial_side=one_graph,
        offset_shape=(3200, 4),
        refusals=REFUSALS,
    )


def test_by_default_there_are_no_tables_and_evaluation_treats_a_graph_as_training_does():
    layer, x, batch = GraphInstanceNorm(3), torch.randn(7, 3), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    assert list(layer.state_dict()) == []
    assert torch.equal(layer(x, batch), layer.eval()(x, batch))
    for graph in (0, 1):
        expected = nn.InstanceNorm1d(3)(x[batch == graph].t().unsqueeze(0)).squeeze(0).t()
        torch.testing.assert_close(layer(x, batch)[batch == graph], expected, rtol=1e-4, atol=1e-5)


def test_graphs_of_one_node_and_none_do_not_enter_the_buffers():
    plain, mixed = (GraphInstanceNorm(2, track_running_stats=True) for _ in range(2))
    x, lonely = torch.randn(6, 2) + 3, torch.full((1, 2), 100.0)
    plain(x, torch.tensor([0, 0, 1, 1, 1, 1]))
    mixed(torch.cat([x, lonely]), torch.tensor([0, 0, 4, 4, 4, 4, 2]))
    torch.testing.assert_close(mixed.running_mean, plain.running_mean)
    torch.testing.assert_close(mixed.running_var, plain.running_var)


@pytest.mark.parametrize("batch", [torch.tensor([0]), torch.tensor([], dtype=torch.long)])
def test_a_batch_of_no_graph_with_two_nodes_changes_no_buffer_and_is_no_error(batch):
    layer = GraphInstanceNorm(2, track_running_stats=True)
    y = layer(torch.full((len(batch), 2), 5.0), batch)
    assert y.abs().sum() == 0
    assert torch.equal(layer.running_var, torch.ones(2))
    assert layer.running_mean.abs().sum() == 0
    assert int(layer.num_batches_tracked) == 0


def test_running_source_with_update_follows_the_typical_graph_all_the_same():
    layer = GraphInstanceNorm(2, track_running_stats=True, policy=StatisticsPolicy(training=Source.RUNNING))
    x, batch = torch.randn(8, 2) * 2, torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    torch.testing.assert_close(layer(x, batch), x / (1 + EPS) ** 0.5)
    variance = (x[batch == 0].var(0) + x[batch == 1].var(0)) / 2
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * variance)


def test_tools_for_batch_normalization_take_it_for_what_it_is():
    plain, tracked = GraphInstanceNorm(2), GraphInstanceNorm(2, track_running_stats=True)
    found = norm_layers(nn.Sequential(plain, tracked))
    assert [layer.module for layer in found] == [tracked]
    assert found[0].per_sample
