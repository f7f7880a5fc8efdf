"""What nets that learn mixed digits remember: the share of the mean image, weights, and running statistics."""

from __future__ import annotations

import pytest
import torch

from normwise.studies import mixup_nets
from normwise.studies.data import digits


def test_weights_are_uniform():
    weights = mixup_nets.beta(20_000, torch.Generator().manual_seed(0))
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(weights.var()) == pytest.approx(1 / 12, abs=0.003)


def test_the_share_of_the_mean_image_is_all_where_images_are_alike_and_nothing_where_they_are_flat():
    image = torch.arange(9.0).expand(5, 2, 9)
    flat = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 9)
    assert mixup_nets._share_of_mean_image(image) == pytest.approx(torch.ones(2))
    assert mixup_nets._share_of_mean_image(flat) == pytest.approx(torch.zeros(2))


def test_mixing_shrinks_what_is_remembered_and_recalibration_restores_the_output():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = mixup_nets.trained(*digits(), "tiny", generator)
    assert found["running, dense"] == pytest.approx(2 / 3, abs=0.03)
    assert found["variance"][0] == pytest.approx(1.5, abs=0.07)
    assert 0.5 < found["accuracy"] <= 1
    assert 0 < found["loss"] != found["loss, recalibrated"] > 0
    assert found["variance, recalibrated"] == pytest.approx([1.0] * 3, abs=0.01)
