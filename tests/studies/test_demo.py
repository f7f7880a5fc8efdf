"""The demo's gain is real: two seeds give it."""

from __future__ import annotations

import pytest

from normwise.studies.demo import run_demo


@pytest.mark.parametrize("seed", [0, 1])
def test_causes_are_found_and_cured(seed):
    tiny, camera = run_demo(seed=seed)
    assert tiny.report.causes[0].code == "NW201"
    assert tiny.report.causes[0].recovery.low > 0
    assert {"NW101", "NW108", "NW201"} <= {f.code for f in tiny.report.findings}
    assert tiny.after > tiny.before + 0.03
    assert camera.report.causes[0].code == "NW601"
    assert camera.report.causes[0].recovery.low > 0.4
    assert camera.after > camera.before + 0.5
