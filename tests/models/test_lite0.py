"""EfficientNet-Lite0 with its ImageNet weights: 49 norms that nobody here wrote."""

import copy

import pytest
import torch
from real import zoo

from normwise.models.convert import convert
from normwise.models.fold import fold, fold_plan
from normwise.models.walk import norm_layers
from normwise.models.wiring import wiring_from_graph, wiring_from_run

NORMS = 49


@pytest.fixture(scope="module")
def lite0(data_packages):
    return zoo.lite0(data_packages)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_both_ways_read_the_same_wiring(lite0, image):
    graph, run = wiring_from_graph(lite0), wiring_from_run(lite0, lambda: lite0(image))
    assert graph == run
    assert len(graph.feeds) == NORMS
    assert all(feed.producer is not None and feed.sole for feed in graph.feeds.values())


@torch.no_grad()
def test_folding_all_norms_agrees_to_rounding(lite0, image):
    assert [pair.refusal for pair in fold_plan(lite0)] == [None] * NORMS
    folded = fold(lite0, example=image)
    assert norm_layers(folded) == []
    expected = copy.deepcopy(lite0).double()(image.double())
    own = (lite0(image) - expected).abs().max()
    assert (folded(image) - expected).abs().max() < 10 * own  # of the order of the model's own rounding
    assert len(norm_layers(lite0)) == NORMS


@torch.no_grad()
def test_there_and_back_is_bit_equal(lite0, image):
    model = copy.deepcopy(lite0)
    expected, classes = model(image), [type(layer.module) for layer in norm_layers(model)]
    convert(model, "normwise")
    assert not {type(layer.module) for layer in norm_layers(model)} & set(classes)
    assert torch.equal(model(image), expected)
    convert(model, "torch")
    assert [type(layer.module) for layer in norm_layers(model)] == classes
    assert torch.equal(model(image), expected)
