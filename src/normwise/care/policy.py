"""Freezing norms so that `model.train()` does not thaw them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from normwise.layers.base import RunningNorm
from normwise.layers.policy import FROZEN, StatisticsPolicy
from normwise.models.walk import NormLayer, norm_layers, stays_in_eval

_RECORD = "_normwise_freeze"
_AFFINE_OF_OURS = ("weight", "bias", "modulation.weight", "modulation.bias")


@dataclass
class _Frozen:
    """What `freeze` changed on a module, so that `unfreeze` changes that back and nothing else."""

    training: bool
    affine: dict[str, bool]
    train: Any = None
    policy: StatisticsPolicy | None = None


def freeze(model: nn.Module, *, statistics: bool = True, affine: bool = False) -> nn.Module:
    """Freeze the norms of a model, in place, for good; return the model.

    statistics: norms use their running statistics in every mode and never update them. affine: their weight and bias
    take no gradient. Both survive `train()`, `deepcopy`, pickle and `state_dict` (which is unchanged); only
    `unfreeze` undoes them. A model without norms is returned as it is.
    """
    for layer in _norms(model):
        if statistics and layer.statistics is not None:
            _freeze_statistics(layer.module)
        if affine:
            _freeze_affine(layer)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Undo `freeze`, in place; return the model. Norms return to the mode of the model."""
    for layer in _norms(model):
        record = vars(layer.module).pop(_RECORD, None)
        if record is None:
            continue
        if record.policy is not None:
            layer.module.policy = record.policy
        if stays_in_eval(layer.module):
            del layer.module.train
            layer.module.training = record.training
            if record.train is not None:
                vars(layer.module)["train"] = record.train
        for name, needed in record.affine.items():
            layer.module.get_parameter(name).requires_grad_(needed)
    return model


def _norms(model: nn.Module) -> list[NormLayer]:
    """Return what `norm_layers` finds, and our own layers with tables by group, which it does not."""
    found = norm_layers(model)
    known = {id(layer.module) for layer in found}
    for name, module in model.named_modules():
        if isinstance(module, RunningNorm) and id(module) not in known:
            statistics = None if module.running_mean is None else ("running_mean", "running_var")
            found.append(NormLayer(name, module, statistics, None))
    return found


def _record(module: nn.Module) -> _Frozen:
    return vars(module).setdefault(_RECORD, _Frozen(module.training, {}))


def _freeze_statistics(module: nn.Module) -> None:
    record = _record(module)
    policy = getattr(module, "policy", None)
    if isinstance(policy, StatisticsPolicy):
        if policy != FROZEN:
            record.policy = policy
            vars(module)["policy"] = FROZEN
        return
    if isinstance(vars(module).get("train"), partial):
        return
    record.train = vars(module).get("train")
    module.eval()
    module.train = partial(_stay_in_eval, module)


def _freeze_affine(layer: NormLayer) -> None:
    record = _record(layer.module)
    parameters = dict(layer.module.named_parameters())
    for name in _AFFINE_OF_OURS if isinstance(layer.module, RunningNorm) else layer.affine or ():
        parameter = parameters.get(name)
        if parameter is not None:
            record.affine.setdefault(name, parameter.requires_grad)
            parameter.requires_grad_(False)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for `module.train`: pass the mode on to children, keep the module's own, remember it for `unfreeze`."""
    _record(module).training = mode
    for child in module.children():
        child.train(mode)
    return module


def affine_parameters(layer: NormLayer) -> list[Tensor]:
    """Return a layer's weight and bias where they are parameters."""
    tables = (getattr(layer.module, name, None) for name in layer.affine or ())
    return [table for table in tables if isinstance(table, nn.Parameter)]
