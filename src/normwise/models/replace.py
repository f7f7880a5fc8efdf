"""Putting other modules into a model's tree: with the old ones' tensors, hooks and modes, shared ones everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from normwise.models.form import HOOKS, EvaluationForm, TrainingForm
from normwise.models.walk import NormLayer, stays_in_eval

_KEPT = (
    *HOOKS, "_is_full_backward_hook", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks", "_normwise_freeze",
)  # fmt: skip


def replace_modules(model: nn.Module, swaps: Iterable[tuple[nn.Module, nn.Module]]) -> nn.Module:
    """Replace each old module by its new one wherever it hangs, in place; return the root, which may itself be new."""
    new_by_id = {id(old): new for old, new in swaps}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new_by_id:
                parent._modules[name] = new_by_id[id(child)]
    return new_by_id.get(id(model), model)


def like(kind: Any, layer: NormLayer, form: EvaluationForm, training: TrainingForm) -> Any:
    """Return a layer of another class that holds the same tensor objects."""
    momentum = training.momentum if hasattr(layer.module, "momentum") else 0.1
    tracks = layer.statistics is not None
    new = kind(
        layer.channels, form.eps, momentum, affine=layer.weight is not None, track_running_stats=tracks, device="meta"
    )
    if tracks and layer.updates is None:
        table = layer.running_mean
        new.num_batches_tracked = torch.zeros((), dtype=torch.long, device=None if table is None else table.device)
    adopt(new, layer, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))
    return new


def adopt(new: nn.Module, layer: NormLayer, names: tuple[str, ...]) -> None:
    """Hang a layer's tensors into a new module under torch's names, parameters as parameters, buffers as buffers."""
    statistics, affine = layer.statistics or ("", ""), layer.affine or ("", "")
    sources: dict[str, str] = {"weight": affine[0], "bias": affine[1]}
    sources |= {"running_mean": statistics[0], "running_var": statistics[1]}
    old = layer.module
    for name in names:
        source = sources.get(name, name)
        parameter, buffer = old._parameters.get(source), old._buffers.get(source)
        if parameter is None and buffer is None:
            if name == "bias":
                new._parameters["bias"] = None
            continue
        new._parameters.pop(name, None)
        new._buffers.pop(name, None)
        if parameter is not None:
            new._parameters[name] = parameter
            continue
        new._buffers[name] = buffer
        if source in old._non_persistent_buffers_set:
            new._non_persistent_buffers_set.add(name)


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Give the new module the old one's mode, hooks (handles keep working) and freeze."""
    new.training = old.training
    for name in _KEPT:
        if name in vars(old):
            vars(new)[name] = vars(old)[name]
    if stays_in_eval(old):
        stand_in = vars(old)["train"]
        if isinstance(stand_in, partial):
            arguments = [new if argument is old else argument for argument in stand_in.args]
            stand_in = partial(stand_in.func, *arguments, **stand_in.keywords)
        elif getattr(stand_in, "__self__", None) is old:
            stand_in = stand_in.__func__.__get__(new)
        vars(new)["train"] = stand_in
