"""A norm and the activation behind it made one `BatchNormAct`, and taken apart again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from normwise.layers.base import RunningNorm
from normwise.layers.batch_norm import BatchNorm
from normwise.layers.batch_norm_act import BatchNormAct
from normwise.models.exchange import Exchange, origin, refusal, remember
from normwise.models.form import HOOKS
from normwise.models.plain import plain_norm
from normwise.models.replace import FREEZE, like, replace_modules
from normwise.models.walk import NormLayer, core, norm_layers

LEFT = "left as it is: no activation module that is known to read its output alone, and no other, follows it"
UNKNOWN = "left as it is: the model's code cannot be traced to see what follows it; pass example=, a batch to follow"
MORE = "left as it is: it does more than BatchNorm"
NO_RESIDUAL = "a call with a residual now fails; the model's code cannot be traced to see whether it makes one"
NEW_KEYS = "the norm and the activation are now modules '0' and '1' of a Sequential: state dict keys get a '0.'"
_TORCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PLACE = "_normwise_place"  # the nn.Identity that stands where a fused activation stood
# Exactly these: a subclass may do more. PReLU is left out, whose weight would get another name in the state dict.
_ACTIVATIONS = frozenset({
    nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU,
    nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink,
})  # fmt: skip
_MODULES: dict[Any, type[nn.Module]] = {
    functional.relu: nn.ReLU, torch.relu: nn.ReLU, functional.silu: nn.SiLU, functional.gelu: nn.GELU,
    functional.mish: nn.Mish, functional.hardswish: nn.Hardswish, functional.relu6: nn.ReLU6, functional.elu: nn.ELU,
    functional.selu: nn.SELU, functional.leaky_relu: nn.LeakyReLU, functional.softplus: nn.Softplus,
    torch.sigmoid: nn.Sigmoid, torch.tanh: nn.Tanh,
}  # fmt: skip


def to_fused(exchange: Exchange, layer: NormLayer) -> nn.Module:
    """Return a `BatchNormAct` on the norm's tensors, and leave `nn.Identity` in its activation's place.

    Only where a trace, of evaluation and of training, shows that the activation alone reads the norm; else the norm
    itself, and a note.
    """
    norm = core(layer.module)
    if isinstance(norm, BatchNormAct):
        return norm
    if norm is not layer.module or (isinstance(norm, RunningNorm) and not isinstance(norm, BatchNorm)):
        exchange.note(layer, MORE)
        return layer.module
    name = exchange.follower(layer.name)
    activation = None if name is None else exchange.model.get_submodule(name)
    if activation is None or type(activation) not in _ACTIVATIONS or _hooked(activation) or _hooked(layer.module):
        exchange.note(layer, LEFT if exchange.wiring.known else UNKNOWN)
        return layer.module
    source = plain_norm(exchange, layer)
    form = exchange.form(source)
    training = exchange.training(source, form)
    exchange.note_local(source)
    kept = copy.copy(activation)  # the one in the tree is about to be replaced wherever it hangs
    new = like(partial(BatchNormAct, activation=kept), source, form, training)
    remember(new, origin(source.module) or next((k for k in _TORCH if isinstance(source.module, k)), None))
    place = nn.Identity().train(activation.training)
    vars(new)[_PLACE] = place
    exchange.last.append(partial(replace_modules, exchange.model, [(activation, place)]))
    return new


def split(exchange: Exchange, layer: NormLayer, to: Callable[[Exchange, NormLayer], nn.Module]) -> nn.Module:
    """Return what `to` makes of the norm of a `BatchNormAct`, its activation back where it was.

    Behind it in a Sequential where it never was elsewhere. Refuses one that is known to be called with a residual.
    """
    module = layer.module
    if not isinstance(module, BatchNormAct):
        return to(exchange, layer)
    if layer.name in exchange.wiring.joined:
        raise refusal(layer, "is called with a residual, which no layer of torch's takes; leave it out with where=")
    if FREEZE in vars(module):
        raise refusal(
            layer, "is frozen, and would be two modules; call normwise.unfreeze(model), convert, freeze again"
        )
    activation = _as_module(module.activation)
    if activation is None:
        raise refusal(layer, f"has an activation that no module stands for, {module.activation!r}; leave it out")
    place = vars(module).get(_PLACE)
    there = any(place is other for other in exchange.model.modules())
    if there and _hooked(module):
        raise refusal(layer, "has hooks that see activated values; remove them, convert, and register them anew")
    if not there and not exchange.wiring.known:
        exchange.note(layer, NO_RESIDUAL)
    new = to(exchange, _norm_of(layer, module))
    if there and place is not None:
        exchange.last.append(partial(replace_modules, exchange.model, [(place, activation)]))
        return new
    exchange.note(layer, NEW_KEYS)
    return nn.Sequential(new, activation)


def _norm_of(layer: NormLayer, module: BatchNormAct) -> NormLayer:
    """Return a `BatchNorm` on the same tensors, without the activation."""
    plain = BatchNorm(
        module.num_features, module.eps, module.momentum, affine=module.affine,
        track_running_stats=module.track_running_stats, policy=module.policy, device="meta",
    )  # fmt: skip
    plain._parameters, plain._buffers = dict(module._parameters), dict(module._buffers)
    plain._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    remember(plain, origin(module))
    found = norm_layers(plain)[0]
    return NormLayer(layer.name, plain, found.statistics, found.affine)


def _as_module(activation: Any) -> nn.Module | None:
    """Return the activation as a module, or None for a function that is not known."""
    if isinstance(activation, nn.Module):
        return activation
    kind = _MODULES.get(activation)
    return None if kind is None else kind()


def _hooked(module: nn.Module) -> bool:
    """Return whether anybody's hooks would see other values."""
    return any(vars(module).get(name) for name in HOOKS)
