"""What nets that learn mixed digits remember: the share of the mean image, weights, and running statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwise.studies.data import digits
from normwise.studies.mixup_covariance import nets


def test_weights_are_uniform():
    weights = nets.beta(20_000, torch.Generator().manual_seed(0))
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(weights.var()) == pytest.approx(1 / 12, abs=0.003)


def test_the_share_of_the_mean_image_is_all_where_images_are_alike_and_nothing_where_they_are_flat():
    image = torch.arange(9.0).expand(5, 2, 9)
    flat = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 9)
    assert nets._share_of_mean_image(image) == pytest.approx(torch.ones(2))
    assert nets._share_of_mean_image(flat) == pytest.approx(torch.zeros(2))


def test_mixing_shrinks_what_is_remembered_and_recalibration_restores_the_output():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = nets.trained(*digits(), "tiny", generator)
    assert found["running, dense"] == pytest.approx(2 / 3, abs=0.03)
    assert found["variance, as trained"][0] == pytest.approx(1.5, abs=0.07)
    assert 0.5 < found["accuracy, as trained"] <= 1
    assert 0 < found["loss, as trained"] != found["loss, recalibrated"] > 0
    assert found["confidence, recalibrated"] < found["confidence, as trained"] < found["accuracy, as trained"]
    assert found["variance, recalibrated"] == pytest.approx([1.0] * 3, abs=0.01)


def test_the_best_temperature_undoes_a_scale_of_the_logits():
    """Labels drawn from the logits' own probabilities: the best temperature is the scale they were multiplied by."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 10, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    honest = nets._scores(nn.Identity(), logits, labels)
    weak = nets._scores(nn.Identity(), logits / 2, labels)
    assert honest["temperature"] == pytest.approx(1, rel=0.08)
    assert weak["temperature"] == pytest.approx(honest["temperature"] / 2, rel=0.04)
    assert weak["best loss"] == pytest.approx(honest["best loss"], rel=1e-3)
    assert weak["confidence"] < honest["confidence"] == pytest.approx(honest["accuracy"], abs=0.03)
    assert weak["accuracy"] == honest["accuracy"]
    assert weak["loss"] > honest["loss"] == pytest.approx(honest["best loss"], rel=1e-3)
