"""Factors and growth of dense nets, and of convolutional ones, whose width is a filter's fan-in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from normwise.studies.residual_growth.nets import SIDE
from normwise.studies.study import Prediction
from normwise.theory import residual

LATE, SHORT = 8, 16  # the block and the depth whose numbers are compared
EARLY = 4  # layers without skip, before they feel the width
NO_SKIP, NO_BN, NEITHER = (
    "BN without skip: factor of an early layer",
    "skip without BN: factor of a block",
    "neither skip nor BN: factor of a layer",
)
_FACTOR = (
    "a factor: 1.5 (1/n + 1/m) of it, for blocks of width n and m samples, the order derived and 1.5 fitted to nets of "
    "width 48 to 384"
)
_GROWTH = "growth over L blocks: .4 L (1/n + 1/m) of it, the .4 fitted to the same nets"
_CROSSING = "the crossing: that over the difference of the two slopes, and half a block, as depths are whole"


def layouts(depth: int) -> tuple[str, ...]:
    """Name what is compared of pre- and post-activation nets of a depth."""
    return (
        "pre-activation: factor of block 0",
        f"pre-activation: factor of block {LATE}",
        f"pre-activation: growth over {SHORT} blocks",
        "post-activation: factor of a block",
        f"post-activation: growth over {SHORT} blocks",
        f"depth from which post-activation grows more ({depth + 1}: never)",
        f"convolutional, pre-activation: growth over {SHORT} blocks",
        "convolutional, post-activation: factor of a block",
    )


class _Net(NamedTuple):
    """What finite-size terms ask of a net: inputs of an output, values of a channel, channels."""

    width: int
    batch: int
    channels: int


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what theory says of every quantity, the source's numbers, and how far finite nets may be off."""
    dense = _Net(given["width"], given["batch"], given["width"])
    convolutional = _Net(9 * given["channels"], SIDE**2 * given["images"], given["channels"])
    pre, post = residual.idealised_pre_activation_factor(), residual.post_activation_factor()
    pre_growth = float(residual.pre_activation_growth(SHORT))
    compared = (
        _compared(pre, "pre", dense, rival=1 + residual.RELU_VARIANCE),
        _compared(float(residual.pre_activation_factor(LATE)), "pre", dense),
        _compared(pre_growth, "pre", dense, blocks=SHORT),
        _compared(post, "post", dense),
        _compared(post**SHORT, "post", dense, blocks=SHORT),
        _crossing(given["depth"], dense),
        _compared(pre_growth, "pre", convolutional, blocks=SHORT),
        _compared(post, "post", convolutional),
    )
    share = float(residual.finite_size_term(dense.width, dense.batch))
    without = {
        NO_SKIP: residual.PLAIN_FACTOR,
        NO_BN: residual.unnormalised_factor(skip=True),
        NEITHER: residual.unnormalised_factor(skip=False),
    }
    return dict(zip(layouts(given["depth"]), compared, strict=True)) | {
        name: Prediction(theory, rival=1.0, finite_size=share * theory, reason=_FACTOR)
        for name, theory in without.items()
    }


def _compared(theory: float, kind: str, net: _Net, *, blocks: int = 1, rival: float | None = None) -> Prediction:
    """Hold a factor, or the growth over so many blocks, against the source's; for its own assumptions there are derived terms."""
    if kind == "pre":
        claim, finite = (residual.idealised_pre_activation_factor(batch=batch) for batch in (math.inf, net.batch))
    else:
        claim, finite = (residual.idealised_post_activation_factor(width=width) for width in (math.inf, net.channels))
    share, reason = (
        (residual.finite_size_term(net.width, net.batch), _FACTOR)
        if blocks == 1
        else (residual.finite_size_term_of_growth(net.width, net.batch, blocks), _GROWTH)
    )
    allowed = finite**blocks - claim**blocks
    return Prediction(theory, claim**blocks, rival, float(share) * theory, reason, allowed)


def _crossing(depth: int, net: _Net) -> Prediction:
    crossing = residual.crossing_depth()
    slope = math.log(residual.post_activation_factor() / float(residual.pre_activation_factor(crossing)))
    off = float(residual.finite_size_term_of_growth(net.width, net.batch, crossing)) / slope + 0.5
    return Prediction(crossing, rival=depth + 1, finite_size=off, reason=_CROSSING)
