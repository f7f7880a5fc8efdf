"""What is measured, and what theory and the source expect of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normwise.studies.study import Prediction
from normwise.theory import graph as theory

NODES, FEW, BALL, MIXED = 32, 8, 64, 8
RHO, STRONG = 0.9, 0.99
MOMENTUM, EPS = 0.1, 1e-5
RUNNING = f"running_var of torch's average, nodes correlated by {RHO:g}"
TRAIN = f"mean square of the output in training, correlation {STRONG:g}"
EVAL = f"mean square of the output in evaluation, correlation {RHO:g}"
EXACT = f"running_var of GraphBatchNorm, momentum {MOMENTUM:g}, correlation {RHO:g}"
MERGED = f"running_var after recalibration, correlation {RHO:g}"
NEGATIVE = f"Bessel's variance of {FEW} values at their smallest correlation"
NEGATIVE_POPULATION = f"population variance of {FEW} values at their smallest correlation"


def neighbouring(graph: str) -> str:
    """Name what torch's average keeps of batches of one neighbourhood of a graph."""
    return f"running_var of torch's average of {graph}'s smoothed features over their variance, batches of {BALL} neighbours"


def mixed(graph: str) -> str:
    """Name the same of batches of several neighbourhoods."""
    return (
        f"running_var of torch's average of {graph}'s smoothed features over their variance, batches of {MIXED} times "
        f"{BALL // MIXED} neighbours"
    )


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what each way of keeping variances expects; the source lets training explode."""
    biased, inflated = theory.batch_variance(1.0, RHO), theory.eval_inflation(RHO)
    lowest, over = theory.smallest_correlation(FEW), theory.largest_overestimate(FEW)
    kept = theory.exponentially_merged_variance(1.0, RHO, NODES, MOMENTUM, unbiased=False)
    made = {
        RUNNING: Prediction(biased, claim=biased, rival=1.0),
        TRAIN: Prediction(theory.training_mean_square(STRONG, NODES, EPS), claim=float(theory.eval_inflation(STRONG))),
        EVAL: Prediction(
            theory.evaluation_mean_square(RHO, NODES, given["averaged batches"], EPS), claim=float(inflated), rival=1.0
        ),
        EXACT: Prediction(float(kept), rival=biased),
        MERGED: Prediction(float(theory.merged_variance(1.0, RHO, NODES, given["merged batches"])), rival=biased),
        NEGATIVE: Prediction(float(theory.batch_variance(1.0, lowest)), claim=over, rival=1.0),
        NEGATIVE_POPULATION: Prediction(float(theory.population_batch_variance(1.0, lowest, FEW)), claim=over),
    }
    for graph, correlation in given["correlation"].items():
        near = theory.batch_variance(1.0, correlation["together"])
        many = theory.merged_variance(1.0, correlation["mixed"], BALL // MIXED, MIXED)
        made[neighbouring(graph)] = Prediction(near, rival=1.0)
        made[mixed(graph)] = Prediction(float(many), rival=near)
    return made
