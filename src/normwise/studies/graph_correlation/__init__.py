"""Correlated nodes in one batch: what training, running averages and exact merging see; then real graphs."""

from __future__ import annotations

from normwise.studies.graph_correlation.figures import figures, seen, sliders
from normwise.studies.graph_correlation.measure import lacks, measure
from normwise.studies.graph_correlation.predict import predict
from normwise.studies.study import Heading, Study

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
        "population variance, which training divides by, never overestimates on average. Merging batches exactly, the "
        "variance between them included, recovers sigma²: rho is invisible inside a batch and visible across batches. A batch "
        "mixed of k neighbourhoods of n nodes has only the correlation rho (n - 1)/(kn - 1)."
    ),
    setting=(
        "Gaussian nodes with one correlation; Cora's 2708 papers and scikit-learn's digits each joined to its nearest, "
        "smoothed over neighbours: graph networks that know the labels of 20 nodes a class, 3 to 4 of each norm (quick) "
        "or 5 to 6 (full), by Adam at 0.03."
    ),
    outcome=(
        "The batch variance does shrink as 1 - rho, but it is evaluation that explodes and not training; under negative "
        "correlation the variance that training divides by is on average at most the true one, and only the one kept for "
        "evaluation overestimates, by at most m/(m - 1); and what batches of one neighbourhood cost in accuracy is not "
        "the running variance's doing, for correcting it did not give it back."
    ),
    advice=(
        "Mix several small neighbourhoods in a batch of nodes, or normalise single nodes with GraphLayerNorm: on one "
        "neighbourhood a batch, batch norm lost much accuracy on Cora and on digits, which neither GraphBatchNorm nor "
        "recalibration gave back, though both restore the running variance that an average of batch variances lacks; and "
        "with a whole graph in one batch try no norm first, which was not beaten here."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    lacks=lacks,
    version=4,
)
