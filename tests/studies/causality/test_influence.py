"""How far an input reaches: which outputs each norm ties together, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwise.studies.causality.influence import (
    GROUPS,
    SEQUENCES,
    STEPS,
    norm_of,
    one_batch,
    squared_influence,
    squared_shift,
)
from normwise.theory import causality as theory

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


@pytest.mark.parametrize("count", [1, 3, 64])
def test_layer_norm_gives_the_same_in_every_batch_and_mode(count):
    assert squared_shift("layer norm", count) == 0
    assert squared_shift("pooled", count) > 0


def test_a_pooled_output_moves_less_in_a_large_batch():
    small, large = (np.mean([squared_shift("pooled", count) for _ in range(8)]) for count in (1, 64))
    assert small / large == pytest.approx(64, rel=0.2)


def test_the_pooled_norms_derivatives_are_the_closed_form():
    """Every derivative of every sequence's first output, to double precision."""
    batch = one_batch()
    x = np.array(batch["x"])
    rows = theory.jacobian(x.ravel(), np.zeros(x.size), batch["eps"]).reshape(2 * x.shape)[:, 0]
    np.testing.assert_allclose(batch["rows"], rows, atol=1e-14)
    assert x.shape == (SEQUENCES, STEPS)
