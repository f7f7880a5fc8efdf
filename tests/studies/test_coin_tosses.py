"""Tosses of a fair coin: statistics that are shared tell of them, a token's own do not."""

from __future__ import annotations

import math

import pytest
import torch

from normwise.studies.coin_tosses import TOSSES, tossed


@pytest.mark.parametrize(("kind", "gains"), [("pooled", True), ("layer norm", False)])
def test_only_shared_statistics_tell_of_tosses(kind, gains):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gain, later, repeated = tossed(kind, TOSSES, 60)
    assert (gain > 0.03) is gains
    assert later < 0.001
    assert gain < math.log(2)
    assert (repeated < 0.47) is gains
