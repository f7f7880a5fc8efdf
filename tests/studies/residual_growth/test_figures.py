"""What is said of finite nets: shares of theory's growth."""

from __future__ import annotations

import numpy as np
import pytest

from normwise.studies.residual_growth.figures import _over_theory, _some
from normwise.studies.study import Measurement
from normwise.theory import residual


def measured(kind: str, values) -> Measurement:
    return Measurement({}, series={f"{kind}: growth": {"y": list(values)}})


def test_growth_as_theory_has_it_is_all_of_it():
    depths = np.arange(1, 9)
    for kind, growth in (
        ("no skip", residual.PLAIN_FACTOR**depths),
        ("pre", residual.pre_activation_growth(depths)),
        ("post", residual.post_activation_growth(depths)),
    ):
        assert _over_theory(measured(kind, growth), kind) == pytest.approx(1)
        assert _over_theory(measured(kind, [*growth[:-1], growth[-1] / 4]), kind) == pytest.approx(0.25)


def test_one_point_of_every_few():
    drawn = {"x": list(range(1, 8)), "y": list(range(11, 18))}
    assert _some(drawn, 3, last=None) == {"x": [3, 6], "y": [13, 16]}
    assert _some(drawn, 1, last=2) == {"x": [1, 2], "y": [11, 12]}
