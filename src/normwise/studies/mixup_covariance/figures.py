"""Pictures of the factor, of spectra, of what evaluation sees and of the loss; the slider; what is seen besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import told
from normwise.studies.mixup_covariance.measure import SHOWN
from normwise.studies.mixup_covariance.predict import ALPHA
from normwise.studies.study import Measurement
from normwise.theory import mixup as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the factor, the spectra and what evaluation sees, layer by layer."""
    shown, made = result.series, {}
    weight, index = np.linspace(0, 0.5, 60), np.arange(1, SHOWN + 1)
    covariance, mean = np.array(result.given["covariance"]), np.array(result.given["mean"])
    made["factor"], axes = style.figure(
        "Digits mixed in pairs vary less", "weight of the second digit", "total variance over that of digits"
    )
    style.curve(axes, weight, theory.covariance_factor(weight), "theory and\nthe source")
    style.points(axes, shown["factor"], "digits")
    made["spectrum"], axes = style.figure(
        "Uncentred, the steepest direction stays as steep",
        "eigenvalue of the Hessian, largest first",
        "eigenvalue of mixed digits over that of clean ones",
    )
    factor = theory.mean_covariance_factor(ALPHA)
    mixed, clean = (theory.hessian_spectrum(covariance, mean, f)[:SHOWN] for f in (factor, 1.0))
    style.curve(axes, index, np.full(SHOWN, factor), "the source:\nall alike", color=style.CLAIM, dashed=True)
    style.curve(axes, index, mixed / clean, "theory")
    style.points(axes, shown["spectrum"], "digits as\nthey are")
    style.points(axes, shown["spectrum, centred"], "centred", color=style.GREEN, hollow=True, aside=4.0)
    axes.set_xticks(index)
    eps = np.array(result.given["eps over the variance"])
    inflated = float(theory.eval_inflation(factor, eps).mean())
    made["evaluation"], axes = style.figure(
        "After Mixup clean digits come out too wide",
        "batch norm, from the input",
        "variance of its output on clean digits, in evaluation",
    )
    axes.set_xticks([1, 2, 3])
    style.curve(axes, [0.9, 1.3], [inflated] * 2, "theory of\nthe first")
    recalibrated = float(theory.recalibrated_variance(result.given["digits"]))
    style.curve(axes, [0.9, 3.1], [recalibrated] * 2, color=style.GREEN)
    style.points(axes, shown["variance, as trained"], "as trained")
    style.points(axes, shown["variance, recalibrated"], "recalibrated", color=style.GREEN)
    made["loss"], axes = style.figure(
        "After Mixup the loss is a matter of confidence", "", "loss on held-back clean digits, nats"
    )
    style.points(axes, shown["loss"], "as it is")
    style.points(axes, shown["best loss"], "at its best\ntemperature", color=style.GREEN, hollow=True)
    style.categories(axes, ("trained with\nMixup", "recalibrated on\nclean digits"))
    return made


def seen(result: Measurement) -> str:
    """Say what recalibration did to accuracy, loss and confidence."""
    said = {
        score: " and ".join(told(result.series[score], place) for place in (0, 1))
        for score in ("accuracy", "confidence", "loss", "best loss", "temperature")
    }
    return (
        f"Of the dense network as trained and after recalibration, on held-back clean digits: right on {said['accuracy']} of "
        f"them, loss {said['loss']} nats. Mixup leaves it less sure than right, as its mean largest probability says, "
        f"{said['confidence']}; activations that come out too wide had made up for a part of that, and recalibration takes it "
        f"back. Dividing the logits by the temperature that is best on these very digits, {said['temperature']}, the loss is "
        f"{said['best loss']} nats."
    )


def sliders(result: Measurement) -> list[Slider]:
    """Return the spectrum's ratio under any Beta(alpha, alpha)."""
    covariance, mean = np.array(result.given["covariance"]), np.array(result.given["mean"])
    clean = theory.hessian_spectrum(covariance, mean)[:SHOWN]

    def told(alpha: float) -> str:
        factor = theory.mean_covariance_factor(alpha)
        return f"alpha {alpha:g}: running variances are {factor:.2f} of the clean ones; evaluation inflates by {1 / factor:.2f}"

    return [
        Slider(
            parameter="alpha of Beta(alpha, alpha)",
            positions=[0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0],
            start=6,
            x=np.arange(1, SHOWN + 1),
            curves={
                "as they are": lambda _, a: (
                    theory.hessian_spectrum(covariance, mean, theory.mean_covariance_factor(a))[:SHOWN] / clean
                ),
                "centred": lambda _, a: theory.mean_covariance_factor(a),
            },
            colors={"centred": "vermillion"},
            dashed=("centred",),
            x_label="eigenvalue of the Hessian, largest first",
            y_label="mixed over clean",
            told=told,
        )
    ]
