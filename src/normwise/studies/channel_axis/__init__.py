"""Statistics by channel or across channels: what correlation and unequal scales do to each, made and real."""

from __future__ import annotations

from normwise.studies.channel_axis.figures import figures, seen, sliders
from normwise.studies.channel_axis.measure import measure
from normwise.studies.channel_axis.predict import predict
from normwise.studies.study import Heading, Study

STUDY = Study(
    name="channel-axis",
    heading=Heading.CONVOLUTIONAL,
    title="Statistics by channel, or across channels",
    claim=(
        "“[…] per-channel BN is robust to varying correlation structures between feature maps, effectively "
        "treating each channel as a separate feature to be standardized. In contrast, an across-channel "
        "normalization would conflate the statistics of potentially distinct feature distributions, which could "
        "be detrimental if, for example, some channels represent low-variance texture features while others "
        "represent high-variance object-part activations.”"
    ),
    theory=(
        "A channel normalised by its own statistics has mean 0 and variance v/(v + eps) whatever the others do. Across C "
        "channels of variance sigma² and correlation rho the statistics see (1 - rho) sigma²; what channels have in common is "
        "subtracted (outputs become correlated by -1/(C - 1)), and a channel of large scale takes what its neighbours lose, the "
        "more the more they are correlated: the squared outputs of a position always sum to C. The exact expectation is an "
        "integral over Gaussian quadratic forms, for any covariance."
    ),
    setting=(
        "Gaussian maps of 8 x 8 positions and 8 channels; scikit-learn's 8 x 8 digits under random filters; convolutional "
        "networks of two layers on 1300 digits, tested on 497, 3 of them for 4 epochs (quick) or 8 for 12 (full), by Adam "
        "at 0.003."
    ),
    outcome=(
        "Per channel an output does not depend on other channels at all, and across channels a loud one takes variance "
        "from its neighbours, all the more where they are correlated, which cost a small network accuracy where one "
        "channel was noise, the more the louder it was."
    ),
    advice=(
        "Keep per-channel statistics where channels differ in scale, for across channels one that is ten times as "
        "large leaves its neighbours less than half of their variance, and a hundred times as large, if it is noise, it cost a "
        "small network much of its accuracy; where channels are alike expect little difference."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=3,
)
