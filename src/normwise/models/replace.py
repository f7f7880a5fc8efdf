"""Putting other modules into a model's tree: with the old ones' tensors, hooks and modes, shared ones everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from normwise.layers.base import RunningNorm
from normwise.models.form import HOOKS, EvaluationForm, TrainingForm
from normwise.models.walk import NormLayer, core, stays_in_eval

_HOOKS = (
    *HOOKS, "_is_full_backward_hook", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)  # fmt: skip
_AFFINE = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
FREEZE = "_normwise_freeze"  # what normwise.freeze keeps on a module


def replace_modules(model: nn.Module, swaps: Iterable[tuple[nn.Module, nn.Module]]) -> nn.Module:
    """Replace each old module by its new one wherever it hangs, in place; return the root, which may itself be new."""
    new_by_id = {id(old): new for old, new in swaps}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new_by_id:
                parent._modules[name] = new_by_id[id(child)]
    return new_by_id.get(id(model), model)


def like(kind: Callable[..., Any], layer: NormLayer, form: EvaluationForm, training: TrainingForm) -> Any:
    """Return a layer of another class, or of a `partial` of one, that holds the same tensor objects.

    What the class does not take (a momentum, statistics) is left out; a table it keeps by group gets equal rows.
    """
    home = layer.running_mean if layer.weight is None else layer.weight
    options = {
        "eps": form.eps,
        "momentum": training.momentum if hasattr(layer.module, "momentum") else 0.1,
        "affine": layer.weight is not None,
        "track_running_stats": layer.statistics is not None,
        "device": None if home is None else home.device,
        "dtype": None if home is None else home.dtype,
    }
    taken = set(inspect.signature(kind).parameters) - set(getattr(kind, "keywords", ()))
    new = kind(layer.channels, **{name: value for name, value in options.items() if name in taken})
    adopt(new, layer, tuple(name for name in (*_AFFINE, *_STATISTICS) if getattr(new, name, None) is not None))
    if isinstance(new, RunningNorm):
        new.policy = training.policy
    return new


def adopt(new: nn.Module, layer: NormLayer, names: tuple[str, ...]) -> None:
    """Hang a layer's tensors into a new module under torch's names, parameters as parameters, buffers as buffers."""
    old = layer.module
    sources: dict[str, str] = dict(zip(_AFFINE, layer.affine or ("", ""), strict=True))
    sources |= dict(zip(_STATISTICS, layer.statistics or ("", "")))
    for name in names:
        source, place = sources.get(name, name), getattr(new, name, None)
        parameter, buffer = old._parameters.get(source), old._buffers.get(source)
        if parameter is None and buffer is None:
            if name == "bias" and (place is None or place.ndim == 1):
                new._parameters["bias"] = None
            continue
        new._parameters.pop(name, None)
        new._buffers.pop(name, None)
        if parameter is not None:
            new._parameters[name] = _fit(parameter, place)
            continue
        new._buffers[name] = _fit(buffer, place)
        if source in old._non_persistent_buffers_set:
            new._non_persistent_buffers_set.add(name)


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Give the new module the old one's mode, hooks (handles keep working) and freeze."""
    _hand_over_hooks(old, new)
    if core(old) is not old and core(new) is not new:
        _hand_over_hooks(core(old), core(new))
    for module in new.modules():
        module.training = old.training
    old, new = core(old), core(new)
    new.training = old.training
    if FREEZE in vars(old):
        vars(new)[FREEZE] = vars(old)[FREEZE]
    if stays_in_eval(old):
        stand_in = vars(old)["train"]
        if isinstance(stand_in, partial):
            arguments = [new if argument is old else argument for argument in stand_in.args]
            stand_in = partial(stand_in.func, *arguments, **stand_in.keywords)
        elif getattr(stand_in, "__self__", None) is old:
            stand_in = stand_in.__func__.__get__(new)
        vars(new)["train"] = stand_in


def _hand_over_hooks(old: nn.Module, new: nn.Module) -> None:
    for name in _HOOKS:
        if name in vars(old):
            vars(new)[name] = vars(old)[name]


def _fit(table: Any, place: Tensor | None) -> Any:
    """Return the table itself, flat if it is `(1, c, 1, 1)`, or a copy in each row where its place has a row a group."""
    if place is None or place.ndim == table.ndim:
        return table
    fitted = table.detach().view(-1) if place.ndim < table.ndim else table.detach().expand(place.shape).clone()
    return nn.Parameter(fitted, table.requires_grad) if isinstance(table, nn.Parameter) else fitted
