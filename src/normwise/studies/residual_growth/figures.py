"""Pictures of factors, of growth, of the crossing and of nets that learn digits; the slider; what is seen besides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.residual_growth.measure import IDEAL, LEARNING
from normwise.studies.residual_growth.predict import SHORT
from normwise.studies.study import Measurement
from normwise.theory import residual

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {
    "pre": style.GREEN,
    "post": style.PURPLE,
    "no BN": style.ORANGE,
    "no skip": style.SKY,
    "neither": style.SOFT,
}
_NAMES = {
    "pre": "pre-activation",
    "post": "post-activation",
    "no BN": "skip, no BN",
    "no skip": "BN, no skip",
    "neither": "neither",
}
_TITLES = {
    "pre": "Pre-activation: later blocks grow gradients less",
    "post": "Post-activation: every block grows gradients",
}
_RATIO = "squared norm of the gradient, at a block's input over output"


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the factors of both layouts, the growth of all nets, where the layouts cross, and what training does."""
    shown, made = result.series, {}
    blocks, depths = np.arange(SHORT), np.arange(1, result.given["depth"] + 1)
    factors = {
        "pre": residual.pre_activation_factor(blocks),
        "post": np.full(SHORT, residual.post_activation_factor()),
    }
    claims = {"pre": residual.idealised_pre_activation_factor(), "post": residual.idealised_post_activation_factor()}
    growths = {
        "no BN": residual.unnormalised_factor(skip=True) ** depths,
        "no skip": residual.PLAIN_FACTOR**depths,
        "post": residual.post_activation_growth(depths),
        "pre": residual.pre_activation_growth(depths),
        "neither": residual.unnormalised_factor(skip=False) ** depths,
    }
    for kind in IDEAL:
        name = f"{kind}-activation"
        made[name], axes = style.figure(_TITLES[kind], "block, from the input", _RATIO)
        style.curve(axes, blocks, np.full(SHORT, claims[kind]), "the source", color=style.CLAIM, dashed=True)
        style.curve(axes, blocks, factors[kind], "theory")
        drawn = _some(shown[f"dense, {kind}, idealised"])
        style.points(axes, drawn, "under the\nsource's\nassumptions", color=style.SOFT, hollow=True)
        style.points(axes, _some(shown[f"dense, {kind}"]), "dense net")
    for name, title, kinds, every in (
        ("depth", "With depth gradients vanish or explode", tuple(growths), 6),
        ("crossing", f"From depth {residual.crossing_depth()} on, post-activation grows more", ("post", "pre"), 4),
    ):
        made[name], axes = style.figure(
            title, "depth in blocks; dots: measured, lines: theory", "growth of the gradient's squared norm", log="y"
        )
        for kind in kinds:
            behind = f":\nends at {_over_theory(result, kind):.2f} of\nits theory" if kind == "no skip" else ""
            style.curve(axes, depths, growths[kind], color=_COLORS[kind])
            drawn = _some(shown[f"{kind}: growth"], every, last=None)
            style.points(axes, drawn, _NAMES[kind] + behind, color=_COLORS[kind])
    style.mark(axes, residual.crossing_depth(), f"theory: {residual.crossing_depth()}")
    for net in LEARNING:
        made[f"{net.lower()}-digits"], axes = style.figure(
            f"{net} on digits, before and after training",
            "block; ● at initialisation, ○ trained, lines: theory",
            _RATIO,
        )
        for kind in ("post", "pre"):
            style.curve(axes, blocks, factors[kind], _NAMES[kind], color=_COLORS[kind])
            for when, aside in (("init", -5.0), ("trained", 2.0)):
                drawn = _some(shown[f"{net}, {kind}, {when}"], 2)
                aside += 3.0 * (kind == "pre")
                style.points(axes, drawn, color=_COLORS[kind], hollow=when == "trained", aside=aside)
    return made


def _some(drawn: Mapping[str, list[float]], every: int = 1, last: int | None = SHORT) -> dict[str, list[float]]:
    """Return some points of a series: one of every few."""
    return {part: values[every - 1 : last : every] for part, values in drawn.items()}


def seen(result: Measurement) -> str:
    """Say how far a net without skip falls behind its theory, and how much gradients grow through nets of digits."""
    share = {kind: _over_theory(result, kind) for kind in ("no skip", *IDEAL)}
    said = (
        f"Through {len(result.series['no skip: growth']['y'])} layers with BN and no skip the gradient grew to "
        f"{share['no skip']:.2f} of what theory says, whose factor is that of early layers: at width {result.given['width']} "
        f"later ones lie a little below it, and that multiplies. Through pre-activation blocks it grew to {share['pre']:.2f} "
        f"of it, through post-activation ones to {share['post']:.2f}."
    )
    parts = []
    for net in LEARNING:
        growth = {
            (kind, when): math.prod(result.series[f"{net}, {kind}, {when}"]["y"])
            for kind in IDEAL
            for when in ("init", "trained")
        }
        parts.append(
            f"{net} {growth['pre', 'init']:.3g} pre- and {growth['post', 'init']:.3g} post-activation at initialisation, "
            f"{growth['pre', 'trained']:.3g} and {growth['post', 'trained']:.3g} once trained"
        )
    return f"{said} The factors of {SHORT} blocks on digits, means over nets, multiply to: {'; '.join(parts)}."


def _over_theory(result: Measurement, kind: str) -> float:
    """Return the growth through the whole net over theory's."""
    measured = result.series[f"{kind}: growth"]["y"]
    theory = {
        "no skip": lambda depth: residual.PLAIN_FACTOR**depth,
        "pre": residual.pre_activation_growth,
        "post": residual.post_activation_growth,
    }[kind]
    return measured[-1] / float(theory(len(measured)))


def sliders(_: Measurement) -> list[Slider]:
    """Return growth over depth at any gain of the weights."""
    depths = np.arange(1, 65)
    return [
        Slider(
            parameter="gain of the weights (1: variance 1/n; 2: He)",
            positions=[round(0.1 * step, 1) for step in range(1, 31)],
            start=9,
            x=depths,
            curves={
                "pre": lambda x, gain: residual.pre_activation_growth(x, gain=gain),
                "post": lambda x, gain: residual.post_activation_growth(x, gain=gain),
            },
            colors={"pre": "green", "post": "purple"},
            x_label="depth",
            y_label="growth of gradient norm², theory",
            log=True,
            told=lambda gain: (
                f"gain {gain:g}: a post-activation block multiplies by {residual.post_activation_factor(gain=gain):.3f}; "
                f"post-activation has grown more from depth {residual.crossing_depth(gain=gain)} on"
            ),
        )
    ]
