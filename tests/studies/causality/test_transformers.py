"""Transformers whose attention is causal: the norm alone decides whether the future reaches back."""

from __future__ import annotations

import pytest
import torch

from normwise.layers import AcrossChannelNorm, BatchNorm, TimewiseBatchNorm
from normwise.studies.causality.transformers import SYMBOLS, VisionTransformer, language_model

_LENGTH, _WIDTH = 8, 16


@pytest.mark.parametrize(
    ("norm", "training", "leaks"),
    [
        (AcrossChannelNorm, True, False),
        (BatchNorm, True, True),
        (BatchNorm, False, False),
        (lambda width: TimewiseBatchNorm(width, _LENGTH), True, False),
    ],
    ids=["layer norm", "pooled", "pooled in evaluation", "time-wise"],
)
def test_the_last_symbol_reaches_earlier_logits_through_pooled_statistics_only(norm, training, leaks):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = language_model(_WIDTH, _LENGTH, norm).train(training)
    tokens = torch.arange(2 * _LENGTH).view(2, -1) % SYMBOLS
    other = tokens.clone()
    other[0, -1] = SYMBOLS - 1
    change = (model(tokens) - model(other)).abs().amax((0, 2))
    assert change[-1] > 1e-3
    assert (change[:-1].max() > 1e-4) == leaks


def test_patches_of_an_image_see_each_other():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(_WIDTH, AcrossChannelNorm)
    images = torch.zeros(2, 1, 8, 8, requires_grad=True)
    states = model.body(model.cut(images).flatten(2).transpose(1, 2))
    (gradient,) = torch.autograd.grad(states[0, 0, 0], images)  # of the first patch, by the pixels of the last
    assert gradient[0, :, -2:, -2:].abs().max() > 0
    assert not gradient[1].any()
