"""The pictures: samples, the coupling, the gradient's ways, steepness, and how each discriminator's generator fares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.digit_scores import CLASSES
from normwise.studies.discriminator_coupling.linear import MOVES
from normwise.studies.discriminator_coupling.looks import CONTRASTS
from normwise.studies.discriminator_coupling.predict import moved
from normwise.studies.estimate import told
from normwise.studies.study import Measurement
from normwise.theory import adversarial as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {
    "joint BN": style.VERMILLION, "separate BN": style.PURPLE, "LayerNorm": style.GREEN, "spectral norm": style.BLUE,
}  # fmt: skip
_NORM = "the discriminator's norm"
_TRAINED = f"{_NORM}; ● with random weights, ○ trained"


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw what is predicted of a linear discriminator, then what is measured of whole ones, then the games."""
    shown = result.series
    return {
        "samples": style.gallery("Digits drawn after training, by discriminator", shown["pictures"]),
        "shift": _shift(result),
        "coupling": _by_kind(
            shown, ("shift", "shift after"), "How far the fakes move real digits' logits",
            "root mean square shift when they are exchanged, over the logits' spread", _TRAINED,
        ),
        "gradient": _by_kind(
            shown, ("through", "through after"), "Generator's gradient through the statistics",
            "its norm in the discriminator, over that of the direct gradient", _TRAINED,
        ),
        "steepness": _steepness(shown),
        "contrast": _contrast(result),
        "distance": _over_steps(shown, "distance"),
        "covered": _over_steps(shown, "covered"),
        "oscillation": _by_kind(
            shown, ("turned", "back"), "Drawn digits that change their class",
            "share of samples from look to look, second half of training",
            f"{_NORM}; ● of another class, ○ and then back",
        ),
        "loss": _by_kind(
            shown, ("loss",), "Swings of the generator's loss", "standard deviation over mean, second half of training", _NORM
        ),
    }  # fmt: skip


def _shift(result: Measurement) -> Figure:
    given = _given(result)
    moves = np.linspace(0, MOVES[-1], 60)
    made, axes = style.figure(
        "Logits of reals move with the fakes' mean",
        "move of the fakes, in standard deviations of the reals",
        "shift under a linear discriminator, root mean square; line: theory",
    )
    for name, share, kind in (("joint", 0.5, "joint BN"), ("separate", 1.0, "separate BN")):
        style.curve(axes, moves, [moved(given, move, share) for move in moves], color=_COLORS[kind])
        style.points(axes, result.series[name], kind, color=_COLORS[kind])
    axes.set_xticks(MOVES, [f"{move:g}" for move in MOVES])
    return made


def _given(result: Measurement) -> dict[str, np.ndarray]:
    return {name: np.array(result.given[name]) for name in ("real", "fake", "weight")}


def _steepness(shown: Mapping[str, Any]) -> Figure:
    made = _by_kind(
        shown, ("lipschitz", "lipschitz after"), "Steepness of discriminators of digits",
        "Lipschitz constant of a batch's logits", _TRAINED, log="y",
    )  # fmt: skip
    (axes,) = made.axes
    style.curve(axes, axes.get_xlim(), [1.0, 1.0], "bound under\nspectral norm", color=style.SOFT, dashed=True)
    return made


def _contrast(result: Measurement) -> Figure:
    made, axes = style.figure(
        "BN is steeper for a batch of less contrast",
        "contrast of all images of the batch",
        "a discriminator's Lipschitz constant over that at contrast 1; line: theory",
        log="y",
    )
    places = np.linspace(0, len(CONTRASTS) - 1, 40)
    variances = np.array(result.given["variances of a discriminator's features"])
    steeper = [theory.fading_steepness(0.5**place, variances, result.given["eps"]).mean() for place in places]
    style.curve(axes, places, steeper, color=_COLORS["joint BN"])
    for number, (kind, color) in enumerate(_COLORS.items()):
        style.points(axes, result.series[f"{kind}, steepening"], kind, color=color, aside=3.0 * number - 4.5)
    style.categories(axes, [f"{contrast:g}" for contrast in CONTRASTS])
    return made


def _over_steps(shown: Mapping[str, Any], name: str) -> Figure:
    distance = name == "distance"
    made, axes = style.figure(
        "Distance of drawn digits to real ones" if distance else "Classes of digits that are drawn",
        f"training step; colours: {_NORM}",
        "Fréchet distance of a classifier's features to digits held back" if distance else f"classes, of {CLASSES}",
        log="y" if distance else "",
    )
    for number, (kind, color) in enumerate(_COLORS.items()):
        drawn = {part: values[1::2] for part, values in shown[f"{kind}, {name}"].items()}
        axes.plot(drawn["x"], drawn["y"], color=color, linewidth=0.8, alpha=0.5)
        style.points(axes, drawn, kind, color=color, aside=3.0 * number - 4.5)
        axes.set_xticks(drawn["x"])
    if distance:
        reach, real = axes.get_xlim(), [shown["distance of real digits"]] * 2
        style.curve(axes, reach, real, "real digits", color=style.SOFT, dashed=True)
        axes.set_xlim(reach)
    else:
        axes.set_ylim(0, CLASSES + 0.5)
        axes.set_yticks(range(0, CLASSES + 1, 2))
    return made


def _by_kind(shown: Mapping[str, Any], names: Sequence[str], title: str, y: str, x: str, *, log: str = "") -> Figure:
    """Draw one number of each kind as dots, and a second, if there is one, as hollow ones."""
    made, axes = style.figure(title, x, y, log=log)
    for kind, color in _COLORS.items():
        for name, aside in zip(names, (-5.0, 5.0) if len(names) > 1 else (0.0,), strict=True):
            style.points(axes, shown[f"{kind}, {name}"], color=color, hollow=name != names[0], aside=aside)
    style.categories(axes, [kind.replace(" ", "\n") for kind in _COLORS])
    if not log:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    return made


def sliders(result: Measurement) -> list[Slider]:
    """Return the shift of real logits over the fakes' move, by the share of reals in the batch."""
    given = _given(result)
    return [
        Slider(
            parameter="share of reals in the batch (1: separate batches)",
            positions=[0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0],
            start=2,
            x=np.linspace(0, MOVES[-1], 41),
            curves={"shift": lambda x, share: [moved(given, move, share) for move in x]},
            x_label="move of the fakes, in standard deviations of the reals",
            y_label="shift of real logits, theory",
            told=lambda share: (
                f"{share:.0%} reals: fakes one standard deviation away move a real logit by {moved(given, 1.0, share):.2f}"
            ),
        )
    ]


def seen(result: Measurement) -> str:
    """Say how the games went, and in what joint batch norm was measurably worse than what the source puts in its place."""
    shown = result.series
    steps = shown["joint BN, distance"]["x"][-1]
    games = [
        f"{kind} {told(shown[f'{kind}, distance'])} ({shown[f'{kind}, covered']['y'][-1]:.1f} classes, "
        f"{_share(shown, kind, 'turned')} turned, {_share(shown, kind, 'back')} and back)"
        for kind in _COLORS
    ]
    swings, through, shifts = (
        ", ".join(f"{kind} {told(shown[f'{kind}, {name}'])}" for kind in kinds)
        for name, kinds in (("loss", _COLORS), ("through after", _COLORS), ("shift after", ["joint BN"]))
    )
    elsewhere = max(shown[f"{kind}, shift after"]["y"][0] for kind in _COLORS if kind != "joint BN")
    return (
        f"After {steps:.0f} steps the generators' Fréchet distance to the digits held back was, under {', '.join(games)}; in "
        "brackets the classes of ten that are drawn, and the share of samples whose class turns between two looks. As many "
        f"of the real digits that were learnt from are {shown['distance of real digits']:.2f} away. The generator's loss swung "
        f"by (standard deviation over mean, second half of training) {swings}. Of the trained discriminators the generator's "
        f"gradient through the statistics was, over the direct one, {through}; exchanging the fakes moved a real logit, over "
        f"the logits' spread, under {shifts}, and by at most {elsewhere:.1g} under the others. {_worse(shown)}"
    )


def _share(shown: Mapping[str, Any], kind: str, name: str) -> str:
    return f"{shown[f'{kind}, {name}']['y'][0]:.0%}"


def _worse(shown: Mapping[str, Any]) -> str:
    """Say in what joint batch norm was worse than each alternative, and each than it."""
    others = [kind for kind in _COLORS if kind != "joint BN"]
    joint = [f"{_in_what(shown, 'joint BN', other)} than {other}" for other in others]
    back = [f"{other} {_in_what(shown, other, 'joint BN')}" for other in others]
    return f"Joint BN was measurably worse {', '.join(joint)}; measurably worse than joint BN was {', '.join(back)}."


def _in_what(shown: Mapping[str, Any], one: str, other: str) -> str:
    """Say in which scores one kind lies above another, by more than both intervals."""
    scores = {"distance": "distance", "turned": "turning", "back": "turning back", "loss": "the loss's swings"}
    above = [said for name, said in scores.items() if _end(shown, one, name, -1) > _end(shown, other, name, 1)]
    return f"in {' and '.join(above)}" if above else "in nothing"


def _end(shown: Mapping[str, Any], kind: str, name: str, sign: int) -> float:
    """Return the end of the interval of the last dot."""
    drawn = shown[f"{kind}, {name}"]
    return drawn["y"][-1] + sign * drawn["interval"][-1]
