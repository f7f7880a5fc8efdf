"""What is kept and what comes out over the correlation, and what real graphs' neighbourhoods do to norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import told
from normwise.studies.graph_correlation.neighbourhoods import MIXTURES
from normwise.studies.graph_correlation.networks import NODE
from normwise.studies.graph_correlation.predict import BALL, EPS, FEW, MOMENTUM, NODES
from normwise.studies.study import Measurement
from normwise.theory import graph as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CORRELATION = "correlation between the nodes of a batch"
_MIXED = f"neighbourhoods in a batch of {BALL} nodes"
_WAYS = {  # by way: its name, its colour, and where its dots stand beside the others'
    "BatchNorm": ("BatchNorm,\ntorch's average", style.PURPLE, -6),
    "GraphBatchNorm": ("GraphBatchNorm", style.ORANGE, -2),
    "recalibrated": ("BatchNorm,\nrecalibrated", style.GREEN, 2),
    NODE: ("layer norm\nof each node", style.BLUE, 6),
}


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the made batches, then of each real graph what is kept, what is learnt, and every norm."""
    made = {"kept": _kept(result), "output": _output(result), "negative": _negative(result)}
    for graph, drawn in result.series["mixtures"].items():
        correlations = result.given["correlation at the norm"][graph]
        made[f"kept-{graph}"] = _kept_of(graph, drawn["kept"], correlations, result.given["followed batches"])
        made[f"mixed-{graph}"] = _mixed(graph, drawn["accuracy"])
        made[f"accuracy-{graph}"] = _norms(graph, result.series["accuracy"][graph])
    return made


def _kept(result: Measurement) -> Figure:
    made, axes = style.figure(
        "Averaged batch variances lack what nodes share", _CORRELATION, "running variance, true value 1"
    )
    rho = np.linspace(0, 0.95, 60)
    style.curve(axes, rho, theory.batch_variance(1.0, rho), color=style.PURPLE)
    style.curve(axes, rho, theory.merged_variance(1.0, rho, NODES, result.given["merged batches"]), color=style.GREEN)
    style.points(axes, result.series["running"], "averaged,\nas torch", color=style.PURPLE)
    style.points(axes, result.series["merged"], "merged\nexactly", color=style.GREEN)
    return made


def _output(result: Measurement) -> Figure:
    made, axes = style.figure(
        "Correlated nodes explode in evaluation only", _CORRELATION, "mean squared output of BatchNorm", log="y"
    )
    rho, batches = np.linspace(0, 0.95, 60), result.given["averaged batches"]
    evaluated = [theory.evaluation_mean_square(one, NODES, batches, EPS) for one in rho]
    trained = [theory.training_mean_square(one, NODES, EPS) for one in rho]
    style.curve(axes, rho, evaluated, color=style.PURPLE)
    style.curve(axes, rho, trained, color=style.GREEN)
    style.points(axes, result.series["inflated"], "evaluation", color=style.PURPLE)
    style.points(axes, result.series["train"], "training", color=style.GREEN)
    return made


def _negative(result: Measurement) -> Figure:
    """Draw the variances of few values about their smallest correlation, and the claim for what BN divides by."""
    made, axes = style.figure(
        "The variance that training divides by\nis not too large on average",
        f"correlation between {FEW} values",
        "batch variance, true value 1",
    )
    lowest, over = theory.smallest_correlation(FEW), theory.largest_overestimate(FEW)
    rho = np.linspace(lowest, 0.45, 40)
    style.curve(axes, rho, theory.batch_variance(1.0, rho), color=style.PURPLE)
    style.curve(axes, rho, theory.population_batch_variance(1.0, rho, FEW), color=style.GREEN)
    below = rho[rho <= 0]
    style.curve(axes, below, theory.batch_variance(1.0, below), color=style.CLAIM, dashed=True)
    axes.annotate(
        f"claimed of what BN divides by, up to {over:.3g}",
        (lowest, over),
        (6, 2),
        textcoords="offset points",
        color=style.CLAIM,
        fontsize=8.5,
    )
    style.points(axes, result.series["bessel"], "Bessel's, kept\nfor evaluation", color=style.PURPLE)
    style.points(axes, result.series["population"], "population,\nin training", color=style.GREEN)
    style.mark(axes, float(lowest), "no smaller one\nexists")
    return made


def _kept_of(graph: str, kept: Mapping[str, Any], correlations: list[float], batches: int) -> Figure:
    """Draw what a trained network's norm keeps, over the neighbourhoods in a batch, and what is expected of it."""
    made, axes = style.figure(
        f"A batch of neighbours hides variance ({graph})", _MIXED, "running variance over that of all neighbourhoods"
    )
    places, sizes = np.arange(len(MIXTURES)), [BALL // mixed for mixed in MIXTURES]
    each = list(zip(correlations, sizes, MIXTURES, strict=True))
    whole = [theory.mixed_correlation(rho, size, mixed) for rho, size, mixed in each]
    merged = [theory.merged_variance(1.0, rho, size, mixed * batches) for rho, size, mixed in each]
    between = theory.exponentially_merged_variance(1.0, np.array(whole), BALL, MOMENTUM, unbiased=False)
    style.curve(axes, places, theory.batch_variance(1.0, np.array(whole)), color=style.PURPLE)
    style.curve(axes, places, between, color=style.ORANGE)
    style.curve(axes, places, merged, color=style.GREEN)
    _ways(made, kept)
    axes.set_ylim(bottom=0)
    return made


def _mixed(graph: str, accuracy: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        f"Mixed neighbourhoods save batch norm ({graph})", _MIXED, "accuracy on the held-back nodes of the whole graph"
    )
    _ways(made, accuracy)
    axes.set_ylim(top=1)
    return made


def _ways(made: Figure, drawn: Mapping[str, Any]) -> None:
    """Put dots of every way into a figure, side by side."""
    axes = made.axes[0]
    for way, (label, color, aside) in _WAYS.items():
        if way in drawn:
            style.points(axes, drawn[way], label, color=color, aside=aside)
    style.categories(axes, [str(mixed) for mixed in MIXTURES])


def _norms(graph: str, scores: Mapping[str, Any]) -> Figure:
    made, axes = style.figure(
        f"One batch, all of {graph}: eight norms",
        "accuracy on held-back nodes",
        "a graph network's norm; a batch is the whole graph",
    )
    names = list(scores)[::-1]
    for place, name in enumerate(names):
        score = scores[name]
        axes.errorbar(score["y"], [place], xerr=score["interval"], fmt="o", markersize=5, color=style.INK, capsize=2.2)
    axes.set_yticks(range(len(names)), names)
    axes.locator_params("x", nbins=5)
    return made


def seen(result: Measurement) -> str:
    """Say what batches of neighbours cost each way, and how well each norm tells nodes when all are one batch."""
    mixtures = [_said(graph, drawn["accuracy"]) for graph, drawn in result.series["mixtures"].items()]
    norms = [
        f"{graph} " + ", ".join(f"{name} {told(score)}" for name, score in scores.items())
        for graph, scores in result.series["accuracy"].items()
    ]
    if not mixtures:
        return ""
    return (
        f"Accuracy on held-back nodes after training on batches of one neighbourhood of {BALL} nodes, and of "
        f"{MIXTURES[-1]} of {BALL // MIXTURES[-1]} nodes: {'; '.join(mixtures)}. "
        f"With the whole graph as one batch: {'; '.join(norms)}."
    )


def _said(graph: str, accuracy: Mapping[str, Any]) -> str:
    names = {"recalibrated": "BatchNorm recalibrated"}
    each = [f"{names.get(way, way)} {told(accuracy[way], 0)} and {told(accuracy[way])}" for way in _WAYS]
    return f"{graph} {', '.join(each)}"


def sliders(_: Measurement) -> list[Slider]:
    """Return the inflation and what each way of keeping variances expects, by the size of a batch."""
    return [
        Slider(
            parameter="nodes in a batch",
            positions=[2, 4, 8, 16, 32, 64, 128],
            start=4,
            x=np.linspace(0, 0.99, 60),
            curves={
                "averaged": lambda rho, m: theory.batch_variance(1.0, rho),
                "with between": lambda rho, m: theory.exponentially_merged_variance(
                    1.0, rho, m, MOMENTUM, unbiased=False
                ),
                "merged": lambda rho, m: theory.merged_variance(1.0, rho, m, 1000),
            },
            colors={"averaged": "purple", "with between": "orange", "merged": "green"},
            x_label=_CORRELATION,
            y_label="expected running variance, true value 1",
            told=lambda m: (
                f"{m:g} nodes: at correlation 0.9 an average keeps 0.10, GraphBatchNorm "
                f"{float(theory.exponentially_merged_variance(1.0, 0.9, m, MOMENTUM, unbiased=False)):.2f}"
            ),
        )
    ]
