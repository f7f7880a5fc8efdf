"""What a model was before, it is after, to the bit."""

import random

import numpy as np
import pytest
import torch
from tests.models.kinds import images, net, snapshot
from torch import nn

from normwise.models.preserve import preserved, preserved_random_state


class Interrupted(Exception):
    pass


@pytest.fixture
def model():
    model = net(nn.BatchNorm2d(6))
    norm = model[1]
    with torch.no_grad():
        norm.weight[:3] = torch.tensor([-0.0, float("nan"), 0.0])
    model.train()
    model[2].eval()
    model[4].weight.requires_grad_(False)
    norm.bias.grad = torch.full((6,), -0.0)
    return model


def spoil(model):
    """Change everything that can be changed."""
    model[0].weight.data.fill_(3)
    model[1].weight.data.zero_()
    model[1].running_mean = torch.ones(2)
    model[1].register_buffer("extra", torch.ones(1))
    model[1].bias.grad.add_(1)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[4].weight.requires_grad_(True)
    model[4].bias = None
    model[2].train()
    model[0].eval()
    model[0].register_forward_hook(lambda *_: None)
    model[0].register_forward_pre_hook(lambda *_: None, with_kwargs=True)
    model[0].register_full_backward_hook(lambda *_: None)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_comes_back(model, fails):
    bits, objects = snapshot(model), {key: id(t) for key, t in model.state_dict(keep_vars=True).items()}
    modes, gradient = [m.training for m in model.modules()], model[1].bias.grad
    kept = model[1].register_forward_hook(lambda *_: None)
    try:
        with preserved(model):
            spoil(model)
            kept.remove()
            if fails:
                raise Interrupted
    except Interrupted:
        assert fails
    assert snapshot(model) == bits
    assert {key: id(t) for key, t in model.state_dict(keep_vars=True).items()} == objects
    assert [m.training for m in model.modules()] == modes
    assert model[1].bias.grad is gradient
    assert torch.equal(gradient, torch.zeros(6))
    assert gradient.signbit().all()
    assert model[0].weight.grad is None
    assert [p.requires_grad for p in model[4].parameters()] == [False, True]
    assert list(model[1]._forward_hooks) == [kept.id]
    for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_pre_hooks_with_kwargs"):
        assert not getattr(model[0], table)


def test_a_changed_dtype_comes_back(model):
    bits = snapshot(model)
    with preserved(model):
        model.double()
    assert {t.dtype for t in model.parameters()} == {torch.float32}
    assert snapshot(model) == bits


def test_a_training_step_leaves_nothing(model):
    model = net(nn.BatchNorm2d(6)).train()
    bits = snapshot(model)
    with preserved(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(images()).sum().backward()
        optimizer.step()
        assert snapshot(model) != bits
    assert snapshot(model) == bits
    assert all(p.grad is None for p in model.parameters())


def test_inside_inference_and_no_grad_contexts(model):
    with torch.no_grad(), preserved(model):
        model[0].weight.zero_()
    assert model[0].weight.abs().sum() > 0
    assert model[0].weight.requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_come_back(fails):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    try:
        with preserved_random_state():
            torch.rand(3), np.random.rand(3), random.random()
            torch.manual_seed(5), np.random.seed(5), random.seed(5)
            if fails:
                raise Interrupted
    except Interrupted:
        assert fails
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_preserved_restores_random_states_too(model):
    before = torch.get_rng_state()
    with preserved(model):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)
