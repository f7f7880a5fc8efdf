"""`BatchNorm` against the conformance suite, and what is its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance
from torch import nn

from normwise.core.kernels import use_backend
from normwise.errors import NormwiseError, ShapeError
from normwise.layers import BatchNorm, Source, StatisticsPolicy


def oracle(x, side, state, momentum):
    """Batch normalization as in Ioffe and Szegedy, algorithm 1: one channel at a time, one value at a time."""
    y, mean, variance = np.empty_like(x), state["running_mean"].copy(), state["running_var"].copy()
    for channel in range(x.shape[1]):
        values = x[:, channel].ravel().tolist()
        mu = math.fsum(values) / len(values)
        m2 = math.fsum((value - mu) ** 2 for value in values)
        deviation = math.sqrt(m2 / len(values) + EPS)
        for place in np.ndindex(*x[:, channel].shape):
            index = (place[0], channel, *place[1:])
            y[index] = (x[index] - mu) / deviation * state["weight"][channel] + state["bias"][channel]
        mean[channel] += momentum * (mu - mean[channel])
        variance[channel] += momentum * (m2 / (len(values) - 1) - variance[channel])
    return y, {"running_mean": mean, "running_var": variance}


class TestBatchNorm(LayerConformance):
    case = LayerCase(create=BatchNorm, oracle=oracle)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("affine", "track"), [(False, True), (True, False), (False, False)])
def test_without_affine_or_buffers_it_is_torchs(backend, affine, track):
    ours = BatchNorm(3, affine=affine, track_running_stats=track)
    theirs = nn.BatchNorm1d(3, affine=affine, track_running_stats=track)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for training in (True, False):
        x = torch.randn(6, 3, 4)
        with use_backend(backend):
            y = ours.train(training)(x)
        torch.testing.assert_close(y, theirs.train(training)(x), rtol=1e-5, atol=1e-5)


def test_channels_last_and_strided_input():
    x = torch.randn(4, 6, 5, 8).to(memory_format=torch.channels_last)
    for view in (x, x[:, :, ::2, 1::3], x.transpose(2, 3)):
        with use_backend("reference"):
            y = BatchNorm(6)(view)
        torch.testing.assert_close(y, nn.BatchNorm2d(6)(view), rtol=1e-5, atol=1e-5)


def test_running_source_with_update_tracks_the_batch_and_uses_the_statistics_before_it():
    layer = BatchNorm(2, policy=StatisticsPolicy(training=Source.RUNNING))
    x = torch.randn(50, 2) + 3
    torch.testing.assert_close(layer(x), x / math.sqrt(1 + EPS))
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean(0))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var(0))
    assert int(layer.num_batches_tracked) == 1


def test_running_source_with_update_refuses_one_value_before_any_change():
    layer = BatchNorm(2, policy=StatisticsPolicy(training=Source.RUNNING))
    with pytest.raises(ShapeError, match="more than 1 value"):
        layer(torch.zeros(1, 2))
    assert int(layer.num_batches_tracked) == 0


def test_frozen_takes_one_value_in_training():
    layer = BatchNorm(2, policy=StatisticsPolicy(training=Source.RUNNING, update=False))
    assert layer(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"num_features": 2, "eps": -1e-5}, "eps must be a number that is not negative"),
        ({"num_features": 2, "momentum": 1.5}, r"momentum must lie in \[0, 1\]"),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(NormwiseError, match=message):
        BatchNorm(**arguments)


def test_a_mixed_precision_layer_trains_under_autocast():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(torch.randn(3, 1, 6, 6))
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert model[1].running_mean.dtype == torch.float32
    assert model[1].weight.grad.isfinite().all()


def test_meta_construction_and_the_printed_form():
    layer = BatchNorm(3, device="meta", dtype=torch.float64)
    assert layer.weight.is_meta
    assert layer.running_var.dtype == torch.float64
    assert repr(BatchNorm(3)) == "BatchNorm(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    assert "policy" in repr(BatchNorm(3, policy=StatisticsPolicy(update=False)))
