"""Drawn maps have the scales and the correlation asked for; ratios are those of the channels that are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwise.layers import BatchNorm
from normwise.studies.channel_axis.maps import draw, loud_and_texture, loudest_over_quietest, shared, variances


def test_maps_have_the_scales_and_the_correlation_asked_for():
    x = draw(np.array([5.0, 1.0, 0.2]), 0.6, 2000, torch.Generator().manual_seed(0))
    assert variances(x) == pytest.approx(torch.tensor([25, 1, 0.04], dtype=torch.float64), rel=0.03)
    assert shared(x) == pytest.approx(0.6, abs=0.01)


def test_the_first_channel_is_told_from_the_others():
    x = draw(np.array([5.0, 1.0, 2.0]), 0.0, 500, torch.Generator().manual_seed(0))
    loud, texture = loud_and_texture(torch.nn.Identity(), x)
    assert loud == pytest.approx(25, rel=0.05)
    assert texture == pytest.approx(2.5, rel=0.05)


def test_the_ratio_is_what_eps_leaves_of_the_quietest_channel():
    """A channel of variance v leaves with v / (v + eps): at v = eps with one half."""
    scales = np.array([1.0, 1e-5**0.5, 3.0])
    maps = draw(scales, 0.0, 3000, torch.Generator().manual_seed(0)).float()
    ratios = loudest_over_quietest(maps, 5, torch.Generator().manual_seed(0))
    assert BatchNorm(3).eps == 1e-5
    assert np.mean(ratios) == pytest.approx(2, rel=0.02)
