"""The future in pooled statistics: how far one input reaches back, what a model learns from it, and norms by batch size."""

from __future__ import annotations

from normwise.studies.causality.figures import figures, seen, sliders
from normwise.studies.causality.measure import measure
from normwise.studies.causality.predict import predict
from normwise.studies.study import Heading, Study

STUDY = Study(
    name="causality",
    heading=Heading.SEQUENCES,
    title="What pooled statistics tell of the future",
    claim=(
        "“In autoregressive tasks like language modeling, where a model must predict the next token based only on "
        "past tokens, the pooling of statistics across time in BN would violate causality by allowing information "
        "from the future to leak into the representation of the past. LN, by normalizing each token's "
        "representation independently, respects this causal structure. Furthermore, its immunity to batch size "
        "makes it more stable for the diverse batch sizes often used in training large language models. While BN "
        "has found some use in non-autoregressive, large-batch Transformer applications (e.g., in vision), LN's "
        "properties make it a more natural and robust fit”."
    ),
    theory=(
        "An output's derivative by any other input among the N = nT values of a channel is -(1 + y_i y_j)/(N sigma): in root "
        "mean square √2/N, whether the input lies before or after, near or far. What a model can make of it is finite too: "
        "a batch's mean tells how many tokens of each kind are left, worth about 1/(2N) nats on tosses of a fair coin, of "
        "which nothing can be known. In evaluation that knowledge is gone and the habit stays: such a model believes that a "
        "repetition is rarer than it is, which costs about 1/(2N²) nats, and every output is √(3/2N) away from where its "
        "batch had put it. Layer norm, time-wise statistics and evaluation give exactly 0 of the future; but time-wise "
        "statistics tie the sequences of a batch nearly T times as firmly. Where nothing is to be foretold, as in vision, there is "
        "nothing to leak."
    ),
    setting=(
        "Gaussian tokens; tosses of a coin, all batches counted; a small transformer on the text that comes with Python, "
        "32 characters a sequence, and a small vision transformer on scikit-learn's 8 x 8 digits, 3 of each norm and "
        "batch size (quick) or 5 (full), all shown equally much data."
    ),
    outcome=(
        "Pooled statistics do carry the future back, by about √2/N an input in root mean square and by about 1/(2N) nats a token "
        "on tosses of a coin, and layer norm's outputs know neither the future nor the batch; in a model of text they told most "
        "where a single sequence was a batch and next to nothing in larger ones, and in a small vision transformer batch norm "
        "was at no batch size measurably the worse one."
    ),
    advice=(
        "Where a model must not see the future use layer norm, or measure the loss in evaluation, where batch norm lost "
        "much with a single sequence a batch; where nothing is to be foretold batch norm remains a choice, and layer "
        "norm's immunity is one of its outputs: its training still needs its rate and number of steps chosen for the size "
        "of the batch."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    order=1,
    version=5,
)
