"""Generators by class: each kind draws every class, keeps to its parameters, and learns."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from normwise.studies.conditional_generation import generators as nets
from normwise.studies.data import digits

CONDITIONAL = nets.KINDS["conditional BN"]


@pytest.fixture(params=nets.KINDS)
def kind(request) -> nets.Kind:
    return nets.KINDS[request.param]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_a_generator_is_told_its_class_where_its_kind_says(kind):
    model, noise = nets.ConditionalGenerator(kind, 4), torch.randn(3, 1, nets.LATENT).expand(-1, nets.CLASSES, -1)
    norms = [module for module in model.modules() if isinstance(module, nets.ConditionalBatchNorm)]
    same = model(noise)
    assert same.shape == (3, 10, 8, 8)
    differ = not torch.allclose(same[:, 0], same[:, 1])
    assert differ != bool(norms), "conditional norms start alike for all classes"
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    assert not torch.allclose(model(noise)[:, 0], model(noise)[:, 1])


def test_networks_of_their_own_share_nothing():
    model = nets.ConditionalGenerator(nets.KINDS["a network a class"], 2)
    noise = torch.randn(4, nets.CLASSES, nets.LATENT, requires_grad=True)
    model(noise)[:, 3].sum().backward()
    assert noise.grad is not None
    reached = noise.grad.abs().sum((0, 2)) > 0
    assert reached.tolist() == [label == 3 for label in range(nets.CLASSES)]


def test_the_widest_is_the_last_within_the_budget(kind):
    make = partial(nets.ConditionalGenerator, kind)
    budget = nets.parameters(nets.ConditionalGenerator(CONDITIONAL, 15))
    width = nets.widest(make, budget)
    assert nets.parameters(make(width)) <= budget < nets.parameters(make(width + 1))
    assert nets.parameters(make(width)) > 0.9 * budget


def test_training_brings_pictures_closer_class_by_class(kind):
    images, labels = digits()
    means = torch.stack([images[labels == label].mean(0)[0] for label in range(nets.CLASSES)])
    model, noise = nets.ConditionalGenerator(kind, 4), torch.Generator().manual_seed(0)

    def off() -> float:
        with torch.no_grad():
            return float((model(torch.randn(64, nets.CLASSES, nets.LATENT, generator=noise)).mean(0) - means).norm())

    before = off()
    assert not nets.train(model, images, labels, steps=40, noise=noise).training
    assert off() < 0.6 * before
