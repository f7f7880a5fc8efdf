"""Batches as they are drawn: correlation inside a cluster, and variances from parts of images."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.small_batch.measure import _about, _clusters, _variance


def test_variance_from_parts_is_the_variance_of_the_values():
    values = torch.randn(5, 3, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # draws, m, c, l
    parts = torch.stack([values.mean(3), values.square().mean(3)], -1)
    assert torch.allclose(_variance(parts), values.transpose(1, 2).flatten(2).var(2, unbiased=False))


@pytest.mark.parametrize("correlation", [0.0, 0.4, 1.0])
def test_clusters_are_correlated_as_asked(correlation):
    drawn = _clusters(2, 3, correlation, 40_000, torch.Generator().manual_seed(1))
    expected = torch.block_diag(*[torch.full((3, 3), correlation) + (1 - correlation) * torch.eye(3)] * 2)
    assert torch.cov(drawn.T) == pytest.approx(expected, abs=0.03)


def test_deviations_are_relative_to_each_channel_s_own_mean():
    assert _about(torch.tensor([[1.0, 20.0], [3.0, 20.0]])).tolist() == [[-0.5, 0.0], [0.5, 0.0]]
