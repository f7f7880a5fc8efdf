"""Statistics by channel or across channels: what correlation and unequal scales do to each, made and real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.data import digits
from normwise.studies.estimate import Estimate, dots, series, told
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.theory import channels as theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANNELS, _CORRELATION = 8, 0.6
_CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
_LOUD = np.array([10.0] + [1.0] * (_CHANNELS - 1))  # one object part among textures
_LOUDNESS = (1.0, 2.0, 4.0, 7.0, 10.0)
_REPLICATES = 12
_MAPS = {"tiny": 40, "quick": 400, "full": 2000}  # maps of 8 x 8 positions in each replicate
_EPOCHS, _TRAINED = {"tiny": 1, "quick": 4, "full": 12}, {"tiny": 3, "quick": 3, "full": 8}
_SPREAD = f"variance across {_CHANNELS} channels correlated by {_CORRELATION:g}"
_TEXTURE_BY = "variance of a texture channel beside a loud one, per-channel"
_TEXTURE_ACROSS = "variance of a texture channel beside a loud one, across channels"
_LOUD_ACROSS = "variance of the loud channel, across channels"
_BLIND = "change of a channel's output when its neighbours grow tenfold, per-channel"
_SEES = "variance of a channel's output after its neighbours grew tenfold, across channels"
_REAL = "largest over smallest channel variance, per-channel norm of digits' features"


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return what each axis makes of correlation and scale; the rival of one is the other."""
    plain = theory.uniform_covariance(np.ones(_CHANNELS), _CORRELATION)
    loud = theory.across_channel_output(theory.uniform_covariance(_LOUD, 0.0)).variance
    grown = theory.across_channel_output(theory.uniform_covariance(_grown(), 0.0)).variance
    own = float(np.asarray(theory.per_channel_output(1.0).variance))
    return {
        _SPREAD: Prediction(theory.across_channel_variance(plain), rival=1.0),
        _TEXTURE_BY: Prediction(
            own, claim=own, rival=float(loud[1]), finite_size=1e-4, reason="eps and rounding", identity=True
        ),
        _TEXTURE_ACROSS: Prediction(float(loud[1]), rival=own),
        _LOUD_ACROSS: Prediction(float(loud[0]), rival=own),
        _BLIND: Prediction(0.0, claim=0.0, rival=1.0, identity=True),
        _SEES: Prediction(float(grown[0]), rival=own),
        _REAL: Prediction(
            1.0,
            claim=1.0,
            rival=given["loudest over quietest channel"],
            finite_size=0.01,
            reason="eps beside the variances",
            identity=True,
        ),
    }


def _grown() -> np.ndarray:
    return np.array([1.0] + [10.0] * (_CHANNELS - 1))


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Normalise maps whose correlation and scales are known, and real features; train with each norm."""
    generator = torch.Generator().manual_seed(seed)
    by, across = BatchNorm(_CHANNELS, affine=False), AcrossChannelNorm(_CHANNELS, affine=False)
    images, labels = digits()
    found: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        for _ in tracked(range(_REPLICATES), progress):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            one: dict[str, Any] = {}
            maps = {rho: _maps(np.ones(_CHANNELS), rho, _MAPS[size], generator) for rho in _CORRELATIONS}
            one["spread"] = [float(maps[rho].var(1).mean()) for rho in _CORRELATIONS]
            one["by, correlated"] = [_variance(by(maps[rho])) for rho in _CORRELATIONS]
            for name, norm in (("by", by), ("across", across)):
                one[f"{name}, shared"] = [_shared(norm(maps[rho])) for rho in _CORRELATIONS]
            one[_SPREAD] = one["spread"][_CORRELATIONS.index(_CORRELATION)]
            loud = {k: _maps(np.array([k, *_LOUD[1:]]), 0.0, _MAPS[size], generator) for k in _LOUDNESS}
            for name, norm in (("by", by), ("across", across)):
                outputs = {k: norm(x).transpose(0, 1).flatten(1).var(1, unbiased=False) for k, x in loud.items()}
                one[f"{name}, loud"] = [float(outputs[k][0]) for k in _LOUDNESS]
                one[f"{name}, texture"] = [float(outputs[k][1:].mean()) for k in _LOUDNESS]
            one[_TEXTURE_BY], one[_TEXTURE_ACROSS] = one["by, texture"][-1], one["across, texture"][-1]
            one[_LOUD_ACROSS] = one["across, loud"][-1]
            quiet = maps[0.0]
            noisy = torch.cat([quiet[:, :1], 10 * quiet[:, 1:]], 1)
            one[_BLIND] = float((by(noisy)[:, 0] - by(quiet)[:, 0]).abs().max())
            one[_SEES] = float(across(noisy)[:, 0].var())
            for name, value in one.items():
                found.setdefault(name, []).append(value)
        features = _features(images)
        ratios, given_ratio = _real(features, _REPLICATES, generator)
        accuracy = {
            kind: vars(
                Estimate.of([_trained(kind, images, labels, _EPOCHS[size], generator) for _ in range(_TRAINED[size])])
            )
            for kind in ("by", "across")
        }
    estimates = {name: Estimate.of(values) for name, values in found.items() if np.ndim(values) == 1}
    estimates[_REAL] = Estimate.of(ratios)
    shown: dict[str, Any] = {"accuracy": accuracy, "epochs": _EPOCHS[size]}
    shown |= {
        name: series(_CORRELATIONS, found[name])
        for name in ("spread", "by, correlated", "by, shared", "across, shared")
    }
    shown |= {f"{n}, {c}": series(_LOUDNESS, found[f"{n}, {c}"]) for n in ("by", "across") for c in ("loud", "texture")}
    return Measurement(estimates, {"loudest over quietest channel": given_ratio}, shown)


def _maps(scales: np.ndarray, correlation: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw `(count, c, 8, 8)` Gaussian maps whose channels have these scales and one correlation between any two."""
    shape = (count, len(scales), 8, 8)
    common = torch.randn(count, 1, 8, 8, generator=generator) * correlation**0.5
    values = common + torch.randn(shape, generator=generator) * (1 - correlation) ** 0.5
    return values * torch.as_tensor(scales, dtype=torch.float32).view(-1, 1, 1)


def _variance(y: Tensor) -> float:
    """Return the mean variance of a channel."""
    return float(y.transpose(0, 1).flatten(1).var(1, unbiased=False).mean())


def _shared(y: Tensor) -> float:
    """Return the mean correlation between two channels of the output."""
    correlations = torch.corrcoef(y.transpose(0, 1).flatten(1))
    return float((correlations.sum() - len(correlations)) / (len(correlations) * (len(correlations) - 1)))


def _features(images: Tensor) -> Tensor:
    """Return digits under filters of very different gain: edges at two scales, smooth parts, fine texture."""
    kernels = torch.randn(_CHANNELS, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    kernels *= torch.logspace(-1, 0.5, _CHANNELS).view(-1, 1, 1, 1)
    return functional.conv2d(images, kernels, padding=1)


def _real(features: Tensor, replicates: int, generator: torch.Generator) -> tuple[list[float], float]:
    """Return the largest over the smallest output variance of each batch's channels, and the same of the input."""
    norm, found = BatchNorm(_CHANNELS, affine=False), []
    for _ in range(replicates):
        chosen = features[torch.randint(len(features), (256,), generator=generator)]
        variance = norm(chosen).transpose(0, 1).flatten(1).var(1, unbiased=False)
        found.append(float(variance.max() / variance.min()))
    variance = features.transpose(0, 1).flatten(1).var(1, unbiased=False)
    return found, float(variance.max() / variance.min())


def _trained(kind: str, images: Tensor, labels: Tensor, epochs: int, generator: torch.Generator) -> float:
    """Return the accuracy on held-back digits of a small network with one norm or the other."""
    norm = BatchNorm if kind == "by" else AcrossChannelNorm
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(epochs * 1300 // 64):
        chosen = torch.randint(1300, (64,), generator=generator)
        loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(images[1300:]).argmax(1) == labels[1300:]).double().mean())


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw what correlation and one loud channel do to either axis."""
    shown, made = result.series, {}
    loudness, rho = np.linspace(1, 10, 40), np.linspace(0, 0.95, 40)
    made["loud"], axes = style.figure(
        "A loud channel drowns its neighbours", "scale of one channel among eight", "variance of a neighbour's output"
    )
    drowned = [
        theory.across_channel_output(theory.uniform_covariance(np.array([k, *_LOUD[1:]]), 0.0)).variance[1]
        for k in loudness
    ]
    style.curve(axes, loudness, np.ones_like(loudness), color=style.GREEN)
    style.curve(axes, loudness, drowned, color=style.PURPLE)
    style.points(axes, shown["by, texture"], "per\nchannel", color=style.GREEN)
    style.points(axes, shown["across, texture"], "across\nchannels", color=style.PURPLE)
    made["correlation"], axes = style.figure(
        "Correlation eats the variance across channels",
        "correlation between channels",
        "variance of the input at one position",
    )
    spread = [theory.across_channel_variance(theory.uniform_covariance(np.ones(_CHANNELS), r)) for r in rho]
    style.curve(axes, rho, spread, "theory,\n1 - rho")
    style.points(axes, shown["spread"], "across\nchannels", color=style.PURPLE)
    made["shared"], axes = style.figure(
        "And what they have in common is removed", "correlation between channels", "correlation after normalization"
    )
    style.curve(axes, rho, np.full_like(rho, -1 / (_CHANNELS - 1)), color=style.PURPLE)
    style.curve(axes, rho, rho, color=style.GREEN)
    style.points(axes, shown["across, shared"], "across\nchannels", color=style.PURPLE)
    style.points(axes, shown["by, shared"], "per\nchannel", color=style.GREEN)
    made["accuracy"], axes = style.figure(
        "A small network learns digits with either", "", f"accuracy on held-back digits after {shown['epochs']} epochs"
    )
    for place, (kind, color) in enumerate((("by", style.GREEN), ("across", style.PURPLE))):
        style.points(axes, dots([place], [Estimate(**shown["accuracy"][kind])]), color=color)
    style.categories(axes, ("per channel", "across channels"))
    return made


def seen(result: Measurement) -> str:
    """Say how either axis learns."""
    by, across = (told(dots([0], [Estimate(**result.series["accuracy"][kind])])) for kind in ("by", "across"))
    return (
        f"A small convolutional network was right on {by} of held-back digits with statistics per channel, on {across} with "
        f"statistics across channels, after {result.series['epochs']} epochs."
    )


def sliders(_: Measurement) -> list[Slider]:
    """Return the outputs of a loud channel and of its neighbours, by the number of channels."""

    def outputs(x: np.ndarray, count: float) -> list[np.ndarray]:
        scales = [np.array([k] + [1.0] * (int(count) - 1)) for k in x]
        return [np.asarray(theory.across_channel_output(theory.uniform_covariance(s, 0.0)).variance) for s in scales]

    return [
        Slider(
            parameter="channels",
            positions=[3, 4, 6, 8, 12, 16, 32],
            start=3,
            x=np.linspace(1, 10, 19),
            curves={
                "loud one": lambda x, count: [one[0] for one in outputs(x, count)],
                "neighbour": lambda x, count: [one[1] for one in outputs(x, count)],
                "per channel": lambda x, count: np.ones_like(x),
            },
            colors={"loud one": "orange", "neighbour": "purple", "per channel": "green"},
            x_label="scale of one channel, the others 1",
            y_label="variance of the output",
            told=lambda count: (
                f"{count:g} channels: at scale 10 a neighbour keeps "
                f"{outputs(np.array([10.0]), count)[0][1]:.2f} of its variance"
            ),
        )
    ]


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
        "A channel normalised by its own statistics has mean 0 and variance 1 whatever the others do. Across C channels of "
        "variance sigma² and correlation rho the statistics see (1 - rho) sigma²; what channels have in common is subtracted "
        "(outputs become correlated by -1/(C - 1)), and a channel of large scale takes what its neighbours lose: the squared "
        "outputs of a position always sum to C. The exact expectation is an integral over Gaussian quadratic forms."
    ),
    outcome="To be said.",
    advice=(
        "Keep per-channel statistics where channels differ in scale, for across channels one that is ten times as "
        "large leaves its neighbours less than half of their variance, but do not count on a gain in accuracy: a "
        "small network learnt digits with either axis, and no difference was measured."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
