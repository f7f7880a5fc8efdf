"""Growth of the gradient through residual blocks: pre- and post-activation, with and without BN, dense and convolutional."""

from __future__ import annotations

from normwise.studies.residual_growth.figures import figures, seen, sliders
from normwise.studies.residual_growth.measure import measure
from normwise.studies.residual_growth.predict import predict
from normwise.studies.study import Heading, Study
from normwise.theory import residual

STUDY = Study(
    name="residual-growth",
    heading=Heading.RESIDUAL,
    title="How gradients grow through residual blocks",
    claim=(
        "“[…] a simplified model might show the expected gradient norm being multiplied by a factor of 1.5 at "
        "each pre-activation block, leading to exponential growth in a deep network, whereas the factor for a "
        "post-activation block is exactly 1. While these theoretical models rely on strong idealizations and may "
        "not perfectly capture all dynamics of a real network, they powerfully illustrate that the interaction "
        "[…] is intricate and consequential.” Of vanishing and exploding gradients: “Batch Normalization directly "
        "addresses this by re-standardizing activations at each layer”."
    ),
    theory=(
        f"BN divides by the variance centred over the batch, which ReLU's mean is no part of: a branch adds v = 1/2 - 1/(2π) = "
        f"{residual.RELU_VARIANCE:.4f}, not 1/2. Then block l of a pre-activation net multiplies by 1 + (1/2) / (1 + v l), which "
        f"falls: growth is only a power of depth, L^{residual.POWER_OF_DEPTH:.3f}. A post-activation block multiplies by 1.5 / "
        f"(1 + v) = {residual.post_activation_factor():.4f}: growth is exponential. The layouts cross at depth "
        f"{residual.crossing_depth()} where the weights have gain 1, as here, and at {residual.crossing_depth(gain=2.0)} with "
        f"He's gain 2. Without the skip, BN makes gradients explode by π / (π - 1) = {residual.PLAIN_FACTOR:.3f} a layer, by a "
        "little less in the later layers of a finite net, where the norms of samples have drifted apart. All this is at "
        "initialization, for independent inputs; digits deviate in the first blocks, and training moves every block."
    ),
    setting=(
        "Random nets: dense ones with Gaussian inputs, width 384 and 768 samples at quick, 768 and 1536 at full, "
        "convolutional ones of 32 and 64 channels; 16 blocks that learn scikit-learn's 8 x 8 digits by 30 (quick) or 80 "
        "(full) steps of Adam at 0.001. Factors are of the squared norm."
    ),
    outcome=(
        "The factor of 1.5 holds for the first pre-activation block only, later ones fall towards 1 and growth is a power of "
        f"depth, whereas a post-activation block's factor is {residual.post_activation_factor():.4f} and not 1, so that it is "
        "post-activation that explodes in a deep net; the source's numbers return where each block stands alone and BN divides "
        "by the second moment."
    ),
    advice=(
        "Where a net is to be deeper than about 20 to 30 blocks, by the gain of its weights, prefer pre-activation order "
        "for the gradients at initialisation, expect the squared norm to grow by about 1.47 a layer where BN and ReLU are "
        "stacked without a skip, and in a trained net measure gradient norms block by block, for the nets here had left "
        "these laws after a short training."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
