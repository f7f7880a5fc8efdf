"""Gradients through random nets of every kind, and through nets that learn digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, series
from normwise.studies.residual_growth.nets import (
    BLOCKS,
    convolutional_form,
    dense_form,
    digit_factors,
    random_factors,
)
from normwise.studies.residual_growth.predict import EARLY, LATE, NEITHER, NO_BN, NO_SKIP, SHORT
from normwise.studies.residual_growth.predict import layouts as names
from normwise.studies.study import Measurement, Progress, tracked

if TYPE_CHECKING:
    from torch import Tensor

IDEAL = {"pre": "pre", "post": "post, by second moment"}  # blocks under the claim's assumptions, each run alone
LEARNING = ("MLP", "ConvNet")


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
            found[pre][:, LATE],
            growth[pre][:, SHORT - 1],
            found[post][:, :SHORT].mean(1),
            growth[post][:, SHORT - 1],
            np.where(more.any(1), more.argmax(1), plan.depth) + 1,
            *short,
        )
        return {name: Estimate.of(value) for name, value in zip(names(plan.depth), values, strict=True)}

    without = {
        NO_SKIP: Estimate.of(found["dense, no skip"][:, :EARLY].mean(1)),
        NO_BN: Estimate.of(found["dense, no BN"][:, :SHORT].mean(1)),
        NEITHER: Estimate.of(found["dense, neither"][:, :SHORT].mean(1)),
    }
    shown = {name: series(np.arange(draws.shape[-1]), draws) for name, draws in found.items() if draws.ndim == 2}
    for net in LEARNING:
        for when, name in enumerate(("init", "trained")):
            shown |= {
                f"{net}, {k}, {name}": series(range(SHORT), found[f"{net}, {k}"][:, when]) for k in ("pre", "post")
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
        ("convolutional", convolutional, plan.images, SHORT),
    ):
        random = partial(random_factors, form=form, samples=samples, depth=depth)
        runs |= {f"{name}, {kind}": partial(random, kind) for kind in BLOCKS if name == "dense" or kind in IDEAL}
        runs |= {f"{name}, {kind}, idealised": partial(random, block, alone=True) for kind, block in IDEAL.items()}
    jobs = [(name, run, number) for name, run in runs.items() for number in range(plan.draws)]
    for net, form in zip(LEARNING, (dense_form(2 * plan.channels), convolutional), strict=True):
        for kind in IDEAL:
            run = partial(digit_factors, kind, form=form, depth=SHORT, data=data, steps=plan.steps)
            jobs += [(f"{net}, {kind}", run, number) for number in range(plan.trained)]
    return jobs
