"""Norms made ours: the same tensors in a layer that knows of lengths, domains, steps, conditions, graphs."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from normwise.core import running
from normwise.layers.across_channel import AcrossChannelNorm
from normwise.layers.base import RunningNorm
from normwise.layers.batch_norm import BatchNorm
from normwise.layers.conditional import ConditionalBatchNorm
from normwise.layers.ghost import GhostBatchNorm
from normwise.layers.graph_batch_norm import GraphBatchNorm, NodeBatchNorm
from normwise.layers.graph_instance_norm import GraphInstanceNorm
from normwise.layers.graph_layer_norm import GraphLayerNorm
from normwise.layers.graph_norm import GraphNorm
from normwise.layers.pair_norm import PairNorm
from normwise.layers.policy import DEFAULT
from normwise.layers.renorm import BatchRenorm
from normwise.layers.timewise import TimewiseBatchNorm
from normwise.models.exchange import NEW_PARAMETERS, NOT_EXACT, TAKES_IN_BETWEEN, Exchange, origin, refusal, remember
from normwise.models.form import EvaluationForm, TrainingForm
from normwise.models.plain import plain_norm
from normwise.models.pyg import from_pyg, ours
from normwise.models.replace import FREEZE, like
from normwise.models.to_torch import TORCH_CLASSES
from normwise.models.walk import NormLayer, core

_RANKS = {TimewiseBatchNorm: 3, GraphBatchNorm: 2, GraphInstanceNorm: 2, GraphLayerNorm: 2, GraphNorm: 2}
_WITHOUT_STATISTICS = (AcrossChannelNorm, GraphInstanceNorm, GraphLayerNorm, GraphNorm)
_CHANGES: dict[type[nn.Module], str] = {
    AcrossChannelNorm: NOT_EXACT.format("each position is now normalised over its channels"),
    BatchRenorm: "exact in evaluation; in training outputs are corrected towards the running statistics",
    GhostBatchNorm: "exact in evaluation; in training each part of a batch is normalised by its own statistics",
    GraphInstanceNorm: NOT_EXACT.format("each graph is now normalised with its own statistics"),
    GraphLayerNorm: NOT_EXACT.format("each graph, or node, is now normalised over its channels too"),
    GraphNorm: NOT_EXACT.format("each graph is now normalised with its own statistics"),
    TimewiseBatchNorm: "exact in evaluation; in training each step is normalised by its own statistics",
}


def to_normwise(exchange: Exchange, layer: NormLayer) -> nn.Module:
    """Return our layer that does the same; ours stay as they are."""
    kind = ours(layer.module)
    if kind is not None:
        return from_pyg(exchange, layer, partial(kind, update=running.exponential) if kind is GraphBatchNorm else kind)
    return layer.module if is_ours(layer.module) else to_layer(exchange, layer, kind=BatchNorm, options={})


def to_layer(exchange: Exchange, layer: NormLayer, *, kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    """Return a layer of one class of ours, on the same tensors where it keeps tables of the same shape."""
    if isinstance(layer.module, kind) and _has(layer.module, options):
        return layer.module
    if ours(layer.module) is kind:
        return from_pyg(exchange, layer, partial(kind, **options))
    if kind is PairNorm:
        raise refusal(layer, "is no PairNorm, which has no weight and bias to take over; leave it out with where=")
    source = plain_norm(exchange, layer, on_the_way_to=kind)
    form = exchange.form(source)
    if kind in _RANKS and _RANKS[kind] not in form.ranks:
        raise refusal(
            layer, f"does not take the inputs of {_RANKS[kind]} dimensions that {kind.__name__} needs; leave it out"
        )
    if kind in _WITHOUT_STATISTICS:
        options = {**options, "track_running_stats": False} if kind is GraphInstanceNorm else options
        new = like(partial(kind, **options), source, form, TrainingForm(DEFAULT, 0.1))
    else:
        new = _with_statistics(exchange, layer, source, form, partial(kind, **options))
    if kind in _CHANGES:
        exchange.note(layer, _CHANGES[kind])
    known = {id(parameter) for parameter in layer.module.parameters()}
    if not {id(parameter) for parameter in new.parameters()} <= known:
        exchange.note(layer, NEW_PARAMETERS)
    return new


def _with_statistics(
    exchange: Exchange, layer: NormLayer, source: NormLayer, form: EvaluationForm, kind: partial[Any]
) -> nn.Module:
    """Return a layer of ours that tracks statistics as the source does."""
    training = exchange.training(source, form)
    exchange.note_local(source)
    if kind.func is BatchRenorm and source.statistics is None:
        raise refusal(layer, "tracks no statistics, which BatchRenorm corrects towards; leave it out with where=")
    if kind.func is GraphBatchNorm:
        new = kind(source.channels, track_running_stats=source.statistics is not None)
        new.module = like(partial(NodeBatchNorm, update=new.module.update), source, form, training)
        if new.module.update is not running.exponential:
            exchange.note(layer, TAKES_IN_BETWEEN)
    else:
        new = like(kind, source, form, training)
    if isinstance(new, ConditionalBatchNorm) and new.embedding_features is not None and source.weight is not None:
        _modulate(layer, source, new)
    remember(new, origin(source.module) or next((k for k in TORCH_CLASSES if isinstance(source.module, k)), None))
    return new


def _modulate(layer: NormLayer, source: NormLayer, new: ConditionalBatchNorm) -> None:
    """Start a linear map from embeddings at the source's weight and bias, whatever the embedding."""
    if FREEZE in vars(core(layer.module)):
        raise refusal(layer, "is frozen and its parameters will get other names; unfreeze, convert, freeze again")
    bias, channels = new.modulation.bias.detach(), new.num_features
    for rows, table in ((bias[:channels], source.weight), (bias[channels:], source.bias)):
        if table is not None:
            rows.copy_(table.detach())
    new.modulation.requires_grad_(source.weight is not None and source.weight.requires_grad)


def is_ours(module: nn.Module) -> bool:
    """Return whether a module is a layer of ours with batch statistics."""
    return isinstance(module, (RunningNorm, GraphBatchNorm))


def _has(module: nn.Module, options: dict[str, Any]) -> bool:
    """Return whether a layer was constructed with these options."""
    return all(getattr(module, name, getattr(core(module), name, None)) == value for name, value in options.items())
