"""What is said of text: a leak is what the next symbol tells, and no gap between the modes is called one."""

from __future__ import annotations

import re

import pytest

from normwise.studies.causality.figures import seen
from normwise.studies.causality.training import IMAGES, TEXTS
from normwise.studies.estimate import Estimate, dots
from normwise.studies.study import Measurement


def _measured(told: list[Estimate], gap: float) -> Measurement:
    loss = [Estimate(2.5, 0.01, 3)] * 3
    shown = {f"{what}, {of} norm, in evaluation": loss for what in ("text", "digits") for of in ("batch", "layer")}
    shown |= {"text, beyond layer norm": loss, "digits, beyond layer norm": loss, "digits, beyond its batch": loss}
    shown |= {"text, told by the next symbol": told, "text, beyond its batch": [Estimate(gap, 0.01, 3)] * 3}
    drawn = {of: dots(TEXTS if of.startswith("text") else IMAGES, values) for of, values in shown.items()}
    return Measurement({}, {"python": "3.99.1"}, {**drawn, "sequences": 800, "images": 6400})


@pytest.mark.parametrize("gap", [-0.7, 0.7])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.4, 0.0, -0.1), "measurably above 0 in batches of 1."),
        ((0.4, 0.2, 0.1), "measurably above 0 in batches of 1 and 4 and 16."),
        ((0.02, 0.0, -0.1), "nowhere measurably above 0."),
    ],
)
def test_a_leak_is_what_the_next_symbol_tells_whatever_the_gap(gap, values, said):
    words = seen(_measured([Estimate(value, 0.01, 3) for value in values], gap))
    assert said in words
    assert re.search(rf"gap between training and evaluation[^:]* was {gap:.2f}", words)
    assert "Python 3.99.1" in words
    assert "leak" not in words
