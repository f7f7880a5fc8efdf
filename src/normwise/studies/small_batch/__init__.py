"""How wrong the statistics of small batches are: independent values, clusters, real images, running averages."""

from __future__ import annotations

from normwise.studies.small_batch.figures import figures, seen, sliders
from normwise.studies.small_batch.measure import measure
from normwise.studies.small_batch.predict import predict
from normwise.studies.study import Heading, Study

STUDY = Study(
    name="small-batch",
    heading=Heading.TRANSFER,
    title="How noisy the statistics of small batches are",
    claim=(
        "“If a pre-trained model is fine-tuned on a small target dataset, updating the BN layers with small "
        "mini-batches yields noisy and unreliable statistics, which can destabilize training.”"
    ),
    theory=(
        "A mean of m independent values errs by 1/√m standard deviations, a variance by √(2/(m - 1) + kappa/m) of itself, "
        "kappa the excess kurtosis. Of n values in clusters of L, correlated by rho inside, a mean is worth n/(1 + (L - 1) rho) "
        "values and a variance, if Gaussian, about n/(1 + (L - 1) rho²): positions of an image say much more about the variance "
        "than about the mean; of images as they come, four moments of each image's mean and mean square say it exactly. A "
        "correlation that the whole batch shares does not make the variance noisier at all. A running average of momentum a "
        "still holds (1 - a)^k of its initial value after k updates, and is never better than (2 - a)/a batches."
    ),
    setting=(
        "Gaussian values, scikit-learn's 8 x 8 digits and their features under a random convolution with ReLU, patches of "
        "8 x 8 pixels of its two photographs, and torch's own layer for the running averages."
    ),
    outcome=(
        "Batches are noisy, by the thresholds of rule NW203, where they hold few independent values, below 16 for a mean and "
        "below 9 for a variance of Gaussian ones, and one image holds more than that where its positions differ, several images "
        "fewer where their positions resemble each other; that such noise destabilises training was not measured here."
    ),
    advice=(
        "Count independent values, which are images where an image's positions resemble each other, as in the photographs "
        "here, and positions where they do not, as in the digits' features; with fewer than 16, whose mean errs by more than "
        "a quarter of a standard deviation and from which rule NW203 warns, consider freezing the statistics or "
        "recalibrating them exactly after training, and do not read a running average before 30 updates at momentum 0.1."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=4,
)
