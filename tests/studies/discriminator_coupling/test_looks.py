"""What is looked at in a game: coupling where statistics are joint, and scores at every look."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.data import TRAINED, digits
from normwise.studies.digit_scores import train_scores
from normwise.studies.discriminator_coupling import games, looks


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("kind", games.KINDS)
def test_only_joint_statistics_couple_and_only_spectral_norms_bound(kind):
    pixels, generator = digits()[0].flatten(1), torch.Generator().manual_seed(0)
    found = looks.at_start(games.KINDS[kind], pixels, generator)
    assert (found["shift"] > 0.05) is (kind == "joint BN")
    assert found["shift"] == 0 or kind == "joint BN"
    assert (found["layer"] == pytest.approx(1, abs=1e-9)) is (kind == "spectral norm")
    assert (found["lipschitz"] * found["steepening"][-1] <= 1) is (kind == "spectral norm")
    assert (found["steepening"][-1] > 7.5) is kind.endswith("BN")


def test_a_game_is_scored_at_every_look():
    (images, labels), generator = digits(), torch.Generator().manual_seed(0)
    scores = train_scores(images, labels, epochs=1, generator=generator)
    found = looks.played(games.KINDS["joint BN"], images[:TRAINED].flatten(1), scores, 10, generator)
    assert len(found["distance"]) == len(found["covered"]) == len(looks.LOOKS)
    assert 0 <= found["back"] <= found["turned"] <= 1
    assert len(set(found["distance"])) == len(looks.LOOKS), "the generator stood still"


def test_turning_is_told_from_turning_back():
    there_and_back, onward = [0, 1, 0, 1, 0], [0, 1, 2, 2, 2]
    turned, back = looks.turns(torch.tensor([there_and_back, onward, [4] * 5, [4] * 5]).T)
    assert turned == pytest.approx((4 + 2) / 16)
    assert back == pytest.approx(3 / 12)
