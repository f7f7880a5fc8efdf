"""Small adversarial networks: what their norms see, and that both players learn."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.discriminator_coupling import games


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(count: int = 6):
    return torch.rand(count, games.PIXELS), torch.rand(count, games.PIXELS)


def test_separate_norms_are_two_calls():
    torch.manual_seed(1)
    separate = games.discriminator(games.KINDS["separate BN"])
    torch.manual_seed(1)
    joint = games.discriminator(games.KINDS["joint BN"])
    real, fake = batch()
    for found, alone in zip(games.judge(separate, real, fake), (real, fake), strict=True):
        torch.testing.assert_close(found, joint(alone).squeeze(1))


def test_a_game_moves_both_players_and_is_the_same_again():
    images = torch.rand(40, games.PIXELS)

    def played(steps: int):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            game = games.Game(games.KINDS["joint BN"])
            game.play(images, steps=steps, batch=8, noise=torch.Generator().manual_seed(0))
        return game

    one, again, start = played(3), played(3), played(0)
    assert len(one.losses) == 3
    assert one.losses == again.losses
    for name in ("generator", "discriminator"):
        moved = zip(getattr(one, name).parameters(), getattr(start, name).parameters(), strict=True)
        assert all((a != b).any() for a, b in list(moved)[-2:])
