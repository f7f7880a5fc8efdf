"""Side information that is no tensor, or lies elsewhere, is refused in words; far from 0, frozen layers stay exact."""

from __future__ import annotations

import pytest
import torch
from conformance import shapes_unchecked
from torch import nn

from normwise.errors import ShapeError
from normwise.layers import (
    BatchNormAct,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GraphLayerNorm,
    GraphNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)

ELSEWHERE = torch.zeros(4, dtype=torch.long, device="meta")


@pytest.mark.parametrize(
    ("layer", "side", "message"),
    [
        (MaskedBatchNorm(3), [1, 2, 3, 4], "lengths must be a tensor, got list"),
        (TimewiseBatchNorm(3, 9), [1, 2, 3, 4], "lengths must be a tensor, got list"),
        (DomainBatchNorm(3, 2), [0, 1, 0, 1], "domain must be a tensor, got list"),
        (DomainBatchNorm(3, 2), ELSEWHERE, "domain must be on the device of x, cpu, got meta"),
        (ConditionalBatchNorm(3, 2), ELSEWHERE, "condition must be on the device of x"),
        (ConditionalBatchNorm(3, embedding_features=2), torch.zeros(4, 2, device="meta"), "condition must be on"),
    ],
)
def test_what_is_no_tensor_or_elsewhere_is_refused_before_any_change(layer, side, message):
    before = [table.clone() for table in layer.buffers()]
    with shapes_unchecked(), pytest.raises(ShapeError, match=message):
        layer(torch.randn(4, 3, 5), side)
    assert all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))


@pytest.mark.parametrize("layer", [GraphNorm(3), GraphLayerNorm(3), GraphLayerNorm(3, mode="node")])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([0, 0, 1, 1], "a tensor"),
        (ELSEWHERE, "device"),
        (torch.tensor([0, 0, 1]), "one entry"),
        (-torch.ones(4).long(), "lie in"),
    ],
)
def test_graph_ids_that_do_not_fit_are_refused(layer, batch, message):
    with shapes_unchecked(), pytest.raises(ShapeError, match=message):
        layer(torch.randn(4, 3), batch)


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (MaskedBatchNorm(8), (torch.full((32,), 50),)),
        (DomainBatchNorm(8, 2), (torch.arange(32) % 2,)),
        (TimewiseBatchNorm(8, 50), ()),
        (BatchNormAct(8, nn.Identity()), ()),
    ],
)
def test_in_evaluation_a_large_mean_costs_the_gradient_of_the_weight_no_digits(layer, side):
    x = torch.randn(32, 8, 50) * 2 + 1e4
    exact = nn.BatchNorm1d(8, dtype=torch.float64).eval()
    upstream = torch.randn_like(x)
    for norm in (layer, exact):
        norm.running_mean.fill_(1e4)
        norm.running_var.fill_(4)
        norm.zero_grad()
    y, expected = layer.eval()(x, *side), exact(x.double())
    y.backward(upstream)
    expected.backward(upstream.double())
    scale = exact.weight.grad.abs().max()
    assert ((layer.weight.grad.double() - exact.weight.grad).abs().max() / scale) < 1e-5


def test_hooks_of_an_activation_are_called_once_at_any_size():
    calls: list[int] = []
    activation = nn.SiLU()
    activation.register_forward_hook(lambda *_: calls.append(1))
    layer = BatchNormAct(8, activation)
    for size in (4, 64):
        layer(torch.randn(size, 8, 32, 32, requires_grad=True)).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (ConditionalBatchNorm(3, 2, device="meta"), ELSEWHERE),
        (DomainBatchNorm(3, 2, device="meta"), ELSEWHERE),
        (TimewiseBatchNorm(3, 9, device="meta"), ELSEWHERE),
        (MaskedBatchNorm(3, device="meta").eval(), ELSEWHERE),
    ],
)
def test_shapes_are_inferred_on_the_meta_device(layer, side):
    if not isinstance(layer, TimewiseBatchNorm):
        assert layer(torch.empty(4, 3, 5, device="meta"), side).shape == (4, 3, 5)
    assert layer.eval()(torch.empty(4, 3, 5, device="meta"), side).shape == (4, 3, 5)


@pytest.mark.parametrize("layer", [GraphNorm(3, device="meta"), GraphLayerNorm(3, device="meta")])
def test_so_are_those_of_graphs(layer):
    assert layer(torch.empty(4, 3, device="meta"), ELSEWHERE).shape == (4, 3)
