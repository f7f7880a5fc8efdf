"""Where the values come from, and their moments: exact cases."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.small_batch import populations


def test_patches_tile_the_photographs():
    photographs = pytest.importorskip("sklearn.datasets").load_sample_images().images
    found = populations.patches()
    assert len(found) == sum((len(one) // 8) * (one.shape[1] // 8) for one in photographs)
    for patch, (row, column), photograph in ((0, (0, 0), 0), (81, (8, 8), 0), (len(found) // 2, (0, 0), 1)):
        block = torch.as_tensor(photographs[photograph][row : row + 8, column : column + 8].copy()) / 255
        assert torch.equal(found[patch], block.permute(2, 0, 1).flatten(1))


def test_standardised_values_have_mean_0_and_variance_1_by_channel():
    values = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[5.0, 7.0], [0.0, 4.0]]])
    found = populations.standardised(values)
    assert found.mean((0, 2)) == pytest.approx(torch.zeros(2), abs=1e-12)
    assert found.var((0, 2), unbiased=False) == pytest.approx(torch.ones(2))


def test_moments_of_images_whose_positions_agree_or_cancel():
    alike = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64).view(4, 1, 1).expand(4, 1, 6)
    cancelling = torch.tensor([-1.0, 1.0] * 3, dtype=torch.float64).expand(4, 1, 6)
    assert populations.moments(alike) == {"means": [1], "squares": [0], "shared": [0], "fourth": [1]}
    assert populations.moments(cancelling) == {"means": [0], "squares": [0], "shared": [0], "fourth": [0]}
    assert populations.correlation(alike) == pytest.approx(1)
    assert populations.correlation(cancelling) == pytest.approx(-1 / 5)  # the least that six positions can have


def test_moments_of_two_unequal_images_by_hand():
    values = torch.tensor([[[2.0, 0.0]], [[-1.0, -1.0]]], dtype=torch.float64)  # means 1, -1 and mean squares 2, 1
    found = populations.moments(values)
    assert found == {
        "means": [1],
        "squares": [0.25],
        "shared": [0.5],
        "fourth": [1],
    }  # of variance 1 about mean square 1


def test_kurtosis_of_a_coin_is_the_least_there_is():
    assert populations.excess_kurtosis(torch.tensor([[0.0], [1.0]])) == pytest.approx(torch.tensor([-2.0]))
