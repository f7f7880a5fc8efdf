"""Folding a norm into the convolution or linear layer in front of it, for deployment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from normwise.errors import ModelError
from normwise.models.batch import tensors_in
from normwise.models.form import HOOKS, RUN_ERRORS, scale_and_shift, without_hooks
from normwise.models.replace import replace_modules
from normwise.models.task import Task
from normwise.models.walk import NormLayer, norm_layers
from normwise.models.wiring import Feed, find_wiring

_EPS_UNTOLD = (1e-5, 0.0, 1e-3)
_PAIR_TOLERANCE = 1e-6  # in float64: room for a norm that computes in float32, none for a wrong formula
_NAMED = 3


@dataclass(frozen=True)
class FoldPair:
    """A norm, the module it would be folded into, and why not (None: it can be)."""

    norm: str
    producer: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class _Fusion:
    """What replaces a pair: a producer with the norm inside it, and what else the norm did (its activation)."""

    producer: nn.Module
    rest: nn.Module


class _RefusedError(ModelError):
    """Why a pair is left as it is."""


def fold(model: nn.Module, *, example: Any = None, task: Task | None = None) -> nn.Module:
    """Return a copy of the model, in evaluation mode, with norms folded into the layers in front of them.

    Each pair is checked against the original on random input; what cannot be folded exactly stays (`fold_plan` says
    why). A zero-padded or otherwise padded convolution is fine: the norm acts after it, channel by channel, so padding
    sees the same values as before (a norm BEFORE a padded convolution could not be folded, and is not).
    example: a batch; the whole model's outputs are then compared as well, and a model that cannot be traced is
    followed on it. Raises `ModelError` if nothing can be folded, or if outputs differ.
    """
    task = Task() if task is None else task
    plan = _plan(model, example, task)
    fusions = {pair: fusion for pair, fusion in plan if isinstance(fusion, _Fusion)}
    if not fusions:
        raise ModelError(f"model: nothing to fold in {type(model).__name__}: {_reasons([pair for pair, _ in plan])}")
    folded = copy.deepcopy(model).eval()
    modules = dict(folded.named_modules())
    swaps: list[tuple[nn.Module, nn.Module]] = []
    for pair, fusion in fusions.items():
        _set_affine(modules[str(pair.producer)], fusion.producer)
        swaps.append((modules[pair.norm], fusion.rest))
    folded = replace_modules(folded, swaps)
    if example is not None:
        _check_whole(model, folded, [pair.norm for pair in fusions], partial(task.run, batch=example))
    return folded


def fold_plan(model: nn.Module, *, example: Any = None, task: Task | None = None) -> list[FoldPair]:
    """Return every norm of the model, whether `fold` would fold it, and why not."""
    return [pair for pair, _ in _plan(model, example, Task() if task is None else task)]


def _plan(model: nn.Module, example: Any, task: Task) -> list[tuple[FoldPair, _Fusion | None]]:
    layers = norm_layers(model)
    if not layers:
        raise ModelError(f"model: expected normalization layers, found none in {type(model).__name__}; nothing to fold")
    wiring = find_wiring(model, None if example is None else partial(task.run, model, example))
    modules = dict(model.named_modules())
    plan: list[tuple[FoldPair, _Fusion | None]] = []
    for layer in layers:
        feed = wiring[layer.name]
        try:
            if not wiring.feeds:
                raise _RefusedError("the model cannot be traced; pass example=, a batch to follow")
            producer = _admit(layer, feed, modules)
            plan.append((FoldPair(layer.name, feed.producer), _fuse(layer, producer)))
        except _RefusedError as refusal:
            plan.append((FoldPair(layer.name, feed.producer, str(refusal)), None))
    return plan


def _admit(layer: NormLayer, feed: Feed, modules: dict[str, nn.Module]) -> nn.Module:
    """Return the producer of a pair that may be folded."""
    if feed.producer is None:
        raise _RefusedError("its input is not the output of a convolution or linear layer alone")
    producer = modules[feed.producer]
    policy = getattr(layer.module, "policy", None)
    refusals = (
        (feed.functional, "it is called inside a module that does more"),
        (layer.statistics is None, "it has no running statistics"),
        (policy is not None and policy.evaluation.value == "batch", "it uses batch statistics in evaluation"),
        (feed.calls > 1, f"it is used {feed.calls} times in one pass"),
        (feed.producer_calls > 1, f"'{feed.producer}' is used {feed.producer_calls} times in one pass"),
        (not feed.sole, f"the output of '{feed.producer}' is used elsewhere too"),
        (_has_hooks(layer.module), "it has hooks, which would be lost"),
        (_has_hooks(producer), f"'{feed.producer}' has hooks, which see its output"),
        (
            parametrize.is_parametrized(producer),
            f"'{feed.producer}' is parametrized; remove its parametrizations first",
        ),
        (parametrize.is_parametrized(layer.module), "it is parametrized; remove its parametrizations first"),
    )
    for refused, reason in refusals:
        if refused:
            raise _RefusedError(reason)
    return producer


def _has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)


def _fuse(layer: NormLayer, producer: nn.Module) -> _Fusion:
    """Return the fused pair after comparing it, in float64 on random input, with the real one."""
    rest = _rest(layer.module)
    best: tuple[float, _Fusion | None] = (float("inf"), None)
    if layer.channels != _channels(producer):
        raise _RefusedError(f"it has {layer.channels} channels, its producer {_channels(producer)}")
    for eps in _EPS_UNTOLD if layer.eps is None else (layer.eps,):
        twin = without_hooks(producer).eval()
        _scale(twin, *scale_and_shift(layer, eps))
        best = min(best, (_pair_difference(layer, producer, twin, rest), _Fusion(twin, rest)), key=lambda pair: pair[0])
    if best[1] is None or not best[0] <= _PAIR_TOLERANCE:
        raise _RefusedError(
            f"the folded pair differs from the real one by {best[0]:.1e} of its largest output: one of them does more "
            "than its parameters say"
        )
    return best[1]


def _rest(norm: nn.Module) -> nn.Module:
    """Return what a fused norm does after normalising: its children, such as an activation, in their order."""
    children = [copy.deepcopy(child).eval() for child in norm.children()]
    if not children or any(True for child in children for _ in (*child.parameters(), *child.buffers())):
        return nn.Identity().eval()
    return children[0] if len(children) == 1 else nn.Sequential(*children).eval()


def _channels(producer: nn.Module) -> int:
    return producer.out_features if isinstance(producer, nn.Linear) else int(getattr(producer, "out_channels", 0))


def _scale(producer: Any, scale: Tensor, shift: Tensor) -> None:
    """Multiply the output channels of a float64 producer by `scale` and add `shift`."""
    weight, bias = producer.weight.detach(), producer.bias
    if isinstance(producer, _ConvTransposeNd):  # (in, out / groups, *): output channels run within each group
        by_group = weight.unflatten(0, (producer.groups, -1))
        factor = scale.view(producer.groups, 1, -1, *(1,) * (weight.ndim - 2))
        weight = (by_group * factor).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    producer.weight = nn.Parameter(weight, requires_grad=False)
    producer.bias = nn.Parameter(shift if bias is None else shift + bias.detach() * scale, requires_grad=False)


def _set_affine(producer: Any, fused: nn.Module) -> None:
    """Give a producer the fused weight and bias, in its own dtype and place."""
    like = producer.weight
    for name in ("weight", "bias"):
        value = getattr(fused, name).detach().to(device="cpu").to(dtype=like.dtype).to(device=like.device)
        setattr(producer, name, nn.Parameter(value.contiguous(), requires_grad=like.requires_grad))


def _pair_difference(layer: NormLayer, producer: nn.Module, fused: nn.Module, rest: nn.Module) -> float:
    """Return the largest difference of the pair's outputs, relative to the largest output of its channel."""
    x = _random_input(producer)
    before, norm, after = without_hooks(producer).eval(), without_hooks(layer.module), without_hooks(rest)
    for module in norm.modules():
        module.training = False
    try:
        with torch.no_grad():
            expected, got = norm(before(x)), after(fused(x))
    except RUN_ERRORS as error:
        raise _RefusedError(f"the pair does not run on its own ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        raise _RefusedError("the pair's output is not a tensor of its producer's shape")
    largest = expected.abs().transpose(0, 1).flatten(1).amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((got - expected).abs().transpose(0, 1).flatten(1).amax(1) / largest).nan_to_num(torch.inf).max())


def _random_input(producer: nn.Module) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    if isinstance(producer, nn.Linear):
        return torch.randn(4, producer.in_features, generator=draw, dtype=torch.float64)
    if not isinstance(producer, _ConvNd):
        raise _RefusedError(f"{type(producer).__name__} is no convolution or linear layer")
    extent = [
        d * (k - 1) + 1 + s for d, k, s in zip(producer.dilation, producer.kernel_size, producer.stride, strict=True)
    ]
    shape = (2, producer.in_channels, *((3,) * len(extent) if isinstance(producer, _ConvTransposeNd) else extent))
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def _check_whole(model: nn.Module, folded: nn.Module, norms: list[str], run: Callable[[nn.Module], Any]) -> None:
    """Raise `ModelError` if the folded model's outputs differ beyond rounding: by half the digits of their dtype."""
    reference = copy.deepcopy(model).eval()
    with torch.no_grad():
        difference, tolerance = _difference(run(reference), run(folded))
        if difference <= tolerance:
            return
        before, after = _record(reference, norms, run), _record(folded, norms, run)
    differing = (name for name in norms if name in before and not _close(before[name], after.get(name)))
    layer = next(differing, norms[0])
    raise ModelError(
        f"model: folding changed the outputs by {difference:.1e} of the largest one, first at layer '{layer}', "
        f"expected at most {tolerance:.1e}; the model uses that layer in a way its parameters do not show, leave it unfolded"
    )


def _difference(expected: Any, got: Any) -> tuple[float, float]:
    """Return the largest relative difference of two outputs' floating tensors, and the tolerance of their dtype."""
    worst, tolerance = 0.0, 0.0
    for a, b in zip(tensors_in(expected), tensors_in(got), strict=True):
        if not a.is_floating_point() or not a.numel():
            continue
        same = (a == b) | (a.isnan() & b.isnan())
        largest = float(a.double().abs().nan_to_num(0.0, posinf=0.0).max())
        gap = float((a.double() - b.double()).abs().nan_to_num(torch.inf).masked_fill(same, 0.0).max())
        worst = max(worst, gap / largest if largest else gap)
        tolerance = max(tolerance, torch.finfo(a.dtype).eps ** 0.5)
    return worst, tolerance


def _close(expected: Any, got: Any) -> bool:
    difference, tolerance = _difference(expected, got)
    return difference <= tolerance


def _record(model: nn.Module, names: list[str], run: Callable[[nn.Module], Any]) -> dict[str, Any]:
    outputs: dict[str, Any] = {}

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs.setdefault(name, output)

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in names]
    run(model)
    for handle in handles:
        handle.remove()
    return outputs


def _reasons(pairs: list[FoldPair]) -> str:
    shown = "; ".join(f"'{pair.norm}': {pair.refusal}" for pair in pairs[:_NAMED])
    return f"{shown} and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else shown
