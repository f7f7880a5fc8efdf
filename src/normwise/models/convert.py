"""Exchanging a model's norms for others: ours, torch's, fixed ones, or norms without batch statistics."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from normwise import layers
from normwise.errors import ModelError, NormwiseError, UsageError
from normwise.models.activation import split, to_fused
from normwise.models.exchange import Exchange, origin
from normwise.models.pyg import ours, theirs
from normwise.models.replace import hand_over, replace_modules
from normwise.models.task import Task
from normwise.models.to_ours import is_ours, to_layer, to_normwise
from normwise.models.to_torch import (
    FrozenAffine,
    by_most_groups,
    to_frozen_affine,
    to_group_norm,
    to_spectral,
    to_torch,
)
from normwise.models.walk import NormLayer, names_of, norms_and

__all__ = ["ConversionWarning", "FrozenAffine", "convert"]

Build = Callable[[Exchange, NormLayer], nn.Module]
Where = Callable[[str, nn.Module], bool] | Iterable[str]
To = type[nn.Module] | partial[Any] | str

GHOST_SPLITS = 4  # parts of 8 to 64 samples at usual batch sizes
_CLASSES = (
    layers.BatchNorm, layers.BatchRenorm, layers.GhostBatchNorm, layers.MaskedBatchNorm, layers.DomainBatchNorm,
    layers.TimewiseBatchNorm, layers.ConditionalBatchNorm, layers.AcrossChannelNorm, layers.GraphBatchNorm,
    layers.GraphNorm, layers.GraphInstanceNorm, layers.GraphLayerNorm, layers.PairNorm,
)  # fmt: skip
_GRAPH_CLASSES = _CLASSES[-5:]
_SHORT: dict[str, To] = {
    "ghost": partial(layers.GhostBatchNorm, splits=GHOST_SPLITS),
    "masked": layers.MaskedBatchNorm,
    "domain": layers.DomainBatchNorm,
}
_PLANNED = ("sync", "private")
_OF_THE_SOURCE = (
    "num_features", "in_channels", "eps", "momentum", "affine", "track_running_stats", "policy", "groups",
    "affine_groups", "device", "dtype",
)  # fmt: skip


class ConversionWarning(UserWarning):
    """A conversion changed what the model computes, in the way the message says."""


@dataclass(frozen=True)
class _Target:
    """How to build a layer, and which modules are one layer although they hold no running statistics themselves."""

    build: Build
    whole: Callable[[nn.Module], bool] = is_ours


_NAMED = {
    "normwise": _Target(to_normwise, lambda module: is_ours(module) or theirs(module) is not None),
    "torch": _Target(partial(split, to=to_torch), lambda module: is_ours(module) or origin(module) is not None),
    "frozen-affine": _Target(to_frozen_affine),
    "group": _Target(partial(to_group_norm, groups=by_most_groups)),
    "layer": _Target(partial(to_group_norm, groups=lambda channels: 1)),
    "instance": _Target(partial(to_group_norm, groups=lambda channels: channels)),
    "spectral": _Target(to_spectral),
}


def convert(
    model: nn.Module, to: To, *, where: Where | None = None, example: Any = None, task: Task | None = None
) -> nn.Module:
    """Exchange the norms of a model, in place; return the model, which is a new module if it is itself a norm.

    to: a layer class of `normwise.layers`, or `functools.partial` of one for what the old layer cannot tell
    (`partial(DomainBatchNorm, num_domains=4)`); eps, momentum, affine and statistics are the old layer's. Or a name:
    "normwise" (ours of the same kind, exact: `BatchNorm`, PyG's norms as our norms of graphs), "torch" (back to
    nn.BatchNorm1d/2d/3d, or to PyG's), "masked", "domain", "ghost" (4 splits), "frozen-affine" (running statistics
    worked into a fixed scale and shift; exact in evaluation), "group", "layer", "instance" (nn.GroupNorm with at most
    32 groups, one, or one a channel: not exact, the model must be trained on), "spectral" (no norm, and torch's
    spectral norm on the convolution or linear layer in front of it: not exact).
    `BatchNormAct` takes in the activation module behind a norm where a trace shows that it alone reads the norm, and
    leaves `nn.Identity` there; "torch" undoes it.
    where: names of norms, or `(name, module) -> bool`; None for all. example: a batch to follow through a model whose
    Python code cannot be traced, where it matters what lies before or behind a norm ("torch" from layers of ours,
    "spectral", `BatchNormAct`). task: how to run the model on it.

    A converted layer finds the side information it needs (lengths, domain, condition, graph) in the active `BatchInfo`,
    so that the model need not be changed. Parameters and buffers stay the same objects where their shapes do
    (optimizers keep working), hooks, modes, freezes and sharing are kept.
    Warns with `ConversionWarning` where the result computes something else. Raises, before anything is changed,
    `ModelError` for a layer that does more than normalise (a fused activation), trains in another way or does not fit,
    and `UsageError` for a `to` or `where` that is not known.
    """
    target = _target(to)
    found = norms_and(model, target.whole)
    if not found:
        raise ModelError(
            f"model: expected normalization layers, found none in {type(model).__name__}; nothing to convert"
        )
    run = None if example is None else partial((task or Task()).run, model, example)
    exchange, swaps = Exchange(model, run), []
    for layer in _selected(model, found, where):
        new = target.build(exchange, layer)
        if new is not layer.module:
            swaps.append((layer.module, new))
    for note, names in exchange.notes.items():  # before anything is changed: a warning may be an error
        text = f"{len(names)} layer{'s' * (len(names) > 1)} ('{names[0]}'{', ...' * (len(names) > 1)}): {note}"
        warnings.warn(text, ConversionWarning, stacklevel=2)
    for old, new in swaps:
        hand_over(old, new)
    for act in exchange.last:
        act()
    return replace_modules(model, swaps)


def _target(to: To) -> _Target:
    to = _SHORT.get(to, to) if isinstance(to, str) else to
    if isinstance(to, str) and to in _NAMED:
        return _NAMED[to]
    kind, options = (to.func, to.keywords) if isinstance(to, partial) and not to.args else (to, {})
    if kind is layers.BatchNormAct:
        if options:
            raise UsageError(f"to: BatchNormAct takes none here, got {next(iter(options))}; all is the old layers'")
        return _Target(to_fused)
    if kind in _CLASSES:
        _check_options(kind, options)
        build = partial(to_layer, kind=kind, options=options)
        return _Target(build, partial(_is_part, kind)) if kind in _GRAPH_CLASSES else _Target(build)
    state = "is not available yet" if to in _PLANNED else "is not known"
    known = ", ".join(map(repr, (*_NAMED, *_SHORT)))
    classes = ", ".join(kind.__name__ for kind in (*_CLASSES, layers.BatchNormAct))
    raise UsageError(
        f"to: {to!r} {state}; expected one of {known}, or of normwise.layers {classes}, or a partial of it"
    )


def _is_part(kind: type[nn.Module], module: nn.Module) -> bool:
    """Return whether a module is one layer on the way to a norm of graphs."""
    return is_ours(module) or isinstance(module, kind) or ours(module) in (kind, layers.GraphBatchNorm)


def _check_options(kind: type[nn.Module], options: dict[str, Any]) -> None:
    """Raise `UsageError` where a class cannot be constructed with these options and the old layer's."""
    parameters = inspect.signature(kind).parameters
    for name in options:
        if name not in parameters or name in _OF_THE_SOURCE:
            own = [known for known in parameters if known not in _OF_THE_SOURCE] or ["none"]
            raise UsageError(
                f"to: {kind.__name__} takes {', '.join(own)} here, got {name}; the rest is the old layer's"
            )
    required = [name for name, p in parameters.items() if p.default is p.empty and name not in _OF_THE_SOURCE]
    missing = [name for name in required if name not in options]
    if missing:
        raise UsageError(
            f"to: {kind.__name__} needs {missing[0]}, which the old layer cannot tell; pass "
            f"functools.partial({kind.__name__}, {missing[0]}=...)"
        )
    try:
        kind(**options) if kind is layers.PairNorm else kind(2, **options)
    except NormwiseError as error:
        raise UsageError(f"to: {kind.__name__} cannot be constructed: {error}") from error


def _selected(model: nn.Module, found: list[NormLayer], where: Where | None) -> list[NormLayer]:
    if where is None:
        return found
    if callable(where):
        return [layer for layer in found if where(layer.name, layer.module)]
    wanted = {where} if isinstance(where, str) else set(where)
    names = {layer.name: set(names_of(model, layer.module)) for layer in found}
    unknown = sorted(wanted.difference(*names.values()))
    if unknown:
        raise UsageError(
            f"where: {unknown[0]!r} is no norm of the model, expected names such as "
            f"{', '.join(map(repr, list(names)[:3]))}; they are those of model.named_modules()"
        )
    return [layer for layer in found if names[layer.name] & wanted]
