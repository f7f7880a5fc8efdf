"""A mean that drifts along sequences: what pooled, padded and time-wise statistics leave of it, made and in real speech."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from normwise.layers import BatchNorm, MaskedBatchNorm, TimewiseBatchNorm
from normwise.reporting import style
from normwise.reporting.slider import Slider
from normwise.studies.estimate import Estimate, dots, overlapping, root_mean, series, told
from normwise.studies.recogniser import LATE, NORMS, SPOKEN, WIDTH, Recogniser, drift_of, outputs, trained
from normwise.studies.study import Heading, Measurement, Prediction, Progress, Study, tracked
from normwise.studies.vowels import LONGEST, vowels
from normwise.theory import sequence as theory
from normwise.theory.mixture import MeanVariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRIFT, _STEPS, _SEQUENCES, _CHANNELS = 0.3, 20, 64, 64
_UNEVEN = np.repeat(np.arange(5, _STEPS + 1), _SEQUENCES // 16)  # lengths of a batch
_EVEN = np.full(_SEQUENCES, _STEPS)
_BATCHES = {"tiny": 4, "quick": 10, "full": 100}  # of sequences in each replicate
_REPLICATES = 12
_VOICES = 5  # utterances alive, below which a step is not drawn: it is one voice's
_EPOCHS, _TRAINED = {"tiny": 1, "quick": 6, "full": 15}, {"tiny": 3, "quick": 5, "full": 10}
_EVEN_FIRST, _EVEN_LAST = (f"output mean at the {step} step, pooled, {_STEPS} steps each" for step in ("first", "last"))
_FIRST, _LAST = (f"output mean at the {step} step, pooled, 5 to {_STEPS} steps" for step in ("first", "last"))
_PADDED = f"output mean at the last step, pooled with the padding, 5 to {_STEPS} steps"
_SPREAD = f"output variance within a step, pooled, 5 to {_STEPS} steps"
_TIMEWISE = f"output mean at the last step, time-wise, 5 to {_STEPS} steps"
_NOISE = "error of the last step's own mean, time-wise, in standard deviations"
_REAL_FIRST, _REAL_LATE = (f"output mean at the {step} step, pooled, LSTM on speech" for step in ("1st", f"{LATE}th"))


def _made(drift: float = _DRIFT) -> MeanVariance:
    return MeanVariance(drift * np.arange(_STEPS), np.ones(_STEPS))


def _padded(drift: float = _DRIFT) -> MeanVariance:
    """Return the output where the zeros of the padding count as one step more."""
    made, counts = _made(drift), theory.alive(_UNEVEN)
    steps = MeanVariance(np.append(made.mean, 0.0), np.append(made.variance, 0.0))
    return theory.pooled_output(steps, np.append(counts, _SEQUENCES * _STEPS - counts.sum()))


def _spoken(given: Mapping[str, Any]) -> np.ndarray:
    """Return the bias at every step of speech that pooled statistics leave to the LSTM's unit."""
    steps = MeanVariance(np.array(given["step means"]), np.array(given["step variances"]))
    return np.asarray(theory.pooled_output(steps, np.array(given["step counts"])).mean)


def predict(given: Mapping[str, Any]) -> dict[str, Prediction]:
    """Return biases weighted by how many sequences have a step; the claim's are of a line and equal lengths."""
    counts = theory.alive(_UNEVEN)
    first, last = (theory.linear_drift_bias(step, _STEPS, _DRIFT) for step in (0, _STEPS - 1))
    uneven, spoken = theory.pooled_output(_made(), counts), _spoken(given)
    values = {"finite_size": 0.01, "reason": "moments of 800 values or more in place of true ones, of order 1/n"}
    return {
        _EVEN_FIRST: Prediction(float(first), claim=float(first), rival=0.0, **values),
        _EVEN_LAST: Prediction(float(last), claim=float(last), rival=0.0, **values),
        _FIRST: Prediction(float(uneven.mean[0]), claim=float(first), **values),
        _LAST: Prediction(float(uneven.mean[-1]), claim=float(last), **values),
        _PADDED: Prediction(float(_padded().mean[_STEPS - 1]), rival=float(uneven.mean[-1]), **values),
        _SPREAD: Prediction(float(uneven.variance[0]), rival=1.0, **values),
        _TIMEWISE: Prediction(
            0.0, claim=0.0, rival=float(uneven.mean[-1]), finite_size=1e-5, reason="rounding in single precision",
            identity=True,
        ),
        _NOISE: Prediction(
            float(theory.timewise_error(counts[-1])), rival=float(theory.timewise_error(_SEQUENCES))
        ),
        **{
            name: Prediction(
                float(spoken[step]),
                rival=0.0,
                finite_size=float(2 * abs(spoken[step]) / SPOKEN),
                reason=f"moments of {SPOKEN} utterances in place of all, whose steps resemble each other",
            )
            for name, step in ((_REAL_FIRST, 0), (_REAL_LATE, LATE - 1))
        },
    }  # fmt: skip


def measure(seed: int, size: str, progress: Progress) -> Measurement:
    """Normalise sequences whose drift is known; train recognisers of speakers, and look at what drifts in one."""
    train, held = vowels()
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Any]] = {}
    work = [(name, made) for name in NORMS for made in range(_TRAINED[size])]
    accuracy: dict[str, list[float]] = {name: [] for name in NORMS}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        for _ in tracked(range(_REPLICATES), lambda share: progress(share / 3)):
            for name, value in _drifted(_BATCHES[size], generator).items():
                found.setdefault(name, []).append(value)
        model = trained(Recogniser(MaskedBatchNorm(WIDTH), WIDTH), train, _EPOCHS[size], generator)
        given, unit = drift_of(model, train)
        for _ in range(_REPLICATES):
            for name, value in outputs(model, train, unit, 2 * _BATCHES[size], generator).items():
                found.setdefault(name, []).append(value)
        for name, _ in tracked(work, lambda share: progress((1 + 2 * share) / 3)):
            model = trained(Recogniser(NORMS[name](), WIDTH), train, _EPOCHS[size], generator).eval()
            accuracy[name].append(float((model(held).argmax(1) == held.labels).double().mean()))
    steps, spoken = range(1, _STEPS + 1), range(1, LONGEST + 1)
    quantities = {
        _EVEN_FIRST: ("even", 0), _EVEN_LAST: ("even", -1), _FIRST: ("masked", 0), _LAST: ("masked", -1),
        _PADDED: ("padded", -1), _TIMEWISE: ("time-wise", -1), _REAL_FIRST: ("spoken", 0),
        _REAL_LATE: ("spoken", LATE - 1),
    }  # fmt: skip
    estimates = {name: Estimate.of(np.array(found[key])[:, step]) for name, (key, step) in quantities.items()}
    estimates[_SPREAD] = Estimate.of(found["spread"])
    noise = [Estimate.jackknife(root_mean, column) for column in np.array(found.pop("squares")).T]
    estimates[_NOISE] = noise[-1]
    shown: dict[str, Any] = {name: series(steps, found[name]) for name in ("even", "masked", "padded", "time-wise")}
    shown["noise"] = dots(steps, noise)
    shown |= {name: series(spoken[: len(found[name][0])], found[name]) for name in ("spoken", "spoken, time-wise")}
    shown["accuracy"] = {"names": list(NORMS), **series(range(len(NORMS)), np.array(list(accuracy.values())).T)}
    return Measurement(estimates, given, shown, {_FIRST: estimates[_EVEN_FIRST], _LAST: estimates[_EVEN_LAST]})


def _drifted(batches: int, generator: torch.Generator) -> dict[str, Any]:
    """Return what our layers leave at each step of made sequences, and how far a step's own mean is from the truth."""
    masked, padded = MaskedBatchNorm(_CHANNELS, affine=False), BatchNorm(_CHANNELS, affine=False)
    timewise = TimewiseBatchNorm(_CHANNELS, _STEPS, momentum=1.0, affine=False)
    drift, even, uneven = _DRIFT * torch.arange(_STEPS), torch.tensor(_EVEN), torch.tensor(_UNEVEN)
    sums: dict[str, list[Tensor]] = {}
    for _ in range(batches):
        x = drift + torch.randn(_SEQUENCES, _CHANNELS, _STEPS, generator=generator)
        alive = torch.arange(_STEPS) < uneven.view(-1, 1, 1)
        y = masked(x, uneven)
        one = {
            "even": _step_means(padded(x), even),
            "masked": _step_means(y, uneven),
            "padded": _step_means(padded(x * alive) * alive, uneven),
            "time-wise": _step_means(timewise(x, uneven), uneven),
            "spread": y[:, :, 0].var(0).mean(),
            "squares": (timewise.get_buffer("running_mean").T - drift).double().square().mean(0),
        }
        for name, value in one.items():
            sums.setdefault(name, []).append(value)
    return {name: torch.stack(values).mean(0).tolist() for name, values in sums.items()}


def _step_means(y: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over sequences that are alive and over channels, `(t,)`, of `(n, c, t)` with zeros elsewhere."""
    counts = (lengths.unsqueeze(1) > torch.arange(y.shape[2])).sum(0)
    return y.double().sum(0).mean(0) / counts.clamp_min(1)


def figures(result: Measurement) -> dict[str, Figure]:
    """Draw the bias along made sequences and in an LSTM, the price of removing it, and who recognises speakers."""
    shown, made, counts = result.series, {}, theory.alive(_UNEVEN)
    step = np.arange(1, _STEPS + 1)
    made["bias"], axes = style.figure(
        "Pooled statistics leave the drift", "step", "output mean, in standard deviations"
    )
    line = theory.linear_drift_bias(step - 1, _STEPS, _DRIFT)
    style.curve(axes, step, line, "equal\nlengths", color=style.CLAIM, dashed=True)
    style.curve(axes, step, theory.pooled_output(_made(), counts).mean)
    style.curve(axes, step, _padded().mean[:-1], color=style.PURPLE)
    style.curve(axes, step, np.zeros(_STEPS), color=style.GREEN)
    style.points(axes, shown["even"], color=style.CLAIM, hollow=True)
    style.points(axes, shown["masked"], f"5 to {_STEPS}\nsteps")
    style.points(axes, shown["padded"], "the same,\nwith padding", color=style.PURPLE)
    style.points(axes, shown["time-wise"], "time-wise", color=style.GREEN)
    _count_steps(axes, _STEPS)
    made["noise"], axes = style.figure(
        "Time-wise statistics pay with noise", "step", "error of a step's mean, in standard deviations"
    )
    style.curve(axes, step, theory.timewise_error(counts), "theory,\n1/√alive")
    style.curve(
        axes, step, np.full(_STEPS, theory.timewise_error(_SEQUENCES)), "if all\nlasted", color=style.SOFT, dashed=True
    )
    style.points(axes, shown["noise"], "measured")
    axes.set_ylim(bottom=0)
    _count_steps(axes, _STEPS)
    spoken = _spoken(result.given)[np.array(result.given["step counts"]) >= _VOICES]
    made["speech"], axes = style.figure(
        "The same inside an LSTM that hears speech",
        f"step, up to {len(spoken)}: fewer than {_VOICES} utterances last longer",
        "output mean of one unit, in standard deviations",
    )
    step = np.arange(1, len(spoken) + 1)
    line = theory.linear_drift_bias(step - 1, LONGEST, result.given["slope"], result.given["spread"])
    style.curve(axes, step, line, "linear,\nequal lengths", color=style.SOFT, dashed=True)
    style.curve(axes, step, spoken)
    style.curve(axes, step, np.zeros(len(spoken)), color=style.GREEN)
    own, pooled = (
        {part: values[: len(spoken)] for part, values in shown[name].items()}
        for name in ("spoken, time-wise", "spoken")
    )
    style.points(axes, pooled, "pooled,\nmasked")
    style.points(axes, own, "time-wise", color=style.GREEN)
    _count_steps(axes, len(spoken))
    made["accuracy"], axes = style.figure(
        "Who of nine is speaking?", "norm between two LSTM layers", "accuracy on held-back utterances"
    )
    style.points(axes, shown["accuracy"])
    axes.set_xticks(shown["accuracy"]["x"], shown["accuracy"]["names"], fontsize=7)
    axes.set_xlim(-0.5, len(NORMS) - 0.5)
    return made


def _count_steps(axes: Any, steps: int) -> None:
    axes.set_xticks([1, *range(5, steps + 1, 5)])


def seen(result: Measurement) -> str:
    """Say who recognises speakers."""
    accuracy = result.series["accuracy"]
    names = [name.replace("-\n", "-").replace("\n", " ") for name in accuracy["names"]]
    each = "; ".join(f"{name} {told(accuracy, place)}" for place, name in enumerate(names))
    return (
        f"The share of held-back utterances whose speaker is recognised, by the norm between two LSTM layers: {each}. "
        f"The intervals of the norms {'overlap' if overlapping(accuracy, *range(1, len(names))) else 'do not all overlap'}."
    )


def sliders(_: Measurement) -> list[Slider]:
    """Return the bias at each step under any drift."""
    counts = theory.alive(_UNEVEN)
    return [
        Slider(
            parameter="drift a step, in standard deviations",
            positions=[0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0],
            start=6,
            x=np.arange(1, _STEPS + 1),
            curves={
                "5-20 steps": lambda _, drift: theory.pooled_output(_made(drift), counts).mean,
                "padded": lambda _, drift: _padded(drift).mean[:-1],
                "equal length": lambda x, drift: theory.linear_drift_bias(x - 1, _STEPS, drift),
                "time-wise": lambda x, _: np.zeros_like(x, dtype=float),
            },
            colors={"padded": "purple", "equal length": "vermillion", "time-wise": "green"},
            dashed=("equal length",),
            x_label="step",
            y_label="output mean, in standard deviations",
            told=lambda drift: (
                f"drift {drift:g}: the last step is off by {theory.pooled_output(_made(drift), counts).mean[-1]:.2f}; "
                f"its own mean, of {counts[-1]} sequences, errs by {theory.timewise_error(counts[-1]):.2f}"
            ),
        )
    ]


STUDY = Study(
    name="sequence-drift",
    heading=Heading.SEQUENCES,
    title="A drift that pooled statistics leave, and what removing it costs",
    claim=(
        "“A simple model of activation drift, such as assuming the mean increases linearly with time, reveals "
        "that a pooled BN approach reintroduces a time-dependent bias into the normalized activations. The "
        "normalized mean at an early time step will be systematically shifted in one direction, while the mean at "
        "a late time step will be shifted in the other.” Time-wise normalization “correctly removes the "
        "non-stationary drift but comes with its own challenges, such as handling variable-length sequences where "
        "later time steps have fewer samples, leading to noisy statistics”."
    ),
    theory=(
        "With T steps each, a drift of delta a step and variance s² within one, pooled statistics leave step t "
        "the bias delta (t - (T - 1)/2) / √(s² + delta² (T² - 1)/12), never beyond 1.73 standard deviations. "
        "Sequences of unequal length break that symmetry: a step counts by the n_t sequences that are still "
        "alive, so that the pooled mean lies early and late steps are off much further; padding that is "
        "normalised along moves it again. Time-wise statistics leave 0, and err by 1/√n_t. The same weighted "
        "moments predict an LSTM's units, whose drift is no line; of speech the source says no more than that "
        "early and late steps are shifted opposite ways."
    ),
    outcome="To be said.",
    advice=(
        "Where the mean drifts along the sequence reckon with the bias that pooled statistics leave, two standard "
        "deviations and more at the last of 5 to 20 steps and further with padding that is counted, against the "
        "error of 1/√n_t of each step's own statistics, and do not decide by accuracy, which between the norms of "
        "this recogniser did not differ measurably."
    ),
    predict=predict,
    measure=measure,
    figures=figures,
    sliders=sliders,
    seen=seen,
    version=2,
)
