"""`BatchRenorm`: the conformance suite where the bounds hold, Ioffe's algorithm where they do not."""

from __future__ import annotations

import math
from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance
from torch.autograd import gradcheck

from normwise.errors import ShapeError
from normwise.layers import BatchRenorm

R_MAX, D_MAX = 1.1, 1e-3  # so tight that both bounds hold for every channel of the cases: r and d are constants


def corrections(state, statistics, r_max, d_max):
    """r and d of each channel, from the running statistics before the batch."""
    found = {}
    for (_, channel), (count, mean, m2) in statistics.items():
        sigma, known = math.sqrt(m2 / count + EPS), math.sqrt(state["running_var"][channel] + EPS)
        r, d = sigma / known, (mean - state["running_mean"][channel]) / known
        found[channel] = min(max(r, 1 / r_max), r_max), min(max(d, -d_max), d_max)
    return found


def oracle(x, side, state, momentum, r_max=R_MAX, d_max=D_MAX):
    group = np.zeros_like(x[:, :1], dtype=int)
    statistics = loops.measure(x, group)
    found = corrections(state, statistics, r_max, d_max)

    def affine(place):
        (r, d), weight, bias = found[place[1]], state["weight"][place[1]], state["bias"][place[1]]
        return r * weight, d * weight + bias

    y = loops.standardise(x, group, loops.by_batch(statistics), affine)
    return y, loops.updated(state, statistics, momentum)


class TestBatchRenorm(LayerConformance):
    case = LayerCase(
        create=partial(BatchRenorm, r_max=R_MAX, d_max=D_MAX),
        oracle=oracle,
        trivial=partial(BatchRenorm, r_max=1.0, d_max=0.0),
    )


def prepared(**options):
    layer = BatchRenorm(3, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, values in (("running_mean", [0.0, 2.0, -9.0]), ("running_var", [1.0, 4.0, 0.01])):
            getattr(layer, name).copy_(torch.tensor(values))
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    return layer


@pytest.mark.parametrize(("r_max", "d_max"), [(1.0, 0.0), (1.5, 0.5), (3.0, 5.0), (1e6, 1e6)])
def test_bounded_and_unbounded_corrections_equal_the_loop_oracle(r_max, d_max):
    layer, x = prepared(r_max=r_max, d_max=d_max), torch.randn(6, 3, 4).double()
    state = {name: value.detach().numpy().copy() for name, value in layer.state_dict().items()}
    y, tables = oracle(x.numpy(), (), state, 0.1, r_max, d_max)
    np.testing.assert_allclose(layer(x).detach().numpy(), y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.running_var.numpy(), tables["running_var"])


def test_without_bounds_training_gives_what_evaluation_gives():
    layer, x = prepared(r_max=1e6, d_max=1e6), torch.randn(6, 3, 4).double()
    expected = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), expected)


def test_gradients_take_r_and_d_for_constants():
    layer, x = prepared(r_max=3.0, d_max=5.0), torch.randn(6, 3).double().requires_grad_()
    mean, sigma = x.detach().mean(0), (x.detach().var(0, correction=0) + EPS).sqrt()
    known = (layer.running_var + EPS).sqrt()
    r = (sigma / known).clamp(1 / 3, 3)
    d = ((mean - layer.running_mean) / known).clamp(-5, 5)
    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    y, upstream = layer(x), torch.randn(6, 3).double()

    def composite(x, weight, bias):
        deviation = (x.var(0, correction=0) + EPS).sqrt()
        return ((x - x.mean(0)) / deviation * r + d) * weight + bias

    assert gradcheck(composite, (x, weight, bias))
    expected = torch.autograd.grad(composite(x, weight, bias), (x, weight, bias), upstream)
    for differentiable in (True, False):  # the running statistics have moved on, r and d have not
        leaves = (x, layer.weight, layer.bias)
        found = torch.autograd.grad(y, leaves, upstream, retain_graph=True, create_graph=differentiable)
        torch.testing.assert_close(found, expected)


def test_bounds_may_be_raised_during_training():
    layer, x = prepared(r_max=1.0, d_max=0.0), torch.randn(6, 3).double()
    plain = layer(x)
    layer.r_max, layer.d_max = 3.0, 5.0
    assert (layer(x) - plain).abs().max() > 0.1


@pytest.mark.parametrize(
    ("bounds", "message"), [({"r_max": 0.5}, "r_max must be at least 1"), ({"d_max": -1.0}, "d_max must")]
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    with pytest.raises(ShapeError, match=message):
        BatchRenorm(3, **bounds)


def test_the_printed_form_and_no_affine():
    assert "r_max=2.0, d_max=1.0" in repr(BatchRenorm(3, r_max=2.0, d_max=1.0))
    x = torch.randn(5, 3)
    torch.testing.assert_close(BatchRenorm(3, affine=False)(x), BatchRenorm(3)(x))
