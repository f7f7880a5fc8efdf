"""Conditional batch norm: what it is, what it costs, and the digits it draws beside those of its alternatives."""

from normwise.studies.conditional_generation.figures import figures, seen, sliders
from normwise.studies.conditional_generation.measure import measure
from normwise.studies.conditional_generation.predict import predict
from normwise.studies.source import Heading
from normwise.studies.study import Study

STUDY = Study(
    name="conditional-generation",
    heading=Heading.ADVERSARIAL,
    title="Conditional batch norm in a generator",
    claim=(
        "“The generator learns to produce class-specific scaling and shifting parameters, which act as a "
        "feature-wise linear modulation on the shared, normalized activations. […] This parameter-efficient "
        "mechanism is a powerful way to inject conditioning information and is crucial for generating diverse, "
        "high-quality images for different classes”."
    ),
    theory=(
        "An identity: conditional BN multiplies a class's raw features by gamma_y/sigma and adds beta_y - gamma_y mu/sigma. "
        "Mu and sigma are all classes', so a class leaves with mean beta_y + gamma_y (mu_y - mu)/sigma, and moves when "
        "another class comes more often. K classes cost 2 C K parameters a layer; filters of their own cost K k² C², and at "
        "equal cost have C sqrt(1/K + 2/(k² C)) channels. Quality has no closed form: generators of equal size were trained "
        "by the energy distance in pixels, and judged by a classifier they never saw."
    ),
    setting=(
        "Scikit-learn's 8 x 8 digits; small generators trained without an adversary, by the energy distance to 1300 "
        "digits, 3 of each kind and size for 150 steps (quick) or 6 for 800 (full), judged against the other 497 by a "
        "classifier they never saw."
    ),
    outcome=(
        "Conditional BN is exactly a scale and a shift for each class, and costs few parameters, but was not seen to be "
        "crucial: of as many parameters, and trained without an adversary, generators that read labels beside the noise "
        "drew digits about as well."
    ),
    advice=(
        "Take conditional BN for what holds of it, a scale and a shift for each class at 2 C K parameters a "
        "layer, not as crucial for quality and diversity, which was not seen at this scale: hold it against "
        "labels beside the noise, which cost nearly nothing and whose distances overlap with its own, and draw in "
        "evaluation so that a batch's classes do not move each other."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    order=1,
    version=3,
)
