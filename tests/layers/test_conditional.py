"""`ConditionalBatchNorm`: the conformance suite for ids and embeddings, and equality with modulated activations."""

from __future__ import annotations

from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, TOO_FEW_VALUES, LayerCase, LayerConformance, Refusal
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from normwise.errors import DataError, ShapeError
from normwise.layers import BatchInfo, ConditionalBatchNorm

FEATURES = 5


def ids(x):
    return (torch.tensor([2, 0, 2, 1])[torch.arange(len(x)) % 4],)


def embeddings(x):
    return (torch.sin(torch.arange(len(x) * FEATURES, dtype=torch.float64) ** 2).view(len(x), FEATURES).to(x.dtype),)


def by_id(state, condition):
    return lambda place: (state["weight"][condition[place[0]], place[1]], state["bias"][condition[place[0]], place[1]])


def by_embedding(state, condition):
    """Weight and bias of a place from the linear map, term by term."""
    channels = len(state["modulation.bias"]) // 2

    def linear(sample, row):
        terms = [float(condition[sample, k]) * state["modulation.weight"][row, k] for k in range(FEATURES)]
        return sum(terms) + state["modulation.bias"][row]

    return lambda place: (linear(place[0], place[1]), linear(place[0], channels + place[1]))


def oracle(x, side, state, momentum, affine=by_id):
    group = np.zeros_like(x[:, :1], dtype=int)
    statistics = loops.measure(x, group)
    y = loops.standardise(x, group, loops.by_batch(statistics), affine(state, side[0]))
    return y, loops.updated(state, statistics, momentum)


def evaluate(x, side, state, affine=by_id):
    def running(_, channel):
        return state["running_mean"][channel], state["running_var"][channel]

    return loops.standardise(x, np.zeros_like(x[:, :1], dtype=int), running, affine(state, side[0]))


CASE = LayerCase(
    create=partial(ConditionalBatchNorm, num_classes=3),  # as many as samples, or fewer
    oracle=oracle,
    evaluate=evaluate,
    shapes=((7, 3), (4, 3, 5), (3, 2, 3, 4), (4, 2, 2, 3, 2)),
    side=ids,
    groups_are_centred=False,  # a statistic is shared by groups of different weights
    trivial=partial(ConditionalBatchNorm, num_classes=1),
    trivial_side=lambda x: (torch.zeros(len(x), dtype=torch.uint8),),
    refusals=(
        *BAD_INPUT,
        *TOO_FEW_VALUES,
        Refusal(
            r"condition must lie in \[0, 2\], got values from 0 to 3", side=lambda x: (torch.tensor([0, 3, 1, 1]),)
        ),
        Refusal(r"condition must lie in \[0, 2\], got values from -1", side=lambda x: (torch.tensor([0, -1, 1, 1]),)),
        Refusal(r"condition must have one entry a sample, \(4,\)", side=lambda x: (torch.tensor([0, 1, 1]),)),
        Refusal("condition must be of an integer dtype", side=lambda x: (torch.zeros(4),)),
    ),
    twin=False,
)


class TestConditionalBatchNorm(LayerConformance):
    case = CASE


class TestConditionalBatchNormOfMoreClassesThanSamples(LayerConformance):
    case = CASE.variant(
        create=partial(ConditionalBatchNorm, num_classes=50),
        refusals=(
            Refusal(r"condition must lie in \[0, 49\]", side=lambda x: (torch.tensor([0, 50, 1, 1]),)),
            Refusal("condition must have one entry a sample", side=lambda x: (torch.zeros(4, 1).long(),)),
        ),
    )


class TestConditionalBatchNormOfEmbeddings(LayerConformance):
    case = CASE.variant(
        create=partial(ConditionalBatchNorm, embedding_features=FEATURES),
        oracle=partial(oracle, affine=by_embedding),
        evaluate=partial(evaluate, affine=by_embedding),
        side=embeddings,
        trivial=partial(ConditionalBatchNorm, num_classes=1),
        refusals=(
            *BAD_INPUT,
            *TOO_FEW_VALUES,
            Refusal(r"condition must be embeddings \(4, 5\)", side=lambda x: (torch.zeros(4, 6),)),
            Refusal(r"condition must be embeddings \(4, 5\)", side=lambda x: (torch.zeros(3, 5),)),
            Refusal("of a floating dtype, got torch.int64", side=lambda x: (torch.zeros(4, 5).long(),)),
        ),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (6, 3, 2, 2)])
@pytest.mark.parametrize("classes", [4, 60])
def test_it_is_feature_wise_modulation_of_normalised_activations(training, shape, classes):
    ours, plain = (
        ConditionalBatchNorm(3, classes, dtype=torch.float64),
        nn.BatchNorm2d(3, affine=False, dtype=torch.float64),
    )
    plain._check_input_dim = lambda x: None
    nn.init.normal_(ours.weight), nn.init.normal_(ours.bias)
    ours.train(training), plain.train(training)
    x, condition = torch.randn(shape).double().requires_grad_(), torch.randint(0, classes, (6,))
    scale, shift = (table[condition].view(6, 3, *[1] * (len(shape) - 2)) for table in (ours.weight, ours.bias))
    y, expected, upstream = ours(x, condition), plain(x) * scale + shift, torch.randn(shape).double()
    torch.testing.assert_close(y, expected)
    leaves = (x, ours.weight, ours.bias)
    torch.testing.assert_close(
        torch.autograd.grad(y, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    )


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 3)])
def test_gradients_reach_the_embeddings(shape):
    layer, x = ConditionalBatchNorm(2, embedding_features=3, dtype=torch.float64), torch.randn(shape).double()
    nn.init.normal_(layer.modulation.weight)
    condition = torch.randn(4, 3).double().requires_grad_()
    assert gradcheck(lambda e: layer(x, e), condition)
    assert gradgradcheck(lambda e: layer(x, e), condition)


@pytest.mark.parametrize("options", [{"num_classes": 9}, {"embedding_features": FEATURES}])
def test_a_fresh_layer_is_plain_batch_normalization(options):
    layer, x = ConditionalBatchNorm(3, **options), torch.randn(6, 3, 4)
    condition = torch.arange(6) if "num_classes" in options else torch.randn(6, FEATURES)
    torch.testing.assert_close(layer(x, condition), nn.BatchNorm1d(3)(x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7)
    layer.reset_parameters()
    torch.testing.assert_close(layer(x, condition), nn.BatchNorm1d(3)(x), rtol=1e-5, atol=1e-5)
    assert int(layer.num_batches_tracked) == 1


def test_the_condition_is_required_and_may_come_from_batch_info():
    layer, x, condition = ConditionalBatchNorm(2, 3), torch.randn(6, 2), torch.arange(6) % 3
    nn.init.normal_(layer.bias)
    with pytest.raises(DataError, match=r"condition must be given.*BatchInfo"):
        layer(x)
    expected = layer(x, condition)
    with BatchInfo(condition=condition):
        assert torch.equal(nn.Sequential(layer)(x), expected)


def test_it_trains_under_autocast():
    layer, embedding = ConditionalBatchNorm(2, embedding_features=3), torch.randn(4, 3, requires_grad=True)
    nn.init.normal_(layer.modulation.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(4, 2, 5).bfloat16(), embedding)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert embedding.grad.isfinite().all()
    assert layer.modulation.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of num_classes and embedding_features"),
        ({"num_classes": 2, "embedding_features": 3}, "exactly one"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"embedding_features": 0}, "embedding_features must be at least 1"),
    ],
)
def test_construction_refuses(options, message):
    with pytest.raises(ShapeError, match=message):
        ConditionalBatchNorm(2, **options)


def test_the_printed_form_and_no_running_statistics():
    assert "num_classes=4" in repr(ConditionalBatchNorm(2, 4))
    assert "embedding_features=4" in repr(ConditionalBatchNorm(2, embedding_features=4))
    layer, x = ConditionalBatchNorm(2, 4, track_running_stats=False), torch.randn(6, 2, 3)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(layer.train()(x, torch.arange(6) % 4), layer.eval()(x, torch.arange(6) % 4))
