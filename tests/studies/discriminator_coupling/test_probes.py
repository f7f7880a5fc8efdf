"""What is measured of a discriminator: what is held constant, what reaches what, and how steep it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwise.layers import BatchNorm
from normwise.studies.discriminator_coupling import games, probes


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(count: int = 6):
    return torch.rand(count, games.PIXELS), torch.rand(count, games.PIXELS)


def test_reals_stay_where_fakes_do():
    real, fake, other = torch.rand(3, 6, 4)
    model = nn.Sequential(BatchNorm(4), nn.Linear(4, 1))
    assert not probes.shift(model, real, fake, fake).any()
    assert probes.shift(model, real, fake, other).abs().max() > 0.001


@pytest.mark.parametrize("kind", games.KINDS)
def test_constant_statistics_change_gradients_only_where_there_are_statistics(kind):
    model = games.discriminator(games.KINDS[kind])
    probes.hold_weights(model)
    real, fake = batch()
    before = games.judge(model, real, fake)[1]
    with probes.constant_statistics(model):
        inside = games.judge(model, real, fake)[1]
    torch.testing.assert_close(inside, before, rtol=0, atol=0)
    through = probes.through_statistics(model, real, fake, games.generator_loss)
    assert through == 0 if kind == "spectral norm" else 0.01 < through < 2


def test_the_gradient_with_statistics_held_is_that_of_the_numbers_they_have():
    norm = games.KINDS["LayerNorm"].norm(games.PIXELS)
    x = torch.rand(3, games.PIXELS, requires_grad=True)
    mean, deviation = x.mean(1, keepdim=True).detach(), x.detach().var(1, unbiased=False, keepdim=True).add(1e-5).sqrt()
    wanted = torch.autograd.grad((((x - mean) / deviation) ** 2).sum(), x)[0]
    with probes.constant_statistics(nn.Sequential(norm)):
        found = torch.autograd.grad((norm(x) ** 2).sum(), x)[0]
    torch.testing.assert_close(found, wanted)


def test_the_lipschitz_constant_of_a_linear_discriminator_is_its_weights():
    linear = nn.Linear(games.PIXELS, 1)
    assert probes.lipschitz(linear, *batch()) == pytest.approx(float(linear.weight.detach().norm()), rel=1e-5)


def test_the_lipschitz_constant_is_over_reals_and_fakes():
    class Positive(nn.Module):
        def forward(self, x):
            return x.relu().sum(1, keepdim=True)

    real, fake = batch()
    assert probes.lipschitz(Positive(), -real, fake) == pytest.approx(games.PIXELS**0.5)
    assert probes.lipschitz(Positive(), real, -fake) == pytest.approx(games.PIXELS**0.5)


def test_held_spectral_norms_neither_move_nor_exceed_one():
    model = games.discriminator(games.KINDS["spectral norm"]).double()
    probes.hold_weights(model)
    real, fake = (x.double() for x in batch())
    first, second = (torch.cat(games.judge(model, real, fake)).detach() for _ in range(2))
    assert (first == second).all()
    assert probes.lipschitz(model, real, fake) <= 1
    for linear in (layer for layer in model if isinstance(layer, nn.Linear)):
        assert float(torch.linalg.matrix_norm(linear.weight.detach(), 2)) == pytest.approx(1, abs=1e-12)
