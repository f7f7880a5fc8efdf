"""What mixing pairs of samples does to covariances, to the curvature of a loss, and to a batch norm's memory."""

from __future__ import annotations

from normwise.studies.mixup_covariance.figures import figures, seen, sliders
from normwise.studies.mixup_covariance.measure import measure
from normwise.studies.mixup_covariance.predict import predict
from normwise.studies.study import Heading, Study

STUDY = Study(
    name="mixup-covariance",
    heading=Heading.AUGMENTATION,
    title="Mixup shrinks the covariance, and the steepest direction only of centred inputs",
    claim=(
        "“Specifically, the new covariance is (2 lambda² - 2 lambda + 1) Sigma. Since the Hessian of a simple "
        "quadratic loss function is proportional to the data covariance, Mixup effectively scales down the "
        "eigenvalues of the Hessian, which corresponds to smoothing the loss landscape. BN layers within the "
        "network will automatically adapt to this change, computing sample statistics that reflect the lower "
        "variance of the augmented data distribution.”"
    ),
    theory=(
        "The covariance does shrink by 2 lambda² - 2 lambda + 1, by (alpha + 1)/(2 alpha + 1) on average over Beta(alpha, alpha). "
        "The Hessian is the second moment f Sigma + mu mu^T: without centring its largest eigenvalue follows the mean and "
        "hardly moves. A first dense BN's running variance is f times the clean one; a convolutional one's is not, for its "
        "pooled variance holds that of the mean image, which mixing leaves alone. BN 'adapts' in training only: on clean data "
        "in evaluation its outputs vary 1/f times too much, until it is recalibrated: then, on those n values, by 1/(n/(n - 1) + "
        "eps/sigma²)."
    ),
    setting=(
        "Scikit-learn's 8 x 8 digits; small dense and convolutional networks trained with Mixup at alpha 1 on 1300 "
        "digits, 10 for 5 epochs (quick) or 30 for 20 (full), by Adam at 0.01, and no network without Mixup beside them: "
        "what it does for generalization was not measured."
    ),
    outcome=(
        "The covariance shrinks as the source says, and a dense BN's running variance with it, but the Hessian's largest "
        "eigenvalue stays unless inputs are centred, a convolutional BN's running variance shrinks less, and what BN adapts "
        "to are mixed data, so that clean ones come out too wide in evaluation."
    ),
    advice=(
        "After Mixup expect activations in evaluation on clean data to be wider than in training, recalibrate on clean data "
        "only where held-back clean data say so or fit the temperature of the logits afterwards (here recalibration raised "
        "the loss by making an unsure network less sure, and no longer did at the best temperature), and centre the inputs "
        "if Mixup is to scale down the Hessian's largest eigenvalue too."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=3,
)
