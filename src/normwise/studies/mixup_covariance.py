"""What mixing pairs of samples does to covariances, to the curvature of a loss, and to a batch norm's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, dots, series, told
from normwise.studies.mixup_nets import beta, trained
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import mixup as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the second image
_WEIGHT, _ALPHA = 0.3, 1.0
_SHOWN = 10
_REPLICATES = {"tiny": 6, "quick": 10, "full": 30}
_DRAWS = {"tiny": 40, "quick": 40, "full": 80}  # times that the data are paired anew
_FACTOR = f"covariance of digits mixed {1 - _WEIGHT:g} : {_WEIGHT:g}, over that of digits"
_MEAN_FACTOR = f"covariance under Beta({_ALPHA:g}, {_ALPHA:g})"
_TOP = "largest eigenvalue of the Hessian, over that on clean digits"
_SECOND = "second eigenvalue of the Hessian, over that on clean digits"
_DENSE, _CONVOLUTIONAL = (
    f"running_var of the first BN, {kind}, over the clean variance" for kind in ("dense", "convolutional")
)
_RUNNING = {"running, dense": _DENSE, "running, convolutional": _CONVOLUTIONAL}
_INFLATED = "variance of the first BN's output on clean digits, in evaluation"
_RECALIBRATED = "the same after recalibration on clean digits"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return how much less everything varies; the source scales all eigenvalues alike."""
    factor = theory.mean_covariance_factor(_ALPHA)
    covariance, mean, still = np.array(given["covariance"]), np.array(given["mean"]), given["share of the mean image"]
    mixed, clean = (theory.hessian_spectrum(covariance, mean, f) for f in (factor, 1.0))
    return {
        _FACTOR: Prediction(theory.covariance_factor(_WEIGHT), claim=theory.covariance_factor(_WEIGHT), rival=1.0),
        _MEAN_FACTOR: Prediction(factor, claim=factor, rival=theory.covariance_factor(0.5)),
        _TOP: Prediction(float(mixed[0] / clean[0]), claim=factor),
        _SECOND: Prediction(float(mixed[1] / clean[1]), claim=factor, rival=1.0),
        _DENSE: Prediction(factor, claim=factor, rival=1.0),
        _CONVOLUTIONAL: Prediction(factor * (1 - still) + still, claim=factor),
        _INFLATED: Prediction(theory.eval_inflation(factor), rival=1.0),
        _RECALIBRATED: Prediction(
            1.0,
            rival=theory.eval_inflation(factor),
            finite_size=0.002,
            reason="Bessel's correction of 1300 digits, and eps",
        ),
    }


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Mix digits, look at covariances and spectra; train small nets on mixed digits and evaluate them on clean ones."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits()
    pixels = images.flatten(1).double()
    mean = pixels.mean(0)
    covariance = (pixels - mean).T @ (pixels - mean) / len(pixels)
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        for _ in tracked(range(_REPLICATES[size]), progress):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            learnt = trained(images, labels, size, generator)
            learnt |= {new: learnt.pop(name) for name, new in _RUNNING.items()}
            learnt |= {_INFLATED: learnt["variance"][0], _RECALIBRATED: learnt["variance, recalibrated"][0]}
            for name, value in {**_covariances(pixels, _DRAWS[size], generator), **learnt}.items():
                found.setdefault(name, []).append(value)
    estimates = {name: Estimate.of(found.pop(name)) for name in list(found) if np.ndim(found[name]) == 1}
    centred = {_TOP: "top, centred", _SECOND: "second, centred"}
    idealised = {name: estimates.pop(other) for name, other in centred.items()}
    still = estimates.pop("share of the mean image").value
    scores = {
        score: dots((0, 1), [estimates.pop(score), estimates.pop(f"{score}, recalibrated")])
        for score in ("accuracy", "loss")
    }
    shown = {
        "factor": series(_WEIGHTS, found["factor"]),
        "spectrum": series(range(1, _SHOWN + 1), found["spectrum"]),
        "spectrum, centred": series(range(1, _SHOWN + 1), found["spectrum, centred"]),
        "variance": series((1, 2, 3), found["variance"]),
        "variance, recalibrated": series((1, 2, 3), found["variance, recalibrated"]),
        **scores,
    }
    given = {"covariance": covariance.tolist(), "mean": mean.tolist(), "share of the mean image": still}
    return Measurement(estimates, given, shown, idealised)


def _mix(x: Tensor, weight: Tensor | float, generator: torch.Generator) -> Tensor:
    """Mix each sample with another one, drawn from all with replacement."""
    other = x[torch.randint(len(x), (len(x),), generator=generator)]
    return x + (other - x) * weight


def _covariances(pixels: Tensor, draws: int, generator: torch.Generator) -> dict[str, Any]:
    """Return ratios, mixed over clean, of the total variance and of the eigenvalues of second moments."""
    deviations = pixels - pixels.mean(0)
    total = deviations.square().sum(1).mean()
    factor = [float(_mix(deviations, w, generator).square().sum(1).mean() / total) for w in _WEIGHTS]
    repeated = [
        _mix(deviations, beta(len(pixels), generator).unsqueeze(1), generator).square().sum(1).mean() / total
        for _ in range(draws)
    ]
    at_weight = [_mix(deviations, _WEIGHT, generator).square().sum(1).mean() / total for _ in range(draws)]
    ratios = {}
    for name, x in (("spectrum", pixels), ("spectrum, centred", deviations)):
        mixed = torch.cat([_mix(x, beta(len(x), generator).unsqueeze(1), generator) for _ in range(draws)])
        ratios[name] = (_spectrum(mixed) / _spectrum(x))[:_SHOWN].tolist()
    (top, second), (top_centred, second_centred) = ratios["spectrum"][:2], ratios["spectrum, centred"][:2]
    return {
        _FACTOR: float(torch.stack(at_weight).mean()),
        _MEAN_FACTOR: float(torch.stack(repeated).mean()),
        _TOP: top, _SECOND: second, "top, centred": top_centred, "second, centred": second_centred,
        "factor": factor, **ratios,
    }  # fmt: skip


def _spectrum(x: Tensor) -> Tensor:
    """Return the eigenvalues of the Hessian of a least-squares loss, largest first."""
    return torch.linalg.eigvalsh(x.T @ x / len(x)).flip(0)


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the factor, the spectra and what evaluation sees, layer by layer."""
    shown, made = result.series, {}
    weight, index = np.linspace(0, 0.5, 60), np.arange(1, _SHOWN + 1)
    covariance, mean = np.array(result.given["covariance"]), np.array(result.given["mean"])
    made["factor"], axes = style.figure(
        "Mixed digits vary less", "weight of the second digit", "total variance over that of digits"
    )
    style.curve(axes, weight, theory.covariance_factor(weight), "theory and\nthe source")
    style.points(axes, shown["factor"], "digits")
    made["spectrum"], axes = style.figure(
        "But the loss's steepest direction stays", "eigenvalue of the Hessian, largest first", "mixed over clean"
    )
    factor = theory.mean_covariance_factor(_ALPHA)
    mixed, clean = (theory.hessian_spectrum(covariance, mean, f)[:_SHOWN] for f in (factor, 1.0))
    style.curve(axes, index, np.full(_SHOWN, factor), "the source", color=style.CLAIM, dashed=True)
    style.curve(axes, index, mixed / clean, "theory")
    style.points(axes, shown["spectrum"], "digits as\nthey are")
    style.points(axes, shown["spectrum, centred"], "centred", color=style.GREEN, hollow=True)
    made["evaluation"], axes = style.figure(
        "Evaluation on clean digits is inflated",
        "batch norm, from the input",
        "variance of what it gives in evaluation",
    )
    axes.set_xticks([1, 2, 3])
    style.curve(axes, [1, 3], [theory.eval_inflation(factor)] * 2, "theory of\nthe first", dashed=False)
    style.points(axes, shown["variance"], "trained with\nMixup")
    style.points(axes, shown["variance, recalibrated"], "recalibrated", color=style.GREEN)
    made["loss"], axes = style.figure("What recalibration does to the loss", "", "loss on held-back clean digits, nats")
    style.points(axes, shown["loss"])
    style.categories(axes, ("trained with\nMixup", "recalibrated on\nclean digits"))
    return made


def seen(result: Measurement) -> str:
    """Say what recalibration did."""
    accuracy, loss = ([told(result.series[score], place) for place in (0, 1)] for score in ("accuracy", "loss"))
    return (
        f"On held-back clean digits the dense network was right on {accuracy[0]} as trained and on {accuracy[1]} after "
        f"recalibration; its loss was {loss[0]} and {loss[1]} nats."
    )


def sliders(result: Measurement) -> list[Slider]:
    """Return the spectrum's ratio under any Beta(alpha, alpha)."""
    covariance, mean = np.array(result.given["covariance"]), np.array(result.given["mean"])
    clean = theory.hessian_spectrum(covariance, mean)[:_SHOWN]

    def told(alpha: float) -> str:
        factor = theory.mean_covariance_factor(alpha)
        return f"alpha {alpha:g}: running variances are {factor:.2f} of the clean ones; evaluation inflates by {1 / factor:.2f}"

    return [
        Slider(
            parameter="alpha of Beta(alpha, alpha)",
            positions=[0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0],
            start=6,
            x=np.arange(1, _SHOWN + 1),
            curves={
                "as they are": lambda _, a: (
                    theory.hessian_spectrum(covariance, mean, theory.mean_covariance_factor(a))[:_SHOWN] / clean
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


STUDY = Study(
    name="mixup-covariance",
    heading=Heading.AUGMENTATION,
    title="Mixup shrinks the covariance, not the steepest direction",
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
        "in evaluation its outputs vary 1/f times too much, until it is recalibrated."
    ),
    outcome="To be said.",
    advice=(
        "After Mixup expect activations in evaluation on clean data to be wider than in training, recalibrate on "
        "clean data only where loss and accuracy on held-back clean data say so (here the loss rose by it, and "
        "accuracy did not change measurably), and centre the inputs if Mixup is to scale down the Hessian's "
        "largest eigenvalue too."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
