"""What is looked at in a game: coupling where statistics are joint, and scores at every look."""

from __future__ import annotations

import pytest
import torch

from normwise.studies import gan_looks, gans
from normwise.studies.data import digits
from normwise.studies.digit_scores import train_scores


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("kind", gans.KINDS)
def test_only_joint_statistics_couple_and_only_spectral_norms_bound(kind):
    pixels, generator = digits()[0].flatten(1), torch.Generator().manual_seed(0)
    found = gan_looks.at_start(gans.KINDS[kind], pixels, generator)
    assert (found["shift"] > 0.05) is (kind == "joint BN")
    assert (found["lipschitz"][-1] <= 1) is (kind == "spectral norm")
    assert (found["layer"] == pytest.approx(1, abs=1e-3)) is (kind == "spectral norm")


def test_a_game_is_scored_at_every_look():
    (images, labels), generator = digits(), torch.Generator().manual_seed(0)
    scores = train_scores(images, labels, epochs=1, generator=generator)
    found = gan_looks.played(gans.KINDS["joint BN"], images, scores, 10, generator)
    assert len(found["distance"]) == len(found["covered"]) == len(gan_looks.LOOKS)
    assert 0 <= found["turned"] <= 1
    assert torch.tensor(found["pictures"]).shape == (2, gan_looks.SHOWN // 2, 8, 8)
