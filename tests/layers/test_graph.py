"""What the norms of graphs share: which node belongs to which graph, however that is said."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conformance import dataclasses_as_written, randomise, shapes_unchecked
from torch import nn
from torch.utils.checkpoint import checkpoint

from normwise.errors import ShapeError
from normwise.layers import BatchInfo, GraphInstanceNorm, GraphLayerNorm, GraphNorm, PairNorm

LAYERS = {
    "GraphNorm": partial(GraphNorm, 4),
    "GraphInstanceNorm": partial(GraphInstanceNorm, 4, affine=True),
    "GraphLayerNorm": partial(GraphLayerNorm, 4),
    "PairNorm": PairNorm,
    "PairNorm of nodes": partial(PairNorm, scale_individually=True),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    return randomise(LAYERS[request.param]())


BATCH = torch.tensor([2, 0, 1, 2, 2, 0, 1, 0, 0])


def test_each_graph_is_what_it_is_alone(layer):
    """Its nodes' order, its number, gaps, the dtype of the index and the other graphs do not matter."""
    x = torch.randn(9, 4)
    alone = torch.empty_like(x)
    for graph in range(3):
        alone[BATCH == graph] = layer(x[BATCH == graph])
    numbers = torch.tensor([7, 10**12, 0])
    for batch in (BATCH, BATCH.int(), BATCH.to(torch.int16), BATCH * 2, numbers[BATCH]):
        torch.testing.assert_close(layer(x, batch), alone)
    for batch_size in (3, 50):
        torch.testing.assert_close(layer(x, BATCH, batch_size), alone)
        torch.testing.assert_close(layer(x, batch=BATCH, batch_size=batch_size), alone)


def test_the_graph_comes_from_the_batch_info_the_argument_comes_first_and_without_either_there_is_one(layer):
    x = torch.randn(9, 4)
    expected = layer(x, BATCH)
    with BatchInfo(graph=BATCH):
        assert torch.equal(nn.Sequential(nn.Identity(), layer)(x), expected)
        assert torch.equal(layer(x, BATCH.flip(0)), layer(x, BATCH.flip(0), 3))
        assert not torch.allclose(layer(x, BATCH.flip(0)), expected)
    torch.testing.assert_close(layer(x), layer(x, torch.zeros(9, dtype=torch.long)))
    with BatchInfo(graph=BATCH[:5]), pytest.raises(ShapeError, match="batch must have one entry a sample"):
        layer(x)


@pytest.mark.parametrize("training", [True, False])
def test_a_single_node_and_none_are_graphs_too(layer, training):
    layer.train(training)
    one = layer(torch.randn(1, 4), torch.tensor([5])).detach()
    assert one.isfinite().all()
    for arguments in ((), (BATCH[:0],), (BATCH[:0], 3), (BATCH[:0], 0)):
        x = torch.randn(0, 4).requires_grad_()
        y = layer(x, *arguments)
        y.sum().backward()
        assert y.shape == x.grad.shape == (0, 4)


def test_empty_graphs_leave_no_trace_in_gradients(layer):
    x, gradients = torch.randn(9, 4), []
    for batch, batch_size in ((BATCH, 3), (BATCH * 3, 20)):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        layer(leaf, batch, batch_size).pow(3).sum().backward()
        gradients.append([leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    torch.testing.assert_close(*gradients)


def test_under_autocast_and_checkpointing_it_learns_as_without(layer):
    model, x = nn.Sequential(nn.Linear(4, 4), layer), torch.randn(9, 4)
    with BatchInfo(graph=BATCH):
        plain = torch.autograd.grad(model(x).pow(3).sum(), model[0].weight)
        y = checkpoint(model, x, use_reentrant=False, context_fn=BatchInfo.checkpoint)
    torch.testing.assert_close(torch.autograd.grad(y.pow(3).sum(), model[0].weight), plain)
    with BatchInfo(graph=BATCH), torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    half.float().pow(3).sum().backward()
    torch.testing.assert_close(half.float(), y.float(), rtol=0.1, atol=0.1)
    assert model[0].weight.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_without_the_number_of_graphs_compiling_breaks_the_graph_and_is_right(layer):
    torch._dynamo.reset()
    x = torch.randn(9, 4)
    with shapes_unchecked(), dataclasses_as_written():
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(x, BATCH), layer(x, BATCH))
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_a_large_offset_costs_nothing_but_the_inputs_own_rounding(name):
    """At mean 1e4 and deviation 2 in float32; the inputs' own steps of 2^-11 are 2^-12 of a deviation at most."""
    layer, x = LAYERS[name](), torch.randn(3000, 4) * 2 + 1e4
    batch = torch.arange(3000) % 3
    error = layer(x, batch).double() - layer.double()(x.double(), batch)
    assert error.abs().max() < 2**-12
