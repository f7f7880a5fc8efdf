"""What is said of the games: worse is what lies apart, on the wrong side, by more than both intervals."""

from __future__ import annotations

import pytest

from normwise.studies.discriminator_coupling.figures import _worse


@pytest.fixture
def shown() -> dict[str, dict[str, list[float]]]:
    """Four kinds that are alike in everything: 5 +- 1 at the end, whatever they were before."""
    kinds, names = ("joint BN", "separate BN", "LayerNorm", "spectral norm"), ("distance", "turned", "back", "loss")
    return {f"{kind}, {name}": {"y": [9.0, 5.0], "interval": [0.0, 1.0]} for kind in kinds for name in names}


def test_what_overlaps_is_not_worse(shown):
    shown["joint BN, loss"]["y"][-1] = 6.9
    assert _worse(shown) == (
        "Joint BN was measurably worse in nothing than separate BN, in nothing than LayerNorm, in nothing than spectral norm; "
        "measurably worse than joint BN was separate BN in nothing, LayerNorm in nothing, spectral norm in nothing."
    )


def test_what_lies_above_is_worse_and_what_lies_below_is_not(shown):
    shown["joint BN, loss"]["y"][-1] = 7.1
    shown["spectral norm, distance"] = {"y": [1.0], "interval": [2.9]}
    shown["joint BN, back"]["y"][-1] = 1.0
    shown["separate BN, distance"] = {"y": [8.0], "interval": [0.5]}
    assert _worse(shown) == (
        "Joint BN was measurably worse in the loss's swings than separate BN, in the loss's swings than LayerNorm, in distance "
        "and the loss's swings than spectral norm; measurably worse than joint BN was separate BN in distance and turning back, "
        "LayerNorm in turning back, spectral norm in turning back."
    )
