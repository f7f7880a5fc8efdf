"""Small real studies: coins that are flipped, whose theory is known, right or wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from normwise.errors import MissingExtraError
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import Estimate, series, told
from normwise.studies.study import Heading, Measurement, Prediction, Study, tracked

FLIPS = {"tiny": 400, "quick": 4000, "full": 40000}


def coin(
    name: str = "coin",
    *,
    theory: float = 0.5,
    claim: float | None = None,
    heading: Heading = Heading.RESIDUAL,
    order: int = 0,
    version: int = 1,
    before: Callable[[], None] = lambda: None,
    lacks: str | None = None,
    partly: Callable[[], tuple[str, ...]] = tuple,
) -> Study:
    """A study of a fair coin; `before` is called when it is measured.

    `lacks` names a package it misses, and `partly` says what a part of it does.
    """

    def measure(seed: int, size: str, progress: Callable[[float], None]) -> Measurement:
        before()
        if lacks is not None:
            raise MissingExtraError(lacks, "studies", "flipping coins")
        random = np.random.default_rng(seed)
        draws = [random.integers(0, 2, FLIPS[size]) for _ in tracked(range(20), progress)]
        shares = np.mean(draws, axis=1)
        return Measurement(
            {"heads": Estimate.of(shares)},
            {"flips": FLIPS[size]},
            {"heads": series([1], shares[:, None])},
            missing=partly(),
        )

    def figures(result: Measurement) -> dict:
        made, axes = style.figure("A coin", "coin", "share of heads")
        style.curve(axes, [0, 2], [theory, theory], "theory")
        style.points(axes, result.series["heads"], "measured")
        return {"heads": made}

    return Study(
        name=name,
        heading=heading,
        title=f"The {name} & its sides",
        claim=f"A {name} is <fair>.",
        theory="Half of all flips.",
        setting="A fair random generator.",
        outcome=f"The {name} is as fair as it says.",
        advice=f"Flip the {name}.",
        predict=lambda given: {"heads": Prediction(theory, claim, rival=0.8)},
        measure=measure,
        figures=figures,
        sliders=lambda result: [
            Slider(
                parameter="bias",
                positions=[0.2, 0.5, 0.8],
                start=1,
                x=np.arange(11),
                curves={"heads": lambda x, bias: bias * x, "tails": lambda x, bias: (1 - bias) * x},
                colors={"tails": "green"},
                x_label="flips",
                y_label="expected",
                told=lambda bias: f"bias {bias:g} & more",
            )
        ],
        lacks=partly,
        seen=lambda result: f"Heads came up {told(result.series['heads'])} of the time.",
        order=order,
        version=version,
    )
