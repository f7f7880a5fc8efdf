"""Small adversarial networks: what is held constant, what reaches what, and how steep a discriminator is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwise.studies import gans


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(count: int = 6):
    return torch.rand(count, gans.PIXELS), torch.rand(count, gans.PIXELS)


def test_separate_norms_are_two_calls():
    torch.manual_seed(1)
    separate = gans.discriminator(gans.KINDS["separate BN"])
    torch.manual_seed(1)
    joint = gans.discriminator(gans.KINDS["joint BN"])
    real, fake = batch()
    for found, alone in zip(gans.judge(separate, real, fake), (real, fake), strict=True):
        torch.testing.assert_close(found, joint(alone).squeeze(1))


@pytest.mark.parametrize("kind", gans.KINDS)
def test_constant_statistics_change_gradients_only_where_there_are_statistics(kind):
    model = gans.discriminator(gans.KINDS[kind])
    gans.hold_weights(model)
    real, fake = batch()
    before = gans.judge(model, real, fake)[1]
    with gans.constant_statistics(model):
        inside = gans.judge(model, real, fake)[1]
    torch.testing.assert_close(inside, before, rtol=0, atol=0)
    through = gans.through_statistics(model, real, fake, gans.generator_loss)
    assert through == 0 if kind == "spectral norm" else 0.01 < through < 2


def test_the_gradient_with_statistics_held_is_that_of_the_numbers_they_have():
    norm = gans.KINDS["LayerNorm"].norm(gans.PIXELS)
    x = torch.rand(3, gans.PIXELS, requires_grad=True)
    mean, deviation = x.mean(1, keepdim=True).detach(), x.detach().var(1, unbiased=False, keepdim=True).add(1e-5).sqrt()
    wanted = torch.autograd.grad((((x - mean) / deviation) ** 2).sum(), x)[0]
    with gans.constant_statistics(nn.Sequential(norm)):
        found = torch.autograd.grad((norm(x) ** 2).sum(), x)[0]
    torch.testing.assert_close(found, wanted)


def test_the_lipschitz_constant_of_a_linear_discriminator_is_its_weights():
    linear = nn.Linear(gans.PIXELS, 1)
    assert gans.lipschitz(linear, *batch()) == pytest.approx(float(linear.weight.detach().norm()), rel=1e-5)


def test_the_lipschitz_constant_is_over_reals_and_fakes():
    class Positive(nn.Module):
        def forward(self, x):
            return x.relu().sum(1, keepdim=True)

    real, fake = batch()
    assert gans.lipschitz(Positive(), -real, fake) == pytest.approx(gans.PIXELS**0.5)
    assert gans.lipschitz(Positive(), real, -fake) == pytest.approx(gans.PIXELS**0.5)


def test_held_spectral_norms_neither_move_nor_exceed_one():
    model = gans.discriminator(gans.KINDS["spectral norm"])
    gans.hold_weights(model)
    real, fake = batch()
    first, second = (torch.cat(gans.judge(model, real, fake)).detach() for _ in range(2))
    assert (first == second).all()
    assert gans.lipschitz(model, real, fake) <= 1


def test_a_game_moves_both_players_and_is_the_same_again():
    images = torch.rand(40, gans.PIXELS)

    def played(steps: int):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            game = gans.Game(gans.KINDS["joint BN"])
            game.play(images, steps=steps, batch=8, noise=torch.Generator().manual_seed(0))
        return game

    one, again, start = played(3), played(3), played(0)
    assert len(one.losses) == 3
    assert one.losses == again.losses
    for name in ("generator", "discriminator"):
        moved = zip(getattr(one, name).parameters(), getattr(start, name).parameters(), strict=True)
        assert all((a != b).any() for a, b in list(moved)[-2:])
