"""A linear discriminator: reals move with the fakes of a joint batch only, and a norm is as steep as its slope."""

from __future__ import annotations

import pytest
import torch

from normwise.layers import BatchNorm
from normwise.studies.data import digits
from normwise.studies.discriminator_coupling import linear
from normwise.studies.discriminator_coupling.predict import SHIFT, SHIFT_APART, THROUGH_APART


def test_a_norm_is_as_steep_as_its_least_deviation():
    batch = torch.randn(12, 3, dtype=torch.float64) * torch.tensor([1.0, 0.1, 3.0])
    norm = BatchNorm(3, dtype=torch.float64)
    slope = (batch.var(0, unbiased=False) + norm.eps).rsqrt().max()
    assert linear._steepest(norm, batch) == pytest.approx(float(slope))


def test_all_that_is_measured_apart_is_nothing_or_all():
    pixels, generator = digits()[0].flatten(1), torch.Generator().manual_seed(0)
    estimates, given, shown = linear.look_at_linear(pixels, draws=3, replicates=3, generator=generator)
    assert estimates[SHIFT_APART].value == 0 < estimates[SHIFT].value
    assert estimates[THROUGH_APART].value == pytest.approx(1, rel=0.01)
    assert len(given["weight"]) == len(given["real"][0])
    assert shown["joint"]["y"][0] == 0
    assert sorted(shown["joint"]["y"]) == shown["joint"]["y"]
