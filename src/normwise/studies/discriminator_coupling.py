"""Reals and fakes in one batch: how a discriminator's norm couples them, and what comes of it in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import BatchNorm, DomainBatchNorm
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies import gans
from normwise.studies.data import digits
from normwise.studies.digit_scores import TRAINED, DigitScores, covered, frechet, train_scores
from normwise.studies.study import Estimate, Heading, Measurement, Prediction, Progress, Study, series, tracked
from normwise.theory import adversarial as theory
from normwise.theory.mixture import MeanVariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANNELS, _HALF, _SOME = 16, 64, 8  # features; reals, and as many fakes, of a batch; of one for a whole Jacobian
_MANY = 4  # times as many of both where fakes are drawn anew: theory is of first order in their number
_MOVES = (0.0, 0.5, 1.0, 2.0, 4.0)
_CONTRASTS = (1.0, 0.5, 0.25, 0.125)
_FADED = 0.25
_DRAWS = {"tiny": 350, "quick": 400, "full": 2000}  # of fakes, in each replicate
_REPLICATES = {"tiny": 12, "quick": 8, "full": 20}
_GANS = {"tiny": 3, "quick": 3, "full": 6}
_STEPS = {"tiny": 10, "quick": 300, "full": 2000}
_LOOK = np.arange(1, 11) / 10  # of the steps, when samples are looked at
_SAMPLES, _SHOWN = 500, 20  # how many, and how many of them are shown
_SERIES = 2  # dimensions of replicates over something
_ROUNDING = 1e-9
_SHIFT = "linear discriminator: shift of real logits, root mean square, when the fakes are swapped"
_SEPARATE = f"{_SHIFT}; normalised apart"
_FRESH = "linear discriminator: variance of real logits' shift when fakes like them are drawn anew"
_THROUGH = "linear discriminator: fakes' gradient through statistics, over the direct one"
_THROUGH_ALONE = f"{_THROUGH}; normalised apart"
_STEEPEST = "Lipschitz constant of a batch norm over its batch"
_SPECTRAL = "Lipschitz constant of a layer under spectral norm"
_FADING = f"discriminator of digits, joint BN: Lipschitz constant at contrast {_FADED:g}, over that at 1"
_COUPLED = "discriminator of digits: shift of real logits over their spread"
_UNCOUPLED = {kind: f"{_COUPLED}, {kind}" for kind in gans.KINDS if kind != "joint BN"}
_COLORS = {
    "joint BN": style.VERMILLION, "separate BN": style.PURPLE, "LayerNorm": style.GREEN, "spectral norm": style.BLUE,
}  # fmt: skip


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return shifts, gradients and Lipschitz constants; each is told apart from what another norm does."""
    real, fake, other, weight = (np.array(given[name]) for name in ("real", "fake", "other", "weight"))
    reals, fakes, others = (_moments(x) for x in (real, fake, other))
    shift, alone = (
        _size(theory.logit_shift(real, weight, reals, fakes, others, share=share, eps=given["eps"]))
        for share in (0.5, 1.0)
    )
    batch = 2 * _MANY * _HALF
    joint = theory.joint_moments(reals, fakes)
    fresh = float((theory.fresh_fakes_variance(real, reals, reals, batch) @ weight**2).mean())
    by_mean = float((weight**2).sum()) / batch  # as if only the mean moved
    through, through_alone = (
        theory.gradient_through_statistics(weight, reals, fakes, share=share, eps=given["eps"]) for share in (0.5, 0.0)
    )
    steepest = float(np.max(theory.film_coefficients(1.0, 0.0, joint, given["eps"])[0]))
    faded = MeanVariance(_FADED * joint.mean, _FADED**2 * joint.variance)
    steeper = theory.film_coefficients(1.0, 0.0, faded)[0] / theory.film_coefficients(1.0, 0.0, joint)[0]
    exact = {"finite_size": _ROUNDING, "reason": "rounding of float64"}
    return {
        _SHIFT: Prediction(shift, rival=0.0, **exact),
        _SEPARATE: Prediction(alone, claim=0.0, rival=shift),
        _FRESH: Prediction(
            fresh, rival=by_mean, finite_size=10 * fresh / batch, reason="second order in one over the batch"
        ),
        _THROUGH: Prediction(through, rival=0.5, **exact),
        _THROUGH_ALONE: Prediction(through_alone, rival=through, **exact),
        _STEEPEST: Prediction(steepest, rival=1.0, **exact),
        _SPECTRAL: Prediction(
            1.0, claim=1.0, rival=given["norm of raw weights"], finite_size=1e-3, reason="power iterations left out"
        ),
        _FADING: Prediction(float(np.mean(steeper)), rival=1.0, finite_size=0.05, reason="eps beside faded variances"),
        **{name: Prediction(0.0, claim=0.0, rival=given["shift in a joint batch"]) for name in _UNCOUPLED.values()},
    }


def _moments(x: np.ndarray) -> MeanVariance:
    return MeanVariance(x.mean(0), x.var(0))


def _size(values: Any) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Swap fakes, follow gradients and look at Jacobians, in one layer and in whole discriminators; then let them play."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(seed=seed)
    pixels = images.flatten(1)
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = _linear(pixels, size, generator)
        scores = train_scores(images, labels, epochs=1 if size == "tiny" else 6, generator=generator)
        untrained = [kind for kind in gans.KINDS for _ in range(_REPLICATES[size])]
        for kind in tracked(untrained, lambda share: progress(0.2 * share)):
            _collect(found, kind, _at_start(gans.KINDS[kind], pixels, generator))
        games = [kind for kind in gans.KINDS for _ in range(_GANS[size])]
        for kind in tracked(games, lambda share: progress(0.2 + 0.8 * share)):
            _collect(found, kind, _played(gans.KINDS[kind], images, scores, _STEPS[size], generator))
    lipschitz = np.array(found["joint BN, lipschitz"])
    estimates = {
        **linear.estimates,
        _SPECTRAL: Estimate.of(found["spectral norm, layer"]),
        _FADING: Estimate.of(lipschitz[:, _CONTRASTS.index(_FADED)] / lipschitz[:, 0]),
        **{name: Estimate.of(found[f"{kind}, shift"]) for kind, name in _UNCOUPLED.items()},
    }
    given = {
        **linear.given,
        "norm of raw weights": float(np.mean(found["joint BN, layer"])),
        "shift in a joint batch": float(np.mean(found["joint BN, shift"])),
    }
    across = {"distance": _LOOK * _STEPS[size], "covered": _LOOK * _STEPS[size], "lipschitz": _CONTRASTS}
    shown: dict[str, Any] = {
        name: series(across[what], samples) if (what := name.split(", ")[1]) in across else vars(Estimate.of(samples))
        for name, samples in found.items()
        if np.ndim(samples) <= _SERIES
    }
    pictures = {kind: found[f"{kind}, pictures"][0] for kind in gans.KINDS}
    pictures["real digits"] = _pictures(pixels[:_SHOWN])
    real = {"real digits": frechet(scores.features(images[TRAINED:]), scores.features(images[:TRAINED]))}
    return Measurement(estimates, given, {**linear.series, **shown, "pictures": pictures, "distance": real})


def _collect(found: dict[str, list[Any]], kind: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        found.setdefault(f"{kind}, {name}", []).append(value)


def _some(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return pixels[torch.randint(len(pixels), (count,), generator=generator)]


def _fakes(count: int, generator: torch.Generator) -> Tensor:
    """Return images of a generator that has not learnt anything yet."""
    return gans.generator_net()(torch.randn(count, gans.LATENT, generator=generator)).detach()


def _shift(model: nn.Module, real: Tensor, fake: Tensor, other: Tensor) -> Tensor:
    """Return by how much real logits move when the fakes are replaced by others."""
    with torch.no_grad():
        return gans.judge(model, real, other)[0] - gans.judge(model, real, fake)[0]


def _linear(pixels: Tensor, size: str, generator: torch.Generator) -> Measurement:
    """Measure a discriminator that is linear in batch-normalised features of digits."""
    filters = torch.randn(gans.PIXELS, _CHANNELS, generator=generator)
    noise = torch.rand(_HALF, gans.PIXELS, generator=generator)
    batches = (_some(pixels, _HALF, generator), noise, _fakes(_HALF, generator))
    real, fake, other = ((x @ filters).double() for x in batches)
    last = nn.Linear(_CHANNELS, 1, dtype=torch.float64)
    norm = BatchNorm(_CHANNELS, dtype=torch.float64)
    models = {
        "joint": nn.Sequential(norm, last),
        "separate": nn.Sequential(DomainBatchNorm(_CHANNELS, num_domains=2, dtype=torch.float64), last),
    }
    exact = {
        _SHIFT: _size(_shift(models["joint"], real, fake, other)),
        _SEPARATE: _size(_shift(models["separate"], real, fake, other)),
        _THROUGH: gans.through_statistics(models["joint"], real, fake, torch.mean),
        _THROUGH_ALONE: gans.through_statistics(models["separate"], real, fake, torch.mean),
        _STEEPEST: _steepest(norm, torch.cat([real, fake])),
    }
    estimates = {name: Estimate(value, 0.0) for name, value in exact.items()}
    fresh = [_drawn_anew(models["joint"], real, _DRAWS[size], generator) for _ in range(_REPLICATES[size])]
    moved = [fake + move * real.std(0, unbiased=False) for move in _MOVES]
    shown = {
        name: {
            "x": list(_MOVES),
            "y": [_size(_shift(model, real, fake, x)) for x in moved],
            "error": [0.0 for _ in _MOVES],
        }
        for name, model in models.items()
    }
    tensors = {"real": real, "fake": fake, "other": other, "weight": last.weight.detach()[0]}
    given = {name: x.tolist() for name, x in tensors.items()} | {"eps": norm.eps}
    return Measurement({**estimates, _FRESH: Estimate.of(fresh)}, given, shown)


def _drawn_anew(model: nn.Module, real: Tensor, draws: int, generator: torch.Generator) -> float:
    """Return the variance of real logits' shift when Gaussian fakes of the reals' moments are drawn anew."""
    mean, deviation = real.mean(0), real.std(0, unbiased=False)
    many, shape = real.repeat(_MANY, 1), (_MANY * _HALF, _CHANNELS)
    squares = []
    for _ in range(draws):
        before, after = (
            mean + deviation * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
        )
        squares.append(float(_shift(model, many, before, after).square().mean()))
    return float(np.mean(squares))


def _steepest(norm: nn.Module, batch: Tensor) -> float:
    """Return the largest singular value of a norm's Jacobian over its batch; channels do not meet in it."""
    batch = batch.clone().requires_grad_()
    rows = [torch.autograd.grad(row.sum(), batch, retain_graph=True)[0] for row in norm(batch)]
    return float(torch.linalg.matrix_norm(torch.stack(rows).permute(2, 0, 1), 2).max())


def _at_start(kind: gans.Kind, pixels: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Look at a discriminator with random weights."""
    model, real, fake = gans.discriminator(kind), _some(pixels, _HALF, generator), _fakes(_HALF, generator)
    gans.hold_weights(model)
    few = real[:_SOME], fake[:_SOME]
    return {
        **_looked_at(model, real, fake, _some(pixels, _HALF, generator)),
        "layer": float(torch.linalg.matrix_norm(_weight(model[0]), 2)),
        "lipschitz": [gans.lipschitz(model, *(contrast * x for x in few)) for contrast in _CONTRASTS],
    }


def _weight(linear: Any) -> Tensor:
    return linear.weight.detach()


def _looked_at(model: nn.Module, real: Tensor, fake: Tensor, better: Tensor) -> dict[str, float]:
    """Return how real logits move when digits take the fakes' place, and the generator's gradient through statistics."""
    with torch.no_grad():
        spread = gans.judge(model, real, fake)[0].std()
    return {
        "shift": _size(_shift(model, real, fake, better) / spread),
        "through": gans.through_statistics(model, real, fake, gans.generator_loss),
    }


def _played(
    kind: gans.Kind, images: Tensor, scores: DigitScores, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """Train both players, and look at the same samples again and again."""
    pixels, real_features = images.flatten(1), scores.features(images)
    noise = torch.randn(_SAMPLES, gans.LATENT, generator=generator)
    found: dict[str, list[Any]] = {"distance": [], "covered": [], "classes": []}
    game, made = gans.Game(kind), images
    for _ in _LOOK:
        game.play(pixels, steps=steps // len(_LOOK), batch=_HALF // 2, noise=generator)
        made = game.images(noise)
        found["distance"].append(frechet(scores.features(made), real_features))
        found["covered"].append(covered(scores.shares(made)))
        found["classes"].append(scores.classes(made))
    gans.hold_weights(game.discriminator)
    chosen = made.flatten(1)[:_HALF]
    after = _looked_at(game.discriminator, _some(pixels, _HALF, generator), chosen, _some(pixels, _HALF, generator))
    late = torch.stack(found.pop("classes")[len(_LOOK) // 2 :])
    return {
        **found,
        **{f"{name} after": value for name, value in after.items()},
        "turned": float((late[1:] != late[:-1]).double().mean()),
        "loss": float(np.std(game.losses[steps // 2 :])),
        "pictures": _pictures(chosen[:_SHOWN]),
    }


def _pictures(pixels: Tensor) -> list[Any]:
    """Return images for a gallery, in two rows."""
    return pixels.view(2, -1, 8, 8).mul(100).round().div(100).tolist()


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw samples, the coupling, the gradient's ways, steepness, and how each discriminator's generator fares."""
    shown, made = result.series, {}
    given = {name: np.array(result.given[name]) for name in ("real", "fake", "weight")}
    made["samples"] = style.gallery("What each discriminator teaches", shown["pictures"])
    moves = np.linspace(0, _MOVES[-1], 60)
    made["shift"], axes = style.figure(
        "Moving the fakes moves the reals", "fakes move by standard deviations of the reals", "shift of real logits"
    )
    for name, share, color in (("joint", 0.5, style.VERMILLION), ("separate", 1.0, style.PURPLE)):
        style.curve(axes, moves, [_moved(given, move, share) for move in moves], color=color)
        label = "joint BN" if name == "joint" else "separate BN,\nLayerNorm,\nspectral norm"
        style.points(axes, shown[name], label, color=color)
    made["gradient"] = _by_kind(
        shown, "through", "Gradient through the statistics", "over the direct one; ● at init, ○ trained"
    )
    made["coupling"] = _by_kind(
        shown,
        "shift",
        "Coupling in a whole discriminator",
        "shift of real logits over their spread; ● at init, ○ trained",
    )
    made["lipschitz"], axes = style.figure(
        "Steepness as images fade", "contrast of the images", "Lipschitz constant of the batch's logits", log="xy"
    )
    contrasts = np.geomspace(_CONTRASTS[-1], 1, 30)
    for kind in ("joint BN", "separate BN"):
        style.curve(axes, contrasts, shown[f"{kind}, lipschitz"]["y"][0] / contrasts, color=_COLORS[kind])
    style.curve(axes, contrasts, np.ones(30), "its bound", color=_COLORS["spectral norm"])
    for kind, color in _COLORS.items():
        style.points(axes, shown[f"{kind}, lipschitz"], kind, color=color)
    axes.invert_xaxis()
    for name, title, y in (
        ("distance", "Which generator comes close", "Fréchet distance to digits, classifier's features"),
        ("covered", "Which digits it draws", "classes covered, of ten"),
    ):
        made[name], axes = style.figure(title, "step", y, log="y" if name == "distance" else "")
        for kind, color in _COLORS.items():
            drawn = shown[f"{kind}, {name}"]
            axes.plot(drawn["x"], drawn["y"], color=color, linewidth=1)
            style.points(axes, drawn, kind, color=color)
    made["oscillation"] = _by_kind(
        shown, "turned", "Who oscillates", "share of samples whose class turns between looks"
    )
    return made


def _moved(given: Mapping[str, np.ndarray], move: float, share: float) -> float:
    """Return the shift of real logits, root mean square, when the fakes' mean moves."""
    real, fake = _moments(given["real"]), _moments(given["fake"])
    other = MeanVariance(fake.mean + move * real.variance**0.5, fake.variance)
    return _size(theory.logit_shift(given["real"], given["weight"], real, fake, other, share=share))


def _by_kind(shown: Mapping[str, Any], name: str, title: str, y: str) -> Figure:
    """Draw one number a kind, before training and after it where there are both."""
    made, axes = style.figure(title, "", y)
    for place, (kind, color) in enumerate(_COLORS.items()):
        for suffix, offset in (("", -0.08), (" after", 0.08)):
            if (one := shown.get(f"{kind}, {name}{suffix}")) is not None:
                drawn = {"x": [place + offset], "y": [one["value"]], "error": [one["error"]]}
                style.points(axes, drawn, color=color, hollow=bool(suffix))
    style.categories(axes, [kind.replace(" ", "\n") for kind in _COLORS])
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    return made


def sliders(result: Measurement) -> list[Slider]:
    """Return the shift of real logits over the fakes' move, by the share of reals in the batch."""
    given = {name: np.array(result.given[name]) for name in ("real", "fake", "weight")}
    return [
        Slider(
            parameter="share of reals in the batch (1: separate batches)",
            positions=[0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0],
            start=2,
            x=np.linspace(0, _MOVES[-1], 41),
            curves={"shift": lambda x, share: [_moved(given, move, share) for move in x]},
            x_label="fakes move by standard deviations of the reals",
            y_label="shift of real logits, theory",
            told=lambda share: (
                f"{share:.0%} reals: fakes one standard deviation away move a real logit by {_moved(given, 1.0, share):.2f}"
            ),
        )
    ]


STUDY = Study(
    name="discriminator-coupling",
    heading=Heading.ADVERSARIAL,
    title="Reals and fakes in one batch",
    claim=(
        "“The normalization of a real image's features becomes dependent on the fake images in the same batch, and vice "
        "versa. This can lead to oscillatory, unstable training”, which led to “Layer Normalization or Spectral "
        "Normalization, which either remove the inter-sample dependence or control the discriminator's Lipschitz constant”."
    ),
    theory=(
        "The coupling is exact: joint statistics are those of a mixture, so real logits move by "
        "sum w ((x - mu')/sigma' - (x - mu)/sigma) when the fakes change, and by sampling alone with variance "
        "2 (1 - pi)/m sum w² (1 + x²/2) when they do not. It works on the generator too: (1 - pi) of its gradient and more "
        "is cancelled through the statistics. Separate batches decouple, but at a price: a batch of fakes alone has mean 0 "
        "whatever the generator does, so all of a linear logit's gradient is cancelled. BN is as steep as 1/sigma: an image "
        "of a quarter of the contrast is judged by a function four times as steep, where spectral norm keeps every layer "
        "at 1. What follows for training is not predicted but shown: in short games on digits joint BN learnt as well as layer "
        "norm and turned no more, and separate BN hardly learnt."
    ),
    advice=(
        "Give a discriminator layer norm or spectral norm; if it must have batch norm keep reals and fakes in one batch or "
        "leave its first layer without, for separate batches hide from it what tells all fakes from all reals."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
)
