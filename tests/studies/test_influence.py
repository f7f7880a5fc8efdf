"""How far an input reaches: which outputs each norm ties together, and by how much."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.influence import GROUPS, STEPS, norm_of, squared_influence

_COUNT = 3


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", GROUPS)
def test_only_what_shares_statistics_is_reached(name):
    squares = squared_influence(name, norm_of(name), _COUNT)
    t, n, s = torch.meshgrid(torch.arange(STEPS), torch.arange(_COUNT), torch.arange(STEPS), indexing="ij")
    own = (n == 0) & (t == s)
    together = {"pooled": torch.ones_like(own), "time-wise": t == s, "layer norm": own}[name]
    assert squares[together].min() > 0
    assert squares[~together].abs().sum() == 0


def test_evaluation_ties_nothing():
    squares = squared_influence("pooled", norm_of("pooled").eval(), _COUNT)
    assert squares.sum() == pytest.approx(float(squares[:, 0].diagonal().sum()))


def test_a_pooled_output_moves_with_others_by_the_root_of_two_over_their_number():
    squares = torch.stack([squared_influence("pooled", norm_of("pooled"), 8)[:, 1:] for _ in range(4)])
    assert float(squares.mean().sqrt()) * 8 * STEPS == pytest.approx(2**0.5, rel=0.02)
