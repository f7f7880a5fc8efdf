"""A freeze that survives everything but unfreeze."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import normwise
from normwise.layers import BatchNorm


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
