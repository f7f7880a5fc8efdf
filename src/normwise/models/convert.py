"""Exchanging a model's norms for others: ours, torch's, fixed ones, or norms without batch statistics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from normwise.errors import ModelError, UsageError
from normwise.layers.batch_norm import BatchNorm
from normwise.layers.policy import DEFAULT
from normwise.models.form import EvaluationForm, TrainingForm, evaluation_form, scale_and_shift, training_form
from normwise.models.replace import adopt, hand_over, like, replace_modules
from normwise.models.walk import NormLayer, names_of, norm_layers
from normwise.models.wiring import wiring_from_graph

Where = Callable[[str, nn.Module], bool] | Iterable[str]

_PLANNED = ("sync", "spectral", "ghost", "domain", "masked", "private")
_BY_RANK = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_TORCH_CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MOST_GROUPS = 32  # Wu and He 2018
_ORIGIN = "_normwise_origin"  # the torch class a layer of ours was converted from


class ConversionWarning(UserWarning):
    """A conversion changed what the model computes, in the way the message says."""


@final
class FrozenAffine(nn.Module):
    r"""A norm with its running statistics worked into one scale and shift a channel: :math:`y = scale_c x + shift_c`.

    Shape: `(n, c, *)` to the same. Buffers: scale, shift, `(c,)`. No modes; gradients flow to x only.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        """Take scale and shift, `(c,)`."""
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift x, in the wider of its dtype and the buffers'."""
        view = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.shift.view(view), x, self.scale.view(view)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return str(len(self.scale))


def convert(model: nn.Module, to: type[nn.Module] | str, *, where: Where | None = None) -> nn.Module:
    """Exchange the norms of a model, in place; return the model, which is a new module if it is itself a norm.

    to: `BatchNorm` or "normwise" (exact), "torch" (back to nn.BatchNorm1d/2d/3d, exact), "frozen-affine" (running
    statistics worked into a fixed scale and shift; exact in evaluation), "group", "layer", "instance" (nn.GroupNorm
    with at most 32 groups, one, or one a channel: not exact, the model must be trained on).
    where: names of norms, or `(name, module) -> bool`; None for all.

    Parameters and buffers stay the same objects (optimizers keep working), hooks, modes, freezes and sharing are kept.
    Warns with `ConversionWarning` where the result computes something else. Raises `ModelError`, before anything is
    changed, for a layer that does more than normalise (a fused activation) or trains in another way.
    """
    build = _target(to)
    layers = norm_layers(model)
    if not layers:
        raise ModelError(
            f"model: expected normalization layers, found none in {type(model).__name__}; nothing to convert"
        )
    conversion = _Conversion(model)
    swaps = []
    for layer in _selected(model, layers, where):
        new = build(conversion, layer)
        if new is not layer.module:
            swaps.append((layer, new))
    for layer, new in swaps:
        hand_over(layer.module, new)
    for note, names in conversion.notes.items():
        text = f"{len(names)} layer{'s' * (len(names) > 1)} ('{names[0]}'{', ...' * (len(names) > 1)}): {note}"
        warnings.warn(text, ConversionWarning, stacklevel=2)
    return replace_modules(model, [(layer.module, new) for layer, new in swaps])


class _Conversion:
    """One call of `convert`: the model, what was found of its layers, and what is to be told."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.notes: dict[str, list[str]] = {}
        self._wiring_ranks: dict[str, int] | None = None

    def note(self, layer: NormLayer, text: str) -> None:
        """Remember what is not exact."""
        self.notes.setdefault(text, []).append(layer.name)

    def form(self, layer: NormLayer) -> EvaluationForm:
        """Return what the layer computes in evaluation, or refuse it."""
        form = None if parametrize.is_parametrized(layer.module) else evaluation_form(layer)
        if form is None:
            raise ModelError(
                f"model: layer '{layer.name}' ({type(layer.module).__name__}) does more than normalise, such as a "
                "fused activation, which would be lost; split it into a norm and the rest, or leave it out with where="
            )
        return form

    def training(self, layer: NormLayer, form: EvaluationForm) -> TrainingForm:
        """Return how the layer trains, or refuse it."""
        training = training_form(layer, form)
        if training is None or (form.batch and layer.statistics is not None):
            raise ModelError(
                f"model: layer '{layer.name}' ({type(layer.module).__name__}) uses or updates its statistics in a way "
                "that batch normalization does not; leave it out with where="
            )
        return training

    def wired_rank(self, name: str) -> int | None:
        """Return the number of dimensions of a norm's input that the convolution in front of it proves."""
        if self._wiring_ranks is None:
            wiring = wiring_from_graph(self.model)
            modules = dict(self.model.named_modules())
            producers = {} if wiring is None else {n: modules.get(f.producer or "") for n, f in wiring.feeds.items()}
            self._wiring_ranks = {n: m.weight.ndim for n, m in producers.items() if isinstance(m, _ConvNd)}
        return self._wiring_ranks.get(name)


Build = Callable[[_Conversion, NormLayer], nn.Module]


def _to_normwise(conversion: _Conversion, layer: NormLayer) -> nn.Module:
    if isinstance(layer.module, BatchNorm):
        return layer.module
    form = conversion.form(layer)
    training = conversion.training(layer, form)
    if isinstance(layer.module, nn.SyncBatchNorm):
        conversion.note(layer, "batch statistics are no longer synchronised between processes")
    new = like(BatchNorm, layer, form, training)
    new.policy = training.policy
    origin = next((kind for kind in _TORCH_CLASSES if isinstance(layer.module, kind)), None)
    if origin is not None:
        vars(new)[_ORIGIN] = origin
    return new


def _to_torch(conversion: _Conversion, layer: NormLayer) -> nn.Module:
    if isinstance(layer.module, _TORCH_CLASSES):
        return layer.module
    form = conversion.form(layer)
    training = conversion.training(layer, form)
    if training.policy != DEFAULT and hasattr(layer.module, "_normwise_freeze"):
        raise ModelError(
            f"model: layer '{layer.name}' is frozen in a way torch's layers cannot be; call normwise.unfreeze(model), "
            "convert, and freeze again"
        )
    if training.policy != DEFAULT:
        conversion.note(layer, "the statistics were fixed and train() now uses and updates them; call normwise.freeze")
    if isinstance(layer.module, nn.SyncBatchNorm):
        conversion.note(layer, "batch statistics are no longer synchronised between processes")
    return like(_torch_class(conversion, layer, form), layer, form, training)


def _torch_class(conversion: _Conversion, layer: NormLayer, form: EvaluationForm) -> type[nn.Module]:
    origin = vars(layer.module).get(_ORIGIN)
    if origin is not None:
        return origin
    kinds = {_BY_RANK[rank] for rank in form.ranks}
    if len(kinds) == 1:
        return kinds.pop()
    rank = conversion.wired_rank(layer.name)
    if rank is None:
        raise ModelError(
            f"model: cannot tell whether layer '{layer.name}' stands for nn.BatchNorm1d, 2d or 3d, it takes inputs of "
            "any rank and no convolution in front of it says; replace it by hand, its state_dict fits"
        )
    return _BY_RANK[rank]


def _to_frozen_affine(conversion: _Conversion, layer: NormLayer) -> nn.Module:
    form = conversion.form(layer)
    mean = layer.running_mean
    if mean is None or form.batch:
        raise ModelError(
            f"model: layer '{layer.name}' normalises with batch statistics in evaluation too, expected running ones; "
            "leave it out with where="
        )
    scale, shift = (table.to(mean.dtype).to(mean.device) for table in scale_and_shift(layer, form.eps))
    conversion.note(layer, "exact in evaluation; in training the statistics and the affine no longer learn")
    return FrozenAffine(scale, shift)


def _to_group_norm(conversion: _Conversion, layer: NormLayer, *, groups: Callable[[int], int]) -> nn.Module:
    form = conversion.form(layer)
    channels = int(layer.channels or 0)
    number = groups(channels)
    new = nn.GroupNorm(number, channels, form.eps, affine=False, device="meta")
    adopt(new, layer, ("weight", "bias"))
    new.affine = layer.weight is not None
    kind = {1: "one group of all channels", channels: "one group a channel"}.get(number, "groups of channels")
    conversion.note(
        layer,
        f"not exact: each sample is now normalised with its own statistics over {kind}; running statistics are "
        "dropped, weight and bias kept; train the model on",
    )
    return new


_TARGETS: dict[str, Build] = {
    "normwise": _to_normwise,
    "torch": _to_torch,
    "frozen-affine": _to_frozen_affine,
    "group": partial(_to_group_norm, groups=lambda channels: math.gcd(channels, _MOST_GROUPS)),
    "layer": partial(_to_group_norm, groups=lambda channels: 1),
    "instance": partial(_to_group_norm, groups=lambda channels: channels),
}


def _target(to: type[nn.Module] | str) -> Build:
    name = "normwise" if to is BatchNorm else to
    if isinstance(name, str) and name in _TARGETS:
        return _TARGETS[name]
    known = ", ".join(repr(target) for target in _TARGETS)
    state = "is not available yet" if name in _PLANNED else "is not known"
    raise UsageError(f"to: {to!r} {state}; expected normwise.layers.BatchNorm or one of {known}")


def _selected(model: nn.Module, layers: list[NormLayer], where: Where | None) -> list[NormLayer]:
    if where is None:
        return layers
    if callable(where):
        return [layer for layer in layers if where(layer.name, layer.module)]
    wanted = {where} if isinstance(where, str) else set(where)
    names = {layer.name: set(names_of(model, layer.module)) for layer in layers}
    unknown = sorted(wanted.difference(*names.values()))
    if unknown:
        raise UsageError(
            f"where: {unknown[0]!r} is no norm of the model, expected names such as "
            f"{', '.join(map(repr, list(names)[:3]))}; they are those of model.named_modules()"
        )
    return [layer for layer in layers if names[layer.name] & wanted]
