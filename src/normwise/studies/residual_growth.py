"""Growth of the gradient through residual blocks: pre- and post-activation, with and without BN, dense and convolutional."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, series
from normwise.studies.residual_nets import (
    BLOCKS,
    SIDE,
    convolutional_form,
    dense_form,
    digit_factors,
    random_factors,
)
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import residual

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_LATE, _SHORT = 8, 16  # the block and the depth whose numbers are compared
_EARLY = 4  # layers without skip, before they feel the width
_NO_SKIP, _NO_BN, _NEITHER = (
    "BN without skip: factor of an early layer",
    "skip without BN: factor of a block",
    "neither skip nor BN: factor of a layer",
)
_IDEAL = {"pre": "pre", "post": "post, by second moment"}  # blocks under the claim's assumptions, each run alone
_LEARNING = ("MLP", "ConvNet")
_ALLOWED = (
    "2 L (1/n + 1/m) of the value, for L blocks of width n and m samples; for the crossing, that over the difference "
    "of the two slopes"
)


@dataclass(frozen=True)
class _Plan:
    """Dense width, batch, depth and draws; channels and images of convolutional nets; nets trained, and steps."""

    width: int
    batch: int
    depth: int
    draws: int
    channels: int
    images: int
    trained: int
    steps: int


_PLANS = {
    "tiny": _Plan(320, 640, 60, 4, 16, 32, 3, 3),
    "quick": _Plan(384, 768, 60, 6, 32, 64, 3, 30),
    "full": _Plan(768, 1536, 64, 8, 64, 128, 4, 80),
}


def _layouts(depth: int) -> tuple[str, ...]:
    """Name what is compared of pre- and post-activation nets of a depth."""
    return (
        "pre-activation: factor of block 0",
        f"pre-activation: factor of block {_LATE}",
        f"pre-activation: growth over {_SHORT} blocks",
        "post-activation: factor of a block",
        f"post-activation: growth over {_SHORT} blocks",
        f"depth from which post-activation grows more ({depth + 1}: never)",
        f"convolutional, pre-activation: growth over {_SHORT} blocks",
        "convolutional, post-activation: factor of a block",
    )


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return factors and growth of dense nets, and of convolutional ones, whose width is a filter's fan-in."""
    dense = (given["width"], given["batch"])
    convolutional = (9 * given["channels"], SIDE**2 * given["images"])

    def at(theory: Any, claim: float | None, rival: float | None = None, *, size=dense, blocks: int = 1) -> Prediction:
        value, share = float(theory), float(residual.finite_size_term(*size, depth=blocks))
        return Prediction(value, claim, rival, share * value, _ALLOWED, share * (claim or value))

    pre, post = residual.idealised_pre_activation_factor(), residual.idealised_post_activation_factor()
    pre_growth, post_factor = residual.pre_activation_growth(_SHORT), residual.post_activation_factor()
    crossing = residual.crossing_depth()
    slope = math.log(post_factor / float(residual.pre_activation_factor(crossing)))
    off = float(residual.finite_size_term(*dense, depth=crossing)) / slope
    layouts = (
        at(pre, pre, 1 + residual.RELU_VARIANCE),
        at(residual.pre_activation_factor(_LATE), pre),
        at(pre_growth, pre**_SHORT, blocks=_SHORT),
        at(post_factor, post),
        at(post_factor**_SHORT, post**_SHORT, blocks=_SHORT),
        Prediction(crossing, None, given["depth"] + 1, off, _ALLOWED),
        at(pre_growth, pre**_SHORT, size=convolutional, blocks=_SHORT),
        at(post_factor, post, size=convolutional),
    )
    without = {
        _NO_SKIP: at(residual.PLAIN_FACTOR, None, 1.0),
        _NO_BN: at(residual.unnormalised_factor(skip=True), None, 1.0),
        _NEITHER: at(residual.unnormalised_factor(skip=False), None, 1.0),
    }
    return dict(zip(_layouts(given["depth"]), layouts, strict=True)) | without


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Follow gradients through random nets of every kind, and through nets that learn digits."""
    plan = _PLANS[size]
    factor: dict[str, list[np.ndarray]] = {}
    for name, run, number in tracked(_runs(plan, digits(seed=seed)), progress):
        factor.setdefault(name, []).append(run(seed=1000 * seed + number))
    found = {name: np.array(draws) for name, draws in factor.items()}  # (draws, blocks)
    found["dense, no skip"] = found["dense, no skip"][:, 1:]  # the first one's input has had no ReLU
    growth = {name: np.cumprod(draws, axis=-1) for name, draws in found.items()}

    def layouts(suffix: str) -> dict[str, Estimate]:
        """Return what is compared of pre- and post-activation nets, as they are or idealised."""
        pre, post = f"dense, pre{suffix}", f"dense, post{suffix}"
        more = growth[post] > growth[pre]
        short = [growth[f"convolutional, pre{suffix}"][:, -1], found[f"convolutional, post{suffix}"].mean(1)]
        values = (
            found[pre][:, 0],
            found[pre][:, _LATE],
            growth[pre][:, _SHORT - 1],
            found[post][:, :_SHORT].mean(1),
            growth[post][:, _SHORT - 1],
            np.where(more.any(1), more.argmax(1), plan.depth) + 1,
            *short,
        )
        return {name: Estimate.of(value) for name, value in zip(_layouts(plan.depth), values, strict=True)}

    without = {
        _NO_SKIP: Estimate.of(found["dense, no skip"][:, :_EARLY].mean(1)),
        _NO_BN: Estimate.of(found["dense, no BN"][:, :_SHORT].mean(1)),
        _NEITHER: Estimate.of(found["dense, neither"][:, :_SHORT].mean(1)),
    }
    shown = {name: series(np.arange(draws.shape[-1]), draws) for name, draws in found.items() if draws.ndim == 2}
    for net in _LEARNING:
        for when, name in enumerate(("init", "trained")):
            shown |= {
                f"{net}, {k}, {name}": series(range(_SHORT), found[f"{net}, {k}"][:, when]) for k in ("pre", "post")
            }
    for kind in BLOCKS:
        draws = growth[f"dense, {kind}"]
        shown[f"{kind}: growth"] = series(np.arange(1, draws.shape[1] + 1), draws)
    given = {key: getattr(plan, key) for key in ("width", "batch", "depth", "channels", "images")}
    return Measurement({**layouts(""), **without}, given, shown, layouts(", idealised"))


def _runs(plan: _Plan, data: tuple[Tensor, Tensor]) -> list[tuple[str, Callable[..., np.ndarray], int]]:
    """Return every net to be drawn: its name, what gives its factors for a seed, which draw it is."""
    dense, convolutional = dense_form(plan.width), convolutional_form(plan.channels)
    runs: dict[str, Callable[..., np.ndarray]] = {}
    for name, form, samples, depth in (
        ("dense", dense, plan.batch, plan.depth),
        ("convolutional", convolutional, plan.images, _SHORT),
    ):
        random = partial(random_factors, form=form, samples=samples, depth=depth)
        runs |= {f"{name}, {kind}": partial(random, kind) for kind in BLOCKS if name == "dense" or kind in _IDEAL}
        runs |= {f"{name}, {kind}, idealised": partial(random, block, alone=True) for kind, block in _IDEAL.items()}
    jobs = [(name, run, number) for name, run in runs.items() for number in range(plan.draws)]
    for net, form in zip(_LEARNING, (dense_form(2 * plan.channels), convolutional), strict=True):
        for kind in _IDEAL:
            run = partial(digit_factors, kind, form=form, depth=_SHORT, data=data, steps=plan.steps)
            jobs += [(f"{net}, {kind}", run, number) for number in range(plan.trained)]
    return jobs


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the factors of both layouts, the growth of all nets, where the layouts cross, and what training does."""
    shown, made = result.series, {}
    blocks, depths = np.arange(_SHORT), np.arange(1, result.given["depth"] + 1)
    colors = {
        "pre": style.GREEN,
        "post": style.PURPLE,
        "no BN": style.ORANGE,
        "no skip": style.SKY,
        "neither": style.SOFT,
    }
    factors = {
        "pre": residual.pre_activation_factor(blocks),
        "post": np.full(_SHORT, residual.post_activation_factor()),
    }
    claims = {"pre": residual.idealised_pre_activation_factor(), "post": residual.idealised_post_activation_factor()}
    growths = {
        "no BN": residual.unnormalised_factor(skip=True) ** depths,
        "no skip": residual.PLAIN_FACTOR**depths,
        "post": residual.post_activation_growth(depths),
        "pre": residual.pre_activation_growth(depths),
        "neither": residual.unnormalised_factor(skip=False) ** depths,
    }
    for kind in _IDEAL:
        name = f"{kind}-activation"
        made[name], axes = style.figure(f"One {name} block", "block", "gradient norm², input over output")
        style.curve(axes, blocks, np.full(_SHORT, claims[kind]), "claim", color=style.CLAIM, dashed=True)
        style.curve(axes, blocks, factors[kind], "theory")
        style.points(axes, _some(shown[f"dense, {kind}, idealised"]), "idealised", color=style.SOFT, hollow=True)
        style.points(axes, _some(shown[f"dense, {kind}"]), "measured")
    for name, title, kinds, every in (
        ("depth", "Vanishing and exploding", tuple(growths), 6),
        ("crossing", "The layouts cross", ("post", "pre"), 4),
    ):
        made[name], axes = style.figure(title, "depth", "growth of gradient norm²", log="y")
        for kind in kinds:
            style.curve(axes, depths, growths[kind], color=colors[kind])
            style.points(axes, _some(shown[f"{kind}: growth"], every, last=None), kind, color=colors[kind])
    style.mark(axes, residual.crossing_depth(), f"theory: {residual.crossing_depth()}")
    for net in _LEARNING:
        made[f"{net.lower()}-digits"], axes = style.figure(
            f"{net} on digits", "block", "gradient norm², input over output; ● at init, ○ trained, line: theory"
        )
        for kind in ("post", "pre"):
            style.curve(axes, blocks, factors[kind], kind, color=colors[kind])
            for when, aside in (("init", -5.0), ("trained", 2.0)):
                drawn = _some(shown[f"{net}, {kind}, {when}"], 2)
                aside += 3.0 * (kind == "pre")
                style.points(axes, drawn, color=colors[kind], hollow=when == "trained", aside=aside)
    return made


def _some(drawn: Mapping[str, list[float]], every: int = 1, last: int | None = _SHORT) -> dict[str, list[float]]:
    """Return every so manieth point of a series."""
    return {part: values[every - 1 : last : every] for part, values in drawn.items()}


def seen(result: Measurement) -> str:
    """Say how much gradients grow through nets of digits, before and after training."""
    parts = []
    for net in _LEARNING:
        growth = {
            (kind, when): math.prod(result.series[f"{net}, {kind}, {when}"]["y"])
            for kind in _IDEAL
            for when in ("init", "trained")
        }
        parts.append(
            f"{net} {growth['pre', 'init']:.3g} pre- and {growth['post', 'init']:.3g} post-activation at initialisation, "
            f"{growth['pre', 'trained']:.3g} and {growth['post', 'trained']:.3g} once trained"
        )
    return f"The factors of {_SHORT} blocks on digits, means over nets, multiply to: {'; '.join(parts)}."


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


STUDY = Study(
    name="residual-growth",
    heading=Heading.RESIDUAL,
    title="How gradients grow through residual blocks",
    claim=(
        "“[…] a simplified model might show the expected gradient norm being multiplied by a factor of 1.5 at "
        "each pre-activation block, leading to exponential growth in a deep network, whereas the factor for a "
        "post-activation block is exactly 1. While these theoretical models rely on strong idealizations and may "
        "not perfectly capture all dynamics of a real network, they powerfully illustrate that the interaction "
        "[…] is intricate and consequential.” Of vanishing and exploding gradients: “Batch Normalization directly "
        "addresses this by re-standardizing activations at each layer”."
    ),
    theory=(
        "BN divides by the variance centred over the batch, which ReLU's mean is no part of: a branch adds v = "
        "1/2 - 1/(2π) = 0.3408, not 1/2. Then block l of a pre-activation net multiplies by 1 + (1/2) / (1 + v "
        "l), which falls: growth is only a power of depth, L^1.467. A post-activation block multiplies by 1.5 / "
        "(1 + v) = 1.1187: growth is exponential. The layouts cross at depth 32 where the weights have gain 1, as "
        "here, and at 23 with He's gain 2. Without the skip, BN makes gradients explode by π / (π - 1) = 1.467 a "
        "layer. All this is at initialization, for independent inputs; digits deviate in the first blocks, and "
        "training moves every block."
    ),
    outcome="To be said.",
    advice=(
        "Where a net is to be deeper than about 20 to 30 blocks, by the gain of its weights, prefer "
        "pre-activation order for the gradients at initialisation, never stack BN-ReLU layers without a skip, and "
        "in a trained net measure gradient norms block by block, for training made those of the convolutional net "
        "here grow far beyond any law in either order."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
