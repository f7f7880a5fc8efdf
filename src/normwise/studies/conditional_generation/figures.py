"""The pictures: digits by class, then how good they are by the parameters spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.conditional_generation.generators import KERNEL, KINDS
from normwise.studies.conditional_generation.measure import SCORES
from normwise.studies.estimate import overlapping, told
from normwise.studies.study import Measurement
from normwise.theory import adversarial as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = dict(zip(KINDS, (style.VERMILLION, style.BLUE, style.GREEN), strict=True))
_LABELS = dict(zip(KINDS, ("conditional\nBN", "labels beside\nthe noise", "a network\na class"), strict=True))
_SAID = {
    "accuracy": ("Drawn digits that are the digit asked for", "share, by a classifier of real digits"),
    "diversity": ("Diversity of the drawn digits of a class", "mean distance in pixels between two of a class"),
    "distance": (
        "Distance of drawn digits to real ones",
        "Fréchet distance of a classifier's features to digits held back",
    ),
}


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw digits of each kind, and each score of both sizes."""
    shown = result.series
    pictures = {_LABELS[kind]: np.array(shown[f"{kind}, pictures"]) for kind in KINDS}
    pictures["real digits"] = np.array(shown["real, pictures"])
    made = {"pictures": style.gallery("Digits drawn by class, by how the generator is told it", pictures)}
    small, large = shown[f"conditional BN, {SCORES[0]}"]["x"]
    for name, (title, y) in _SAID.items():
        said = f"○ at most {small:.0f} parameters, ● at most {large:.0f}"
        made[name], axes = style.figure(title, said, y, log="y" if name == "distance" else "")
        style.categories(axes, _LABELS.values())
        style.curve(axes, axes.get_xlim(), [shown["real"][name]] * 2, "real digits", color=style.SOFT, dashed=True)
        for place, (kind, color) in enumerate(_COLORS.items()):
            scores = shown[f"{kind}, {name}"]
            for i, aside in ((0, -5.0), (1, 5.0)):
                one = {"x": [place], "y": [scores["y"][i]], "interval": [scores["interval"][i]]}
                style.points(axes, one, color=color, hollow=i == 0, aside=aside)
    return made


def seen(result: Measurement) -> str:
    """Say how the generators of the larger size did, and where conditional batch norm differs from each alternative."""
    shown = result.series
    parts = [
        f"{kind} {told(shown[f'{kind}, distance'])} ({shown[f'{kind}, accuracy']['y'][-1]:.1%} the digit asked for, diversity "
        f"{shown[f'{kind}, diversity']['y'][-1]:.2f})"
        for kind in KINDS
    ]
    real = shown["real"]
    apart = [f"with that of {kind} in {' and '.join(_apart(shown, kind)) or 'no score'}" for kind in list(KINDS)[1:]]
    return (
        f"Of about {shown['conditional BN, distance']['x'][-1]:.0f} parameters each, the generators' Fréchet distance to digits "
        f"held back was: {', '.join(parts)}. Of these real digits {real['accuracy']:.1%} are told right and their diversity is "
        f"{real['diversity']:.2f}; as many that were learnt from are {real['distance']:.2f} away. Conditional BN's interval has "
        f"nothing in common {' and '.join(apart)}."
    )


def _apart(shown: Mapping[str, Any], kind: str) -> list[str]:
    """Return the scores in which the intervals of a kind and of conditional batch norm have nothing in common."""
    found = []
    for name in SCORES:
        pair = [shown[f"{each}, {name}"] for each in ("conditional BN", kind)]
        if not overlapping({key: [one[key][-1] for one in pair] for key in ("y", "interval")}):
            found.append(name)
    return found


def sliders(_: Measurement) -> list[Slider]:
    """Return what conditioning costs by the number of classes, at any width."""
    classes = np.arange(1, 101)

    def conditional(k: Any, c: float) -> Any:
        return theory.filter_parameters(c, c, KERNEL) + theory.conditional_parameters(c, k)

    def apart(k: Any, c: float) -> Any:
        return theory.filter_parameters(c, c, KERNEL, k)

    return [
        Slider(
            parameter="channels of a convolution",
            positions=[16, 32, 64, 128, 256, 512],
            start=2,
            x=classes,
            curves={"conditional": conditional, "filters each": apart},
            colors={"conditional": "vermillion", "filters each": "green"},
            x_label="classes",
            y_label="parameters of a layer, theory",
            log=True,
            told=lambda c: (
                f"{c:g} channels, 100 classes: filters for each cost {apart(100, c) / conditional(100, c):.0f} times as much"
            ),
        )
    ]
