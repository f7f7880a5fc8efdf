"""What a loud channel of noise does to a network depends on the axis that shares a statistic."""

from __future__ import annotations

import pytest
import torch

from normwise.studies.channel_axis.networks import AXES, beside_noise, plain
from normwise.studies.data import digits


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("kind", AXES)
def test_either_axis_learns(kind):
    assert plain(kind, *digits(), 2, 0) > 0.8


def test_loudness_of_noise_matters_across_channels_only():
    images, labels = digits()
    found = {kind: [beside_noise(kind, loud, images, labels, 2, 0) for loud in (1.0, 100.0)] for kind in AXES}
    assert found["by"][1] == pytest.approx(found["by"][0], abs=0.01)
    assert min(found["by"]) > 0.8
    assert found["across"][1] < found["across"][0] - 0.2
