"""What is said of the generators: they lie apart where their intervals have nothing in common, at the larger size."""

from __future__ import annotations

from normwise.studies.conditional_generation.figures import SCORES, _apart


def test_kinds_lie_apart_in_the_scores_whose_intervals_do_not_meet():
    shown = {
        f"{kind}, {name}": {"y": [start, 5.0], "interval": [0.0, 1.0]}
        for kind, start in (("conditional BN", 0.0), ("a network a class", 9.0))
        for name in SCORES
    }
    assert _apart(shown, "a network a class") == []
    shown["a network a class, distance"]["y"][-1] = 7.1
    shown["conditional BN, accuracy"]["y"][-1] = 2.9
    assert _apart(shown, "a network a class") == ["accuracy", "distance"]
