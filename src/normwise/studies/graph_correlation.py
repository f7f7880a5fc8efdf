"""Correlated nodes in one batch: what training, running averages and exact merging see; then real graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.care.recalibrate import recalibrate
from normwise.layers import (
    BatchNorm,
    GraphBatchNorm,
)
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import Estimate, dots, series, told
from normwise.studies.graph_networks import NORMS, classified
from normwise.studies.graphs import Graph, cora, neighbours_of_digits, propagate
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import graph as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NODES, _CHANNELS, _FEW = 32, 128, 8
_RHO, _STRONG = 0.9, 0.99
_CORRELATIONS = (0.0, 0.4, 0.7, 0.9)
_MOMENTUM, _SETTLED = 0.1, 60  # batches after which (1 - .1)^k of the initial value is gone
_BATCHES = {"tiny": 40, "quick": 80, "full": 400}
_REPLICATES = {"tiny": 8, "quick": 8, "full": 20}
_EPOCHS, _TRAINED = {"tiny": 1, "quick": 30, "full": 150}, {"tiny": 3, "quick": 3, "full": 5}
_BALL = 64  # nodes of a batch from a real graph, a node and those around it
_RUNNING = f"running_var of torch's average, nodes correlated by {_RHO:g}"
_TRAIN = f"mean square of the output in training, correlation {_STRONG:g}"
_EVAL = f"mean square of the output in evaluation, correlation {_RHO:g}"
_EXACT = f"running_var of GraphBatchNorm, momentum {_MOMENTUM:g}, correlation {_RHO:g}"
_MERGED = f"running_var after recalibration, correlation {_RHO:g}"
_NEGATIVE = f"Bessel's variance of {_FEW} values at their smallest correlation"
_NEGATIVE_POPULATION = f"population variance of {_FEW} values at their smallest correlation"
_CORA = f"running_var of torch's average, batches of {_BALL} neighbouring papers of Cora, over their variance"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what each way of keeping variances expects; the source lets training explode."""
    biased = theory.batch_variance(1.0, _RHO)
    lowest = theory.smallest_correlation(_FEW)
    over = theory.largest_overestimate(_FEW)
    merged = theory.merged_variance(1.0, _RHO, _NODES, given["batches"])
    return {
        _RUNNING: Prediction(biased, claim=biased, rival=1.0),
        _TRAIN: Prediction(
            float(theory.train_mean_square(theory.population_batch_variance(1.0, _STRONG, _NODES), 1e-5)),
            claim=float(theory.eval_inflation(_STRONG)),
            finite_size=2e-3,
            reason="eps beside single batches' variances",
        ),
        _EVAL: Prediction(
            float(theory.eval_inflation(_RHO) * (1 + theory.variance_of_batch_mean(1.0, _RHO, _NODES) / given["batches"])),
            claim=float(theory.eval_inflation(_RHO)), rival=1.0,
            finite_size=0.02, reason="E[1/v] > 1/E[v] for a running variance of finitely many batches",
            claim_finite_size=0.2,
        ),
        _EXACT: Prediction(float(theory.exponentially_merged_variance(1.0, _RHO, _NODES, _MOMENTUM, unbiased=False)), rival=biased),
        _MERGED: Prediction(float(merged), rival=biased),
        _NEGATIVE: Prediction(theory.batch_variance(1.0, lowest), claim=over, rival=1.0),
        _NEGATIVE_POPULATION: Prediction(
            float(theory.population_batch_variance(1.0, lowest, _FEW)), claim=over
        ),
        _CORA: Prediction(theory.batch_variance(1.0, given["correlation of neighbouring papers"]), rival=1.0),
    }  # fmt: skip


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Draw correlated batches for our layers to average; cut neighbourhoods out of Cora; classify nodes with each norm."""
    generator, replicates, batches = torch.Generator().manual_seed(seed), _REPLICATES[size], _BATCHES[size]
    papers, images = cora(), neighbours_of_digits()
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        for _ in tracked(range(replicates), lambda share: progress(share / 2)):
            one: dict[str, Any] = {}
            averages = [_averaged(rho, batches, generator) for rho in _CORRELATIONS]
            for name in averages[0]:
                one[name] = [average[name] for average in averages]
            at = _CORRELATIONS.index(_RHO)
            one[_RUNNING], one[_EVAL], one[_MERGED] = (one[n][at] for n in ("running", "inflated", "merged"))
            one[_EXACT] = _exponentially(_RHO, batches, generator)
            strong = BatchNorm(_CHANNELS)(_correlated(_STRONG, _NODES, generator))
            one[_TRAIN] = float(strong.detach().square().mean())
            lowest = torch.randn(4000, _FEW, generator=generator, dtype=torch.float64)
            lowest = (lowest - lowest.mean(1, keepdim=True)) * (_FEW / (_FEW - 1)) ** 0.5  # variance 1 each
            one[_NEGATIVE], one[_NEGATIVE_POPULATION] = (float(lowest.var(1, unbiased=u).mean()) for u in (True, False))
            for name, value in one.items():
                found.setdefault(name, []).append(value)
        balls, spread, correlation = _neighbourhoods(papers)
        kept = [_averaged_neighbours(balls, 5 * batches, generator) / spread for _ in range(2 * replicates)]
        accuracy = {}
        work = [(graph, name) for graph in (papers, images) for name in NORMS]
        for graph, name in tracked(work, lambda share: progress(0.5 + share / 2)):
            scores = [classified(graph, NORMS[name], _EPOCHS[size], generator) for _ in range(_TRAINED[size])]
            accuracy.setdefault(graph.name, {})[name] = vars(Estimate.of(scores))
    estimates = {name: Estimate.of(values) for name, values in found.items() if np.ndim(values) == 1}
    estimates[_CORA] = Estimate.of(kept)
    shown: dict[str, Any] = {n: series(_CORRELATIONS, found[n]) for n in ("running", "inflated", "merged", "train")}
    given = {"correlation of neighbouring papers": correlation, "batches": batches}
    return Measurement(estimates, given, {**shown, "accuracy": accuracy})


def _correlated(rho: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw `(count, c)` values of variance 1, each channel's correlated by rho: one batch of nodes."""
    common = torch.randn(1, _CHANNELS, generator=generator) * rho**0.5
    return common + torch.randn(count, _CHANNELS, generator=generator) * (1 - rho) ** 0.5


def _averaged(rho: float, batches: int, generator: torch.Generator) -> dict[str, float]:
    """Return what our BatchNorm keeps of many batches, gives in either mode, and keeps after recalibration."""
    data = [_correlated(rho, _NODES, generator) for _ in range(batches)]
    fresh = torch.cat([_correlated(rho, _NODES, generator) for _ in range(batches)])
    model = nn.Sequential(BatchNorm(_CHANNELS, momentum=None))
    with torch.no_grad():
        trained = torch.stack([model(x).square().mean() for x in data]).mean()
        running = float(model[0].get_buffer("running_var").mean())
        inflated = float(model.eval()(fresh).square().mean())
        recalibrate(model, data)
    merged = float(model[0].get_buffer("running_var").mean())
    return {"train": float(trained), "running": running, "inflated": inflated, "merged": merged}


def _exponentially(rho: float, batches: int, generator: torch.Generator) -> float:
    """Return the running variance of GraphBatchNorm, averaged over time once its initial value is gone."""
    layer, kept = GraphBatchNorm(_CHANNELS, momentum=_MOMENTUM), []
    with torch.no_grad():
        for step in range(_SETTLED + batches):
            layer(_correlated(rho, _NODES, generator))
            if step >= _SETTLED:
                kept.append(float(layer.module.get_buffer("running_var").mean()))
    return float(np.mean(kept))


def _neighbourhoods(graph: Graph) -> tuple[list[Tensor], float, float]:
    """Return the smoothed features of every node's neighbourhood, their variance, and the correlation of two of one.

    Both about the mean of them all, and over every pair: nothing here is sampled, or a variance within a batch.
    """
    smooth = propagate(graph, graph.features @ _projection(graph)).double()
    balls = [smooth[graph.ball(centre, _BALL)] for centre in range(len(smooth))]
    deviations = torch.stack(balls) - torch.cat(balls).mean(0)
    square, sums = deviations.square().sum(), deviations.sum(1).square().sum()
    variance = float(square / deviations[..., 0].numel() / deviations.shape[2])
    return [ball.float() for ball in balls], variance, float((sums - square) / (square * (_BALL - 1)))


def _averaged_neighbours(balls: list[Tensor], batches: int, generator: torch.Generator) -> float:
    """Return what our BatchNorm keeps of neighbourhoods of so many random nodes."""
    norm = BatchNorm(balls[0].shape[1], momentum=None)
    with torch.no_grad():
        for centre in torch.randint(len(balls), (batches,), generator=generator).tolist():
            norm(balls[centre])
    return float(norm.get_buffer("running_var").mean())


def _projection(graph: Graph) -> Tensor:
    """Return 16 random directions of a graph's features."""
    return torch.randn(graph.features.shape[1], 16, generator=torch.Generator().manual_seed(0))


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw what is kept and what comes out over the correlation, and the norms on real graphs."""
    shown, made, rho = result.series, {}, np.linspace(0, 0.95, 60)
    made["kept"], axes = style.figure(
        "Averaging batch variances forgets",
        "correlation between the nodes of a batch",
        "running variance, true value 1",
    )
    style.curve(axes, rho, theory.batch_variance(1.0, rho), color=style.PURPLE)
    style.curve(axes, rho, theory.merged_variance(1.0, rho, _NODES, result.given["batches"]), color=style.GREEN)
    style.points(axes, shown["running"], "averaged,\nas torch", color=style.PURPLE)
    style.points(axes, shown["merged"], "merged\nexactly", color=style.GREEN)
    made["output"], axes = style.figure(
        "Evaluation explodes, training does not",
        "correlation between the nodes of a batch",
        "mean squared output",
        log="y",
    )
    style.curve(axes, rho, theory.eval_inflation(rho), color=style.PURPLE)
    style.curve(axes, rho, np.ones_like(rho), color=style.GREEN)
    style.points(axes, shown["inflated"], "evaluation", color=style.PURPLE)
    style.points(axes, shown["train"], "training", color=style.GREEN)
    for graph, scores in shown["accuracy"].items():
        made[f"accuracy-{graph}"], axes = style.figure(
            f"Nodes of {graph}", "accuracy on held-back nodes", "norm of a graph network"
        )
        names = list(scores)[::-1]
        for place, name in enumerate(names):
            axes.errorbar(
                scores[name]["value"], place, xerr=Estimate(**scores[name]).interval, fmt="o", markersize=5,
                color=style.INK, capsize=2.2,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.locator_params("x", nbins=5)
    return made


def seen(result: Measurement) -> str:
    """Say how well each norm tells nodes, and which did best and worst."""
    told_of = [
        f"{graph} " + ", ".join(f"{name} {told(dots([0], [Estimate(**score)]))}" for name, score in scores.items())
        for graph, scores in result.series["accuracy"].items()
    ]
    extremes = [
        f"on {graph} {max(scores, key=lambda name: scores[name]['value'])} was highest and "
        f"{min(scores, key=lambda name: scores[name]['value'])} lowest"
        for graph, scores in result.series["accuracy"].items()
    ]
    ends = "; ".join(extremes)
    return (
        f"Accuracy on held-back nodes, the whole graph one batch: {'; '.join(told_of)}. {ends[:1].upper()}{ends[1:]}."
    )


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
                    1.0, rho, m, _MOMENTUM, unbiased=False
                ),
                "merged": lambda rho, m: theory.merged_variance(1.0, rho, m, 1000),
            },
            colors={"averaged": "purple", "with between": "orange", "merged": "green"},
            x_label="correlation between the nodes of a batch",
            y_label="expected running variance, true value 1",
            told=lambda m: (
                f"{m:g} nodes: at correlation 0.9 an average keeps 0.10, GraphBatchNorm "
                f"{float(theory.exponentially_merged_variance(1.0, 0.9, m, _MOMENTUM, unbiased=False)):.2f}"
            ),
        )
    ]


STUDY = Study(
    name="graph-correlation",
    heading=Heading.GRAPHS,
    title="Correlated nodes: where batch norm goes wrong, and where not",
    claim=(
        "“[…] the expected batch variance is proportional to (1 - rho). […] As the correlation approaches 1, the "
        "estimated variance approaches 0, which would cause the normalized activations to explode in magnitude. "
        "Conversely, if the data were negatively correlated, BN would overestimate the variance, shrinking the "
        "activations.”"
    ),
    theory=(
        "Bessel's variance of a batch does expect (1 - rho) sigma². But training divides by the batch's own variance, so its "
        "output keeps mean square 1 at any correlation; it is evaluation, with an average of batch variances, that inflates by "
        "1/(1 - rho). A mean correlation cannot lie below -1/(m - 1), so the overestimate is at most m/(m - 1), and the "
        "population variance BN normalises with never overestimates. Merging batches exactly, the variance between them "
        "included, recovers sigma²: rho is invisible inside a batch and visible across batches."
    ),
    outcome="To be said.",
    advice=(
        "Where a batch's samples resemble each other compare running_var with the variance over all batches "
        "before you trust evaluation, and where it lacks what lies between batches use GraphBatchNorm or "
        "recalibrate with exact merging, but not for accuracy: with a whole graph as one batch GraphBatchNorm was "
        "not better than no norm on Cora or digits, single nodes' GraphLayerNorm did about as well as none, and "
        "PairNorm, good on digits, lost much on Cora."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
