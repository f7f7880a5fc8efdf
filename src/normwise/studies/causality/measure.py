"""Derivatives by future inputs; models of tosses, of which nothing can be known, of text and of digits."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.studies.causality.influence import (
    COUNTS,
    GROUPS,
    LAGS,
    SEQUENCES,
    STEPS,
    influences,
    one_batch,
    root,
    roots,
)
from normwise.studies.causality.predict import (
    FUTURE,
    FUTURE_LATER,
    FUTURE_LAYER,
    FUTURE_TIMEWISE,
    GAIN,
    GAIN_LAYER,
    ONE,
    OTHERS,
    PRICE,
    REPETITION,
    SHIFT,
    SHIFT_LAYER,
)
from normwise.studies.causality.tosses import Told, foretold
from normwise.studies.causality.training import (
    IMAGES,
    TEXTS,
    Judged,
    judged_reader,
    judged_seer,
    later_text,
    text,
    told_by_the_next,
    trained_reader,
    trained_seer,
)
from normwise.studies.causality.transformers import Norm
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, dots, series
from normwise.studies.study import Measurement, Progress, tracked

LEAKED = {"tiny": (8,), "quick": (8, 32), "full": (8, 16, 32, 64)}  # tokens that share statistics
NORMS: dict[str, Norm] = {"batch norm": BatchNorm, "layer norm": AcrossChannelNorm}
_REPLICATES = {"tiny": 12, "quick": 30, "full": 150}
_STEPS = {"tiny": 100, "quick": 200, "full": 400}  # of the models of tosses
_MODELS = {"tiny": 3, "quick": 3, "full": 5}
_SEQUENCES = {"tiny": 16, "quick": 800, "full": 2400}  # read by each model, whatever its batches
_IMAGES = {"tiny": 128, "quick": 6400, "full": 12800}


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Differentiate, foretell tosses, then train on text and digits; each takes about a part of the time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batch = one_batch()
        squares = influences(_REPLICATES[size], lambda share: progress(0.15 * share))
        work = [
            (kind, count) for kind in ("pooled", "layer norm") for count in LEAKED[size] for _ in range(_MODELS[size])
        ]
        models: dict[tuple[str, int], list[Told]] = {}
        for kind, count in tracked(work, lambda share: progress(0.15 + 0.15 * share)):
            models.setdefault((kind, count), []).append(foretold(kind, count, _STEPS[size]))
        by_size = _by_batch_size(size, lambda share: progress(0.3 + 0.7 * share))
    quantities = {
        FUTURE: "pooled", FUTURE_LATER: "later", FUTURE_TIMEWISE: "time-wise",
        FUTURE_LAYER: "layer norm", OTHERS: "others", SHIFT: f"shift of {SEQUENCES}, pooled",
        SHIFT_LAYER: f"shift of {SEQUENCES}, layer norm",
    }  # fmt: skip
    estimates = {quantity: root(squares, of) for quantity, of in quantities.items()}
    estimates[ONE] = Estimate(batch["rows"][0][-1][-1], 0.0)
    found, left = _foretold(models, LEAKED[size][0])
    shown = {f"lag, {kind}": roots(squares, f"lag, {kind}", LAGS) for kind in GROUPS}
    tokens = [count * STEPS for count in COUNTS]
    shown |= {of: roots(squares, of, tokens) for of in ("growth", "shift, pooled", "shift, layer norm")}
    for of, kind, part in (
        ("pooled", "pooled", "gain"), ("in evaluation", "pooled", "later"), ("layer norm", "layer norm", "gain"),
    ):  # fmt: skip
        gains = [[getattr(one, part) for one in models[kind, count]] for count in LEAKED[size]]
        shown[f"gain, {of}"] = series(LEAKED[size], np.transpose(gains))
    given = {"x": batch["x"], "eps": batch["eps"], "python": platform.python_version(), **left}
    amounts = {"sequences": _SEQUENCES[size], "images": _IMAGES[size]}
    return Measurement(estimates | found, given, {**shown, **by_size, **amounts, **_later(batch)})


def _foretold(models: dict[tuple[str, int], list[Told]], count: int) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Return what the best model of each kind makes of tosses, computed over all batches, and what it has left to gain."""
    pooled, single = (min(models[kind, count], key=lambda one: one.left) for kind in ("pooled", "layer norm"))
    values = {
        GAIN: pooled.gain, GAIN_LAYER: single.gain, PRICE: -pooled.later, REPETITION: pooled.repeated,
    }  # fmt: skip
    left = {"left, pooled": pooled.left, "left, layer norm": single.left}
    return {quantity: Estimate(value, 0.0) for quantity, value in values.items()}, left


def _later(batch: dict[str, Any]) -> dict[str, Any]:
    """Return of three first outputs, the lowest, the middle and the highest, the derivatives by their later inputs."""
    x, rows = np.asarray(batch["x"]), np.asarray(batch["rows"])
    order = np.argsort(x[:, 0])
    chosen = {"low": order[0], "middle": order[len(order) // 2], "high": order[-1]}
    return {
        f"later inputs, {which}": {
            "sequence": int(i),
            **dots(x[i, 1:], [Estimate(float(value), 0.0) for value in rows[i, i, 1:]]),
        }
        for which, i in chosen.items()
    }


def _by_batch_size(size: str, progress: Progress) -> dict[str, Any]:
    """Return losses on held-back text and accuracies on held-back digits, by the batch size of training.

    Both norms begin alike and meet the same data in the same order, so that their differences are of pairs.
    """
    written, (images, labels) = text(), digits()
    found: dict[str, list[list[float]]] = {}
    for start in tracked(torch.randint(2**31, (_MODELS[size],)).tolist(), progress):
        for of, norm in NORMS.items():
            torch.manual_seed(start)
            losses: list[Judged] = []
            told: list[float] = []
            for batch in TEXTS:
                model, held_back = trained_reader(norm, written, batch, _SEQUENCES[size]), later_text(written)
                losses.append(judged_reader(model, *held_back, batch))
                if of == "batch norm":
                    told.append(told_by_the_next(model, *held_back, batch))
            seers = [(trained_seer(norm, images, labels, batch, _IMAGES[size]), batch) for batch in IMAGES]
            right = [judged_seer(model, images, labels, batch) for model, batch in seers]
            for what, outcomes in (("text", losses), ("digits", right)):
                found.setdefault(f"{what}, {of}, its batch", []).append([one.together for one in outcomes])
                found.setdefault(f"{what}, {of}, in evaluation", []).append([one.alone for one in outcomes])
            if told:
                found.setdefault("text, told by the next symbol", []).append(told)
    for what in ("text", "digits"):
        later = np.array(found[f"{what}, batch norm, in evaluation"])
        for of, other in (("layer norm", "layer norm, in evaluation"), ("its batch", "batch norm, its batch")):
            found[f"{what}, beyond {of}"] = (later - found[f"{what}, {other}"]).tolist()
    return {of: series(TEXTS if of.startswith("text") else IMAGES, values) for of, values in found.items()}
