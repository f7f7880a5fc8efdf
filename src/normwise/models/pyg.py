"""PyTorch Geometric's norms and ours, which take the same arguments and tables; recognised without importing it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from normwise.core import running
from normwise.layers.base import RunningNorm
from normwise.layers.graph_batch_norm import GraphBatchNorm, NodeBatchNorm
from normwise.layers.graph_instance_norm import GraphInstanceNorm
from normwise.layers.graph_layer_norm import GraphLayerNorm
from normwise.layers.graph_norm import GraphNorm
from normwise.layers.pair_norm import PairNorm
from normwise.models.exchange import LEAVES_OUT_BETWEEN, TAKES_IN_BETWEEN, Exchange, refusal, remember
from normwise.models.form import RUN_ERRORS, without_hooks
from normwise.models.walk import NormLayer, core

_OURS: dict[str, type[nn.Module]] = {
    "BatchNorm": GraphBatchNorm,
    "GraphNorm": GraphNorm,
    "InstanceNorm": GraphInstanceNorm,
    "LayerNorm": GraphLayerNorm,
    "PairNorm": PairNorm,
}
_ARGUMENTS = (
    "eps", "momentum", "affine", "track_running_stats", "allow_single_element", "mode", "scale", "scale_individually",
)  # fmt: skip
_TOLERANCE = 1e-4  # of values near 1: room for an eps of 1e-5 outside the root, none for anything else
_NODES, _GRAPHS = 24, 3


def theirs(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of PyG that a module is of, or a subclass of; None for everything else."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch_geometric.nn.norm.") and kind.__name__ in _OURS:
            return None if kind.__name__ == "BatchNorm" and not isinstance(core(module), nn.BatchNorm1d) else kind
    return None


def ours(module: nn.Module) -> type[nn.Module] | None:
    """Return our class that does what a PyG norm does."""
    kind = theirs(module)
    return None if kind is None else _OURS[kind.__name__]


def from_pyg(exchange: Exchange, layer: NormLayer, kind: Callable[..., Any]) -> nn.Module:
    """Return our layer, of a class or a `partial` of one, on the tensors of PyG's."""
    new = _rebuilt(exchange, layer, kind)
    if isinstance(new, GraphBatchNorm) and new.module.update is not running.exponential:
        exchange.note(layer, TAKES_IN_BETWEEN)
    remember(new, theirs(layer.module))
    return new


def to_pyg(exchange: Exchange, layer: NormLayer, kind: type[nn.Module]) -> nn.Module:
    """Return PyG's layer on the tensors of ours."""
    norm = core(layer.module)
    if isinstance(norm, RunningNorm):
        exchange.check_policy(layer, norm.policy)
    if isinstance(norm, NodeBatchNorm) and norm.update is not running.exponential:
        exchange.note(layer, LEAVES_OUT_BETWEEN)
    return _rebuilt(exchange, layer, kind)


def _rebuilt(exchange: Exchange, layer: NormLayer, kind: Callable[..., Any]) -> Any:
    """Return a layer of the other side on the same tensors, note where it parts, or refuse."""
    new = _rebuild(kind, layer.module)
    if new is None:
        raise refusal(layer, "does more than the class it is of, which would be lost; leave it out with where=")
    note = _difference(layer.module)
    if note is not None:
        exchange.note(layer, note)
    return new


def _rebuild(kind: Callable[..., Any], module: nn.Module) -> Any:
    """Return a layer of one side on the tensors of the other side's; None where they do not compute the same."""
    norm, taken = core(module), set(inspect.signature(kind).parameters) - set(getattr(kind, "keywords", ()))
    arguments = {name: getattr(norm, name, getattr(module, name, None)) for name in _ARGUMENTS if name in taken}
    if "in_channels" in taken:
        arguments["in_channels"] = _channels(module)
    new = kind(**arguments)
    if _tables(new) != _tables(module):
        return None
    for name, place in new.named_modules():
        source = module.get_submodule(name)
        place._parameters.update(source._parameters)
        place._buffers.update(source._buffers)
        place._non_persistent_buffers_set = set(source._non_persistent_buffers_set)
    return new if _agree(new, module) else None


def _tables(module: nn.Module) -> set[str]:
    """Return the names of all parameters and buffers."""
    return {name for name, _ in (*module.named_parameters(), *module.named_buffers())}


def _channels(module: Any) -> int:
    """Return the number of channels a layer of either side was constructed with; any will do for one that tells none."""
    return getattr(module, "in_channels", getattr(module, "num_features", 4))


def _difference(module: nn.Module) -> str | None:
    """Return where PyG's layer and ours part all the same; module is either of them."""
    names = {kind.__name__ for kind in type(module).__mro__}
    if names & {"InstanceNorm", "GraphInstanceNorm"} and getattr(module, "track_running_stats", False):
        return "graphs of fewer than two nodes enter the running statistics of PyG's layer, and not those of ours"
    if getattr(module, "mode", "") == "graph":
        return "where it is given no batch, PyG's layer adds eps outside the root, ours inside as with one"
    if getattr(module, "scale_individually", False):
        return "PyG's layer adds eps outside the root, ours inside"
    return None


def _agree(first: nn.Module, second: nn.Module) -> bool:
    """Return whether both compute the same on random graphs, with the same random tables, in training and evaluation."""
    draw = torch.Generator().manual_seed(0)
    one, other = without_hooks(first), without_hooks(second)
    for key, table in one.state_dict().items():
        if table.is_floating_point():
            table.copy_(0.5 + torch.rand(table.shape, generator=draw, dtype=torch.float64))
            other.state_dict()[key].copy_(table)
    x = torch.randn(_NODES, _channels(first), generator=draw, dtype=torch.float64) + 1
    graphs = torch.arange(_NODES) * _GRAPHS // _NODES
    return all(_same(one, other, x, graphs, training=training) for training in (False, True))


def _same(one: nn.Module, other: nn.Module, x: Tensor, graphs: Tensor, *, training: bool) -> bool:
    """Return whether two layers give the same outputs."""
    outputs = []
    for layer in (one, other):
        for module in layer.modules():
            module.training = training
        arguments = (x, graphs) if "batch" in inspect.signature(layer.forward).parameters else (x,)
        try:
            with torch.no_grad():
                outputs.append(layer(*arguments))
        except RUN_ERRORS:
            return False
    return torch.allclose(*outputs, rtol=_TOLERANCE, atol=_TOLERANCE)
