"""The changes rules can offer. Each names its layers; those of one kind are applied together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normwise.audit.rule import Fix
from normwise.care.policy import freeze
from normwise.care.recalibrate import recalibrate
from normwise.models.batch import tensors_in
from normwise.models.task import Task
from normwise.models.walk import norm_layers


def recalibration(domain: str, batches: list[Any], task: Task, layers: Iterable[str]) -> Fix:
    """Measure running statistics anew on "data" or "target"."""
    where = "" if domain == "data" else " on the target's data"

    def action(model: nn.Module, names: Sequence[str]) -> None:
        recalibrate(model, [batch for batch in batches if _finite(batch)], task=task, layers=set(names))

    return Fix(
        f"recalibrate:{domain}",
        f"recalibrate the running statistics{where}",
        f"normwise recalibrate MODEL --data {domain.upper()} --output recalibrated.safetensors",
        tuple(layers),
        action=action,
        order=10,
        ranked=True,
    )


def _finite(batch: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors_in(batch) if tensor.is_floating_point())


def drop_bias(producers: dict[str, str], *, exact: bool = True) -> Fix:
    """Move the bias of each norm's producer into its running mean, and remove it: exact."""

    def action(model: nn.Module, names: Sequence[str]) -> None:
        norms = {layer.name: layer for layer in norm_layers(model)}
        for name in names:
            producer = model.get_submodule(producers[name])
            bias, mean = producer._parameters.get("bias"), norms[name].running_mean
            if bias is not None:
                producer.register_parameter("bias", None)
                if mean is not None:
                    mean.sub_(bias.detach().to(mean.dtype))

    return Fix(
        "drop-bias",
        "fold the bias into the running mean and remove it",
        "report.apply(model), then build the layer with bias=False",
        tuple(producers),
        exact=exact,
        action=action,
    )


def set_attribute(attribute: str, value: float, layers: Iterable[str], *, exact: bool) -> Fix:
    """Set eps or momentum."""

    def action(model: nn.Module, names: Sequence[str]) -> None:
        for name in names:
            setattr(model.get_submodule(name), attribute, value)

    return Fix(
        f"{attribute}={value:g}",
        f"set {attribute} to {value:g}",
        f"{attribute}={value:g}",
        tuple(layers),
        exact,
        action,
        1,
    )


def full_precision(layers: Iterable[str]) -> Fix:
    """Keep statistics and affine in float32."""

    def action(model: nn.Module, names: Sequence[str]) -> None:
        for name in names:
            model.get_submodule(name).float()

    return Fix(
        "float32", "keep the layer in float32", "model.get_submodule(NAME).float()", tuple(layers), True, action, 2
    )


def frozen(layers: Iterable[str]) -> Fix:
    """Freeze statistics and affine for good: evaluation is unchanged."""

    def action(model: nn.Module, names: Sequence[str]) -> None:
        for name in names:
            freeze(model.get_submodule(name), affine=True)

    return Fix(
        "freeze",
        "freeze statistics and affine for good",
        "normwise.freeze(model, affine=True)",
        tuple(layers),
        True,
        action,
        3,
    )


def tracked(domain: str, batches: list[Any], task: Task, layers: Iterable[str]) -> Fix:
    """Give a norm without running statistics some, measured on the data."""

    def action(model: nn.Module, names: Sequence[str]) -> None:
        norms = {layer.name: layer for layer in norm_layers(model)}
        for name in names:
            module = model.get_submodule(name)
            like = next(module.parameters(), torch.empty(0))
            channels = norms[name].channels or 0
            module.register_buffer("running_mean", torch.zeros(channels, dtype=like.dtype, device=like.device))
            module.register_buffer("running_var", torch.ones(channels, dtype=like.dtype, device=like.device))
            module.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=like.device))
            vars(module)["track_running_stats"] = True
        recalibrate(model, batches, task=task, layers=set(names))

    return Fix(
        "track-statistics",
        f"keep running statistics, measured on the {domain}",
        "track_running_stats=True, then normwise recalibrate",
        tuple(layers),
        action=action,
        order=4,
    )


def input_affine(producer: str, scale: float, offset: Tensor) -> Fix:
    """Undo a scale and an offset of the inputs; measured, and left to the person's own input pipeline."""
    shown = ", ".join(f"{value:.3g}" for value in offset.tolist())

    def action(model: nn.Module, names: Sequence[str]) -> None:
        model.get_submodule(producer).register_forward_pre_hook(partial(_undo, scale, offset))

    return Fix(
        "input-normalisation",
        f"normalise the inputs as in training: x -> (x - [{shown}]) / {scale:.3g}",
        f"transforms.Normalize(mean=[{shown}], std=[{scale:.3g}])",
        (producer,),
        action=action,
        order=-1,
        advice=True,
    )


def _undo(scale: float, offset: Tensor, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x = inputs[0]
    centre = offset.to(x).view(1, -1, *[1] * (x.ndim - 2))
    return ((x - centre) / scale, *inputs[1:])


def advice(kind: str, description: str, command: str, layers: Iterable[str] = ()) -> Fix:
    """Say what a person can do; nothing is applied."""
    return Fix(kind, description, command, tuple(layers), advice=True)
