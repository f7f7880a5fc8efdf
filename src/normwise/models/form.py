"""What a norm does, found by trying it: its form in evaluation, its habits in training.

A copy of the module gets random statistics and affine, and its output is compared with batch normalization's formula.
A fused activation, a scale under an unknown name or arithmetic of another kind shows as a difference.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normwise.layers.policy import DEFAULT, FROZEN, StatisticsPolicy
from normwise.models.walk import NormLayer, norm_layers

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip
# What a module raises for an input of a rank it does not take.
RUN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError)
_SHAPES = ((4, 3), (), (5,), (2, 3, 2))  # positions of an image, a row, a sequence, a volume; images first
_BATCH = 6
# Variances of the trial lie near 1e-4, so that an eps of 1e-5 moves the output by 5%: it cannot be mistaken.
_VARIANCE = 1e-4
_TOLERANCE = 1e-4  # a hundredth of that effect for eps 1e-7; far above the rounding of float32
_DEFAULT_EPS = (1e-5, 0.0, 1e-3)


@dataclass(frozen=True)
class EvaluationForm:
    """A norm that is exactly `(x - mean) / sqrt(var + eps) * weight + bias` in evaluation.

    ranks: the numbers of dimensions of x it takes. batch: whether mean and var are the batch's own even there.
    """

    eps: float
    ranks: frozenset[int]
    batch: bool


@dataclass(frozen=True)
class TrainingForm:
    """How a norm trains: which statistics it uses and updates, and the weight of a new batch in torch's convention."""

    policy: StatisticsPolicy
    momentum: float | None


def evaluation_form(layer: NormLayer) -> EvaluationForm | None:
    """Return what the norm computes in evaluation, or None where that is not batch normalization and nothing else."""
    if layer.channels is None or _holds_more(layer):
        return None
    trial = _trial(layer)
    for eps in _DEFAULT_EPS if layer.eps is None else (layer.eps,):
        for batch in (False, True) if trial.running_mean is not None else (True,):
            ranks = frozenset(x.ndim for x in _inputs(trial) if _agrees(trial, x, eps, batch=batch))
            if ranks:
                return EvaluationForm(eps, ranks, batch)
    return None


def training_form(layer: NormLayer, form: EvaluationForm) -> TrainingForm | None:
    """Return how the norm trains, or None where that is neither batch normalization's way nor a freeze."""
    if isinstance(layer.module, nn.SyncBatchNorm):
        return TrainingForm(DEFAULT, layer.momentum)  # needs an accelerator to be tried; its way is documented
    x = next(x for x in _inputs(layer) if x.ndim in form.ranks)
    trial = _trial(layer, training=True)
    before, counted = _statistics(trial), trial.updates or 0
    if not form.batch and _agrees(trial, x, form.eps, batch=False):
        unchanged = all(torch.equal(old, new) for old, new in zip(before, _statistics(trial), strict=True))
        return TrainingForm(FROZEN, layer.momentum) if unchanged else None
    trial = _trial(layer, training=True)
    if not _agrees(trial, x, form.eps, batch=True):
        return None
    after = _statistics(trial)
    if not before or not after:
        return TrainingForm(DEFAULT, layer.momentum)
    moved, wanted = after[0] - before[0], x.transpose(0, 1).flatten(1).mean(1) - before[0]
    weight = 1.0 / (counted + 1) if layer.momentum is None else layer.momentum
    if torch.allclose(moved, wanted * weight, rtol=_TOLERANCE, atol=1e-9):
        return TrainingForm(DEFAULT, layer.momentum)
    if layer.momentum is not None and torch.allclose(moved, wanted * (1 - weight), rtol=_TOLERANCE, atol=1e-9):
        return TrainingForm(DEFAULT, 1 - layer.momentum)
    return None


def scale_and_shift(layer: NormLayer, eps: float) -> tuple[Tensor, Tensor]:
    """Return the float64 `(c,)` scale and shift that the norm is in evaluation: y = scale x + shift."""
    mean, variance = _table(layer.running_mean), _table(layer.running_var)
    scale = (variance + eps).rsqrt()
    if layer.weight is not None:
        scale = scale * _table(layer.weight)
    shift = -mean * scale
    return scale, shift if layer.bias is None else shift + _table(layer.bias)


def without_hooks(module: nn.Module) -> nn.Module:
    """Return a float64 copy on the CPU that runs nobody's hooks; of a module without values, one whose values are 0."""
    alone = copy.copy(module)
    vars(alone).update({name: OrderedDict() for name in HOOKS if name in vars(module)})
    twin = copy.deepcopy(alone)
    if any(table.is_meta for table in (*twin.parameters(), *twin.buffers())):
        twin = twin.to_empty(device="cpu")
        for table in (*twin.parameters(), *twin.buffers()):
            table.detach().zero_()
    twin = twin.to(device="cpu", dtype=torch.float64)
    for inner in twin.modules():
        for name in HOOKS:
            getattr(inner, name).clear()
    return twin.requires_grad_(False)


def _table(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise TypeError("a table of statistics is expected here")
    return tensor.detach().to(device="cpu", dtype=torch.float64)


def _holds_more(layer: NormLayer) -> bool:
    """Return whether the module holds tensors that a norm has no use for, here or inside."""
    known = {*(layer.statistics or ()), *(layer.affine or ()), "num_batches_tracked"}
    own = {
        name
        for table in (layer.module._parameters, layer.module._buffers)
        for name, t in table.items()
        if t is not None
    }
    inside = [t for child in layer.module.children() for t in (*child.parameters(), *child.buffers())]
    return not own <= known or bool(inside)


def _statistics(layer: NormLayer) -> list[Tensor]:
    return [table.detach().clone() for table in (layer.running_mean, layer.running_var) if table is not None]


def _trial(layer: NormLayer, *, training: bool = False) -> NormLayer:
    """Return a copy of the layer with random statistics and affine, the same at every call."""
    trial = norm_layers(without_hooks(layer.module))[0]
    for module in trial.module.modules():
        module.training = training
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor, low in ((trial.running_mean, -1.0), (trial.weight, 0.5), (trial.bias, -1.0)):
            if tensor is not None:
                tensor.copy_(low + 2 * torch.rand(tensor.shape, generator=draw, dtype=torch.float64))
        if trial.running_var is not None:
            values = torch.rand(trial.running_var.shape, generator=draw, dtype=torch.float64)
            trial.running_var.copy_(_VARIANCE * (1 + values))
    return trial


def _inputs(layer: NormLayer) -> list[Tensor]:
    draw, spread = torch.Generator().manual_seed(1), _VARIANCE**0.5
    shapes = [(_BATCH, layer.channels or 1, *positions) for positions in _SHAPES]
    return [spread * torch.randn(shape, generator=draw, dtype=torch.float64) + spread for shape in shapes]


def _agrees(trial: NormLayer, x: Tensor, eps: float, *, batch: bool) -> bool:
    view = (1, -1) + (1,) * (x.ndim - 2)
    if batch:
        values = x.transpose(0, 1).flatten(1)
        mean, variance = values.mean(1), values.var(1, correction=0)
    else:
        mean, variance = _table(trial.running_mean), _table(trial.running_var)
    expected = (x - mean.view(view)) * (variance + eps).rsqrt().view(view)
    if trial.weight is not None:
        expected = expected * trial.weight.view(view)
    if trial.bias is not None:
        expected = expected + trial.bias.view(view)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a layer thinks of an input of the wrong rank
            y = trial.module(x.clone())
    except RUN_ERRORS:
        return False
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return False
    return bool((y - expected).abs().max() <= _TOLERANCE * expected.abs().max())
