"""A freeze that survives everything but unfreeze."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import normwise
from normwise.layers import (
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), BatchNorm(4), nn.SyncBatchNorm(4))


def moved(model: nn.Module) -> list[bool]:
    before = [b.clone() for b in model.buffers()]
    model[:4](torch.randn(8, 3, 5, 5))
    return [not torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)]


@pytest.mark.parametrize("through", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_train_does_not_thaw(through):
    model = through(normwise.freeze(net()))
    model.train()
    assert not any(moved(model))
    assert model.training
    assert any(moved(normwise.unfreeze(model)))


def test_a_saved_model_stays_frozen():
    file = io.BytesIO()
    torch.save(normwise.freeze(net()), file)
    file.seek(0)
    assert not any(moved(torch.load(file, weights_only=False).train()))


def test_state_dict_is_the_same():
    model = net()
    keys = list(model.state_dict())
    assert list(normwise.freeze(model).state_dict()) == keys


def test_affine_and_statistics_are_apart():
    model = normwise.freeze(net(), statistics=False, affine=True)
    assert not any(p.requires_grad for p in model[1].parameters())
    assert any(moved(model.train()))


def test_unfreeze_undoes_what_freeze_did_and_no_more():
    model = net()
    model[1].bias.requires_grad_(False)
    normwise.freeze(normwise.freeze(model, affine=True))
    normwise.unfreeze(model)
    assert model[1].weight.requires_grad
    assert not model[1].bias.requires_grad
    assert model.train()[1].training
    assert "train" not in vars(model[1])


GROUPED = {
    "domain": (lambda: DomainBatchNorm(3, 2), (torch.arange(6) % 2,)),
    "time-wise": (lambda: TimewiseBatchNorm(3, 4), (torch.tensor([4, 1, 2, 4, 3, 4]),)),
    "conditional": (lambda: ConditionalBatchNorm(3, 2), (torch.arange(6) % 2,)),
    "of embeddings": (lambda: ConditionalBatchNorm(3, embedding_features=5), (torch.ones(6, 5),)),
    "masked": (lambda: MaskedBatchNorm(3), (torch.tensor([4, 1, 2, 4, 3, 4]),)),
    "ghost": (lambda: GhostBatchNorm(3, 2), ()),
    "renorm": (lambda: BatchRenorm(3), ()),
}


@pytest.mark.parametrize("name", GROUPED)
def test_every_layer_of_ours_is_frozen_whatever_its_tables(name):
    create, side = GROUPED[name]
    layer, x = create(), torch.randn(6, 3, 4)
    model = nn.Sequential(layer)
    normwise.freeze(model, affine=True).train()
    before = copy.deepcopy(model.state_dict())
    expected = copy.deepcopy(layer).eval()(x, *side)
    assert torch.equal(layer(x, *side), expected)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    normwise.unfreeze(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    layer(x, *side)
    assert not torch.equal(before["0.running_mean"], layer.running_mean)
