"""`GraphBatchNorm`: the conformance suite on what it wraps, its variance against correlated nodes, and what it adds."""

from __future__ import annotations

import copy
from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance, buffers, dataclasses_as_written, same, shapes_unchecked

import normwise
from normwise.core import running
from normwise.errors import ShapeError, UsageError
from normwise.layers import GraphBatchNorm, StatisticsPolicy
from normwise.layers.graph_batch_norm import NodeBatchNorm


def oracle(x, side, state, momentum):
    """Batch normalization; the running variance is that of a mixture, by its definition: E[z^2] - E[z]^2 about any z0."""
    everyone = np.zeros_like(x[:, :1], dtype=int)
    statistics = loops.measure(x, everyone)
    y = loops.standardise(x, everyone, loops.by_batch(statistics), loops.shared(state))
    tables = loops.updated(state, statistics, momentum)
    for (_, c), (n, mean, m2) in statistics.items():
        parts = [(1 - momentum, state["running_mean"][c], state["running_var"][c]), (momentum, mean, m2 / n)]
        tables["running_var"][c] = sum(w * (v + (mu - tables["running_mean"][c]) ** 2) for w, mu, v in parts)
    return y, tables


class TestNodeBatchNorm(LayerConformance):
    case = LayerCase(create=NodeBatchNorm, oracle=oracle, trivial=partial(NodeBatchNorm, update=running.exponential))


def test_the_layer_is_the_one_it_wraps_for_nodes_and_refuses_everything_else():
    layer, x = GraphBatchNorm(3), torch.randn(7, 3) * 2 + 1
    twin = copy.deepcopy(layer.module)
    assert torch.equal(layer(x), twin(x))
    assert same(buffers(layer.module), buffers(twin))
    assert torch.equal(layer.eval()(x), twin.eval()(x))
    before = buffers(layer.train())
    sizes = ((7, 3, 2), (7, 4), (1, 3), (0, 3), (7,), ())
    for bad in (*map(torch.randn, sizes), x.double(), x.long(), x.to("meta")):
        with shapes_unchecked(), pytest.raises(ShapeError):
            layer(bad)
    assert same(buffers(layer), before)


def correlated(batches, nodes, correlation):
    """Batches of nodes that share a part: variance 1, `correlation` between any two nodes of a batch."""
    shared, own = torch.randn(batches, 1, 8), torch.randn(batches, nodes, 8)
    return correlation**0.5 * shared + (1 - correlation) ** 0.5 * own


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_running_variance_is_the_populations_where_an_average_of_batch_variances_is_not(correlation):
    """Over the whole history (momentum None), so that what is left is sampling error: 2 / 400 of a variance's square."""
    ours, usual = (GraphBatchNorm(8, momentum=None, update=rule) for rule in (running.exact, running.exponential))
    batches = correlated(400, 64, correlation)
    for batch in batches:
        ours(batch)
        usual(batch)
    standard_error = (2 / 400) ** 0.5 / 8**0.5  # of the mean over 8 channels of the between-batch part
    assert ours.module.running_var.mean() == pytest.approx(1, abs=4 * standard_error)
    assert usual.module.running_var.mean() == pytest.approx(1 - correlation, abs=4 * standard_error)
    expected = batches.double().flatten(0, 1).var(0, unbiased=False)
    torch.testing.assert_close(ours.module.running_var.double(), expected, rtol=1e-4, atol=0)
    outputs = torch.cat([ours.eval()(batch) for batch in batches])
    assert outputs.std().item() == pytest.approx(1, rel=0.02)


def test_initial_values_are_part_of_the_mixture_and_fade():
    layer = GraphBatchNorm(1)
    for _ in range(30):
        layer(torch.tensor([[9.0], [11.0]]))
    left = 0.9**30
    expected = left + (1 - left) * 1 + left * (1 - left) * 10**2  # variances within, and between 0 and 10
    assert layer.module.running_var.item() == pytest.approx(expected, rel=1e-4)


def test_a_single_element_is_normalised_by_running_statistics_where_that_is_allowed():
    layer = GraphBatchNorm(2, allow_single_element=True)
    layer(torch.randn(6, 2) * 3 + 1)
    before, one = buffers(layer), torch.randn(1, 2).requires_grad_()
    y = layer(one)
    layer(torch.randn(6, 2))  # changes the buffers between a forward pass and its backward
    y.sum().backward()
    expected = (one - before["module.running_mean"]) / (before["module.running_var"] + EPS).sqrt()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(one.grad, (before["module.running_var"] + EPS).rsqrt().expand(1, 2))
    before = buffers(layer)
    assert layer(torch.randn(0, 2)).shape == (0, 2)
    assert same(buffers(layer), before)
    with pytest.raises(UsageError, match="allow_single_element must be False without track_running_stats"):
        GraphBatchNorm(2, allow_single_element=True, track_running_stats=False)


def test_it_is_frozen_and_reset_as_a_layer():
    layer, x = GraphBatchNorm(2), torch.randn(6, 2)
    normwise.freeze(layer)
    layer(x)
    assert layer.module.policy == StatisticsPolicy(training=layer.module.policy.training, update=False)
    assert same(buffers(layer), buffers(GraphBatchNorm(2)))
    normwise.unfreeze(layer)
    layer(x)
    assert int(layer.module.num_batches_tracked) == 1
    layer.reset_running_stats()
    layer.module.weight.data.fill_(3)
    layer.reset_parameters()
    assert same(layer.state_dict(), GraphBatchNorm(2).state_dict())
    assert "GraphBatchNorm(\n  (module): NodeBatchNorm(2, eps=1e-05" in repr(layer)


@pytest.mark.filterwarnings("ignore")
def test_it_compiles_with_its_special_case():
    layer = GraphBatchNorm(3, allow_single_element=True)
    twin, x = copy.deepcopy(layer), torch.randn(7, 3)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    with shapes_unchecked(), dataclasses_as_written():
        for values in (x, x[:1]):
            torch.testing.assert_close(compiled(values), layer(values))
    torch.testing.assert_close(buffers(twin), buffers(layer))
