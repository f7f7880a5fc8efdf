"""Scores of drawn digits, against closed forms and against pictures that are bad in a known way."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.data import digits
from normwise.studies.digit_scores import TRAINED, covered, diversity, frechet, train_scores

IMAGES, LABELS = digits()


@pytest.fixture(scope="module")
def scores():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_scores(IMAGES, LABELS, epochs=6, generator=torch.Generator().manual_seed(0))


def test_the_classifier_knows_digits_it_has_not_seen(scores):
    assert 0.9 < scores.accuracy <= 1
    assert scores.shares(IMAGES).sum() == pytest.approx(1)
    assert scores.shares(IMAGES).tolist() == pytest.approx([0.1] * 10, abs=0.02)


def test_the_distance_of_gaussians_is_the_closed_form():
    noise = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(noise.T))).T
    scales, shift = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0, -2.0])
    assert frechet(noise, noise) == pytest.approx(0, abs=1e-9)
    assert frechet(noise, noise * scales + shift) == pytest.approx(5 + 0 + 1 + 0.25)


def test_the_distance_sees_noise_and_a_missing_class(scores):
    reals, held = scores.features(IMAGES[:TRAINED]), slice(TRAINED, None)
    real = frechet(scores.features(IMAGES[held]), reals)
    lacking = frechet(scores.features(IMAGES[held][LABELS[held] != 0]), reals)
    noise = frechet(scores.features(torch.rand(497, 1, 8, 8, generator=torch.Generator().manual_seed(0))), reals)
    assert real < 0.5 * lacking < 0.05 * noise


def test_a_fifth_of_its_share_covers_a_class():
    assert covered(torch.tensor([0.5, 0.02, 0.019, 0.461, 0, 0, 0, 0, 0, 0])) == 3


def test_diversity_is_within_classes():
    images = torch.zeros(4, 1, 8, 8)
    images[2:] = 1
    images[1, 0, 0, 0] = 1
    assert diversity(images, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    assert diversity(images, torch.tensor([0, 1, 0, 1])) > 7
