"""What a layer of ours is without its side information: a `BatchNorm` on its tensors, tables by group made one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normwise.core import running
from normwise.core.moments import Moments
from normwise.layers.base import RunningNorm
from normwise.layers.batch_norm import BatchNorm
from normwise.layers.batch_norm_act import BatchNormAct
from normwise.layers.conditional import ConditionalBatchNorm
from normwise.layers.domain import DomainBatchNorm
from normwise.layers.ghost import GhostBatchNorm
from normwise.layers.graph_batch_norm import NodeBatchNorm
from normwise.layers.graph_instance_norm import GraphInstanceNorm
from normwise.layers.masked import MaskedBatchNorm
from normwise.layers.renorm import BatchRenorm
from normwise.layers.timewise import TimewiseBatchNorm
from normwise.models.exchange import LEAVES_OUT_BETWEEN, NEW_PARAMETERS, Exchange, origin, refusal, remember
from normwise.models.replace import FREEZE
from normwise.models.walk import NormLayer, core, norm_layers

_ITSELF = (BatchNorm, BatchNormAct, GraphInstanceNorm)  # nothing to take away, or more than side information
_LOST: dict[type[nn.Module], str] = {
    BatchRenorm: "training is no longer corrected towards the running statistics",
    ConditionalBatchNorm: "conditions are ignored from now on",
    DomainBatchNorm: "domains are ignored from now on",
    GhostBatchNorm: "training normalises the batch as a whole from now on",
    MaskedBatchNorm: "lengths and masks are ignored from now on",
    TimewiseBatchNorm: "steps and lengths are ignored from now on",
}


def plain_norm(exchange: Exchange, layer: NormLayer, *, on_the_way_to: type[nn.Module] | None = None) -> NormLayer:
    """Return the layer itself or, for one of ours that does more than `BatchNorm`, a `BatchNorm` in its place.

    What is lost is noted, unless a layer of the class `on_the_way_to` does the same. Raises `ModelError` where weight
    and bias differ between groups: no single ones say the same.
    """
    module = core(layer.module)
    outer = layer.module
    if module is not outer:
        layer = replace(norm_layers(module)[0], name=layer.name)
    if not isinstance(module, RunningNorm) or isinstance(module, _ITSELF) or parametrize.is_parametrized(module):
        return layer
    lost = _LOST.get(type(module))
    if isinstance(module, NodeBatchNorm) and module.update is not running.exponential:
        lost = LEAVES_OUT_BETWEEN
    if lost is not None and on_the_way_to not in (type(outer), type(module)):
        exchange.note(layer, lost)
    tables = _affine(exchange, layer, module)
    plain = BatchNorm(
        module.num_features, module.eps, module.momentum, affine=tables["weight"] is not None,
        track_running_stats=module.track_running_stats, policy=module.policy,
    )  # fmt: skip
    for name, table in (tables | _statistics(exchange, layer, module)).items():
        plain._parameters.pop(name, None)
        plain._buffers.pop(name, None)
        if table is None or isinstance(table, nn.Parameter):
            plain._parameters[name] = table
        else:
            plain._buffers[name] = table
    plain._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    remember(plain, nn.BatchNorm1d if isinstance(module, (NodeBatchNorm, TimewiseBatchNorm)) else origin(module))
    return replace(norm_layers(plain)[0], name=layer.name)


def _affine(exchange: Exchange, layer: NormLayer, module: RunningNorm) -> dict[str, Tensor | None]:
    """Return weight and bias `(c,)`: the same objects, or new ones where all groups have the same values."""
    if isinstance(module, ConditionalBatchNorm) and module.embedding_features is not None:
        if FREEZE in vars(module):
            raise refusal(layer, "is frozen and its parameters will get other names; unfreeze, convert, freeze again")
        linear = module.modulation
        weight, bias = linear.bias.chunk(2)
        agreed, learnt = not bool(linear.weight.any()), True
    elif module.weight is None or module.weight.ndim == 1:
        return {"weight": module.weight, "bias": module.bias}
    else:
        weight, bias = module.weight[0], None if module.bias is None else module.bias[0]
        agreed, learnt = all(map(_agree, (module.weight, module.bias))), isinstance(module.weight, nn.Parameter)
    if not agreed:
        raise refusal(layer, "has a weight and a bias by group, and they differ; leave it out with where=")
    if not learnt:
        return {"weight": weight, "bias": bias}
    exchange.note(layer, NEW_PARAMETERS)
    pairs = (("weight", weight), ("bias", bias))
    return {name: None if t is None else nn.Parameter(t.detach().clone(), t.requires_grad) for name, t in pairs}


def _agree(table: Tensor | None) -> bool:
    """Return whether all rows of a table are the same."""
    return table is None or torch.equal(table, table[:1].expand_as(table))


def _statistics(exchange: Exchange, layer: NormLayer, module: RunningNorm) -> dict[str, Tensor]:
    """Return running statistics `(c,)`: the same objects, or the groups' own merged, weighted by their batches."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    tables: dict[str, Tensor] = {name: getattr(module, name) for name in names if getattr(module, name) is not None}
    if module.groups is None or module.running_mean is None or module.running_var is None:
        return tables
    mean, variance = module.running_mean, module.running_var
    batches = tables["num_batches_tracked"]
    if _agree(mean) and _agree(variance):
        merged = mean[0].clone(), variance[0].clone()
    else:
        exchange.note(layer, "the groups' running statistics differ and were merged, weighted by their batches")
        weights = batches if bool(batches.any()) else torch.ones_like(batches)
        moments = Moments.from_variance(weights.unsqueeze(-1), mean, variance).pool(0)
        merged = moments.mean.to(mean.dtype), moments.variance.to(variance.dtype)
    return dict(zip(names, (*merged, batches.max()), strict=True))
