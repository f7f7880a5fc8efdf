"""Drawn and real digits are judged alike: as many of each class as are held back."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.conditional_generation.measure import _drawn, _judged_reals
from normwise.studies.data import TRAINED, digits
from normwise.studies.digit_scores import train_scores

IMAGES, LABELS = digits()


@pytest.fixture(scope="module")
def scores():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_scores(IMAGES, LABELS, epochs=3, generator=torch.Generator().manual_seed(0))


def test_real_digits_of_the_same_classes_are_closer_than_any_as_many(scores):
    real = _judged_reals(IMAGES, LABELS, scores)
    assert 0 < real["distance"] < 0.8 * scores.distance(IMAGES[: len(scores.held)])
    right = scores.classes(scores.held) == LABELS[TRAINED:]
    assert real["accuracy"] == pytest.approx(float(right.double().mean()))


def test_a_generator_that_learns_is_judged_better_at_the_same_size(scores):
    def drawn(steps: int):
        torch.manual_seed(0)
        noise = torch.Generator().manual_seed(0)
        return _drawn("labels beside the noise", 15, IMAGES, LABELS, scores, steps, noise)

    early, late = drawn(3), drawn(40)
    assert late["accuracy"] > early["accuracy"] + 0.2
    assert late["distance"] < 0.7 * early["distance"]
    assert late["parameters"] == early["parameters"]
