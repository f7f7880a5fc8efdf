"""Scores of drawn digits, against closed forms and against pictures that are bad in a known way."""

from __future__ import annotations

import pytest
import torch

from normwise.errors import NormwiseError
from normwise.studies.data import TRAINED, digits
from normwise.studies.digit_scores import covered, diversity, frechet, train_scores

IMAGES, LABELS = digits()


@pytest.fixture(scope="module")
def scores():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_scores(IMAGES, LABELS, epochs=6, generator=torch.Generator().manual_seed(0))


def test_the_classifier_knows_digits_it_has_not_seen(scores):
    right = (scores.classes(IMAGES[TRAINED:]) == LABELS[TRAINED:]).double().mean()
    assert 0.9 < right <= 1
    assert scores.shares(IMAGES).sum() == pytest.approx(1)
    assert scores.shares(IMAGES).tolist() == pytest.approx([0.1] * 10, abs=0.02)


def test_the_distance_of_gaussians_is_the_closed_form():
    noise = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(noise.T))).T
    scales, shift = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0, -2.0])
    assert frechet(noise, noise) == pytest.approx(0, abs=1e-9)
    assert frechet(noise, noise * scales + shift) == pytest.approx(5 + 0 + 1 + 0.25)


def test_the_distance_is_to_the_digits_held_back_and_sees_noise_and_a_missing_class(scores):
    count = len(IMAGES) - TRAINED
    real, lacking = scores.distance(IMAGES[:count]), scores.distance(IMAGES[:TRAINED][LABELS[:TRAINED] != 0][:count])
    noise = scores.distance(torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert scores.distance(IMAGES[TRAINED:]) == pytest.approx(0, abs=1e-6)
    assert 0.1 < real < 0.5 * lacking < 0.05 * noise


def test_a_distance_depends_on_the_number_so_that_other_numbers_are_refused(scores):
    features = scores.features(IMAGES[:TRAINED])
    few, many = (frechet(features[:count], features[-count:]) for count in (100, TRAINED // 2))
    assert few > 2 * many > 0
    with pytest.raises(NormwiseError, match="as many as the 497 held back, got 500"):
        scores.distance(IMAGES[:500])


def test_a_fifth_of_its_share_covers_a_class():
    assert covered(torch.tensor([0.5, 0.02, 0.019, 0.461, 0, 0, 0, 0, 0, 0])) == 3


def test_diversity_is_within_classes():
    images = torch.zeros(4, 1, 8, 8)
    images[2:] = 1
    images[1, 0, 0, 0] = 1
    assert diversity(images, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    assert diversity(images, torch.tensor([0, 1, 0, 1])) > 7
