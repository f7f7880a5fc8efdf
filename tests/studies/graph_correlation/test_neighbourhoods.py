"""Correlations by all pairs, and what three ways of keeping a variance make of alike neighbours."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from studies.graph_correlation.cliques import cliques

from normwise.studies.graph_correlation.neighbourhoods import NODES, averaged, learnt, variance_and_correlation
from normwise.studies.graph_correlation.networks import NODE


def test_correlation_is_that_of_all_pairs():
    values = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0)) + torch.arange(7.0)[:, None, None]
    variance, correlation = variance_and_correlation(values)
    deviations = (values - values.mean((0, 1))).double()
    products = torch.stack([deviations[:, i] * deviations[:, j] for i, j in combinations(range(5), 2)])
    assert variance == pytest.approx(float(deviations.square().mean()))
    assert correlation == pytest.approx(float(products.mean()) / variance, rel=1e-5)


def test_an_average_of_pure_neighbourhoods_keeps_nothing_and_of_mixed_ones_the_most():
    values = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(0)).expand(50, 4, 3)
    generator = torch.Generator().manual_seed(0)
    assert averaged(values, 1, 20, generator) == pytest.approx(0, abs=1e-10)
    true = float(values.var((0, 1), unbiased=False).mean())
    assert averaged(values, 8, 400, generator) == pytest.approx(true * (1 - 3 / 31), rel=0.1)


def test_one_neighbourhood_a_batch_hides_variance_that_the_others_keep():
    """Balls of 64 of the cliques' 400 nodes hold one class each."""
    with torch.random.fork_rng(devices=[]):
        found = learnt(cliques(400), 1, 60, 200, 0)
    assert found["kept"]["BatchNorm"] == pytest.approx(1 - found["correlation"], abs=0.15)
    assert found["correlation"] > 0.3
    assert found["kept"]["GraphBatchNorm"] == pytest.approx(1, abs=0.15)
    assert found["kept"]["recalibrated"] == pytest.approx(1, abs=0.15)
    assert found["accuracy"][NODE] > 0.9
    assert len(cliques(400).ball(0, NODES)) == NODES
