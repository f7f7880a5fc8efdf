"""Drawn batches have the correlation that is asked for, down to the smallest there is."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.graph_correlation.correlated import draw


@pytest.mark.parametrize("rho", [-0.2, -0.1, 0.0, 0.7])
def test_values_have_variance_one_and_the_correlation_asked_for(rho):
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([draw(rho, generator, count=6) for _ in range(1500)]).double()
    rows = batches.transpose(0, 1).flatten(1)  # six values, many draws
    covariance = rows @ rows.t() / rows.shape[1]
    expected = torch.full((6, 6), rho, dtype=torch.float64).fill_diagonal_(1)
    assert float((covariance - expected).abs().max()) < 5 * (2 / rows.shape[1]) ** 0.5


def test_at_their_smallest_correlation_values_sum_to_nothing():
    values = draw(-1 / 5, torch.Generator().manual_seed(0), count=6)
    assert float(values.mean(0).abs().max()) < 1e-6
