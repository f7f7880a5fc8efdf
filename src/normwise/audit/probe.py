"""Small probes on a few samples: does one sample reach another, and what dropout does to variances."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normwise.care.recalibrate import batch_statistics
from normwise.core.moments import ClusteredMoments
from normwise.errors import DataError
from normwise.models.batch import batch_size, map_tensors, take_samples, tensors_in
from normwise.models.observe import NormCall, Statistics, observing
from normwise.models.preserve import preserved, preserved_random_state
from normwise.models.task import Task, prediction

LEAK_SAMPLES = 3  # with two, batch statistics give plus and minus one whatever the samples
DROPOUT_SAMPLES = 16
_ROUNDING = 1e-6  # relative: kernels may order sums by batch content on accelerators
_DROPOUTS = ("dropout", "droppath", "drop_path", "dropblock")


def probe_leak(model: nn.Module, task: Task, batch: Any) -> dict[str, Any] | str | None:
    """Return the evidence of a leak between samples in evaluation mode, None if there is none, or why none can be sought."""
    n = min(LEAK_SAMPLES, batch_size(batch))
    if n < 2:
        return "the leak probe (NW301) needs a batch of at least two samples"
    batch = take_samples(batch, slice(0, n))
    before = _run(model, task, batch)
    if before.shape[:1] != (n,):
        return "the leak probe (NW301) needs an output whose first axis is the batch's"
    changed = _changed(batch)
    moved, gradient = _moved(before, _run(model, task, changed)), _gradient(model, task, batch, n)
    if moved <= _ROUNDING and gradient <= _ROUNDING:
        return None
    kept: list[dict[str, Tensor]] = [{}, {}]
    for outputs, inputs in zip(kept, (batch, changed), strict=True):
        _run(model, task, inputs, outputs)
    first = next((k for k in kept[0] if k in kept[1] and _moved(kept[0][k], kept[1][k], n) > _ROUNDING), "")
    return {"layer": first, "perturbation": moved, "gradient": gradient, "samples": n}


def _changed(batch: Any) -> Any:
    """Change the first sample: floats are moved, integers replaced by those of the last sample."""
    n = batch_size(batch)

    def change(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or tensor.shape[0] != n:
            return tensor
        tensor = tensor.clone()
        if tensor.is_floating_point():
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(tensor[0].shape, generator=generator).to(tensor)
            tensor[0] += noise * tensor.detach().float().std().nan_to_num(1.0).clamp_min(1e-3).to(tensor)
        else:
            tensor[0] = tensor[-1]
        return tensor

    return map_tensors(change, batch)


def _run(model: nn.Module, task: Task, batch: Any, outputs: dict[str, Tensor] | None = None) -> Tensor:
    """Run once from the same state and return the prediction; keep every module's first output if asked to."""

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = next((t for t in tensors_in(output) if t.is_floating_point()), None)
        if tensor is not None and outputs is not None:
            outputs.setdefault(name, tensor.detach().clone())

    with preserved(model), torch.no_grad():
        model.eval()
        for name, module in model.named_modules():
            if name and outputs is not None:
                module.register_forward_hook(partial(keep, name))  # `preserved` takes it off
        torch.manual_seed(0)
        return prediction(task.run(model, batch)).detach()


def _moved(before: Tensor, after: Tensor, n: int | None = None) -> float:
    """Return how far the outputs of the samples that were NOT changed moved, relative to their size."""
    if before.shape != after.shape or before.ndim == 0 or (n is not None and len(before) != n):
        return 0.0
    gap = (before[1:].double() - after[1:].double()).nan_to_num(0.0).abs().max() if before[1:].numel() else 0.0
    size = before[1:].double().nan_to_num(0.0).abs().max() if before[1:].numel() else 1.0
    return float(gap) / max(float(size), 1e-12)


def _gradient(model: nn.Module, task: Task, batch: Any, n: int) -> float:
    """Return the size of the others' gradient by the first sample, relative to that by themselves."""
    floats: list[Tensor] = []

    def track(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.ndim == 0 or tensor.shape[0] != n:
            return tensor
        floats.append(tensor.detach().clone().requires_grad_())
        return floats[-1]

    tracked = map_tensors(track, batch)
    try:
        with preserved(model), torch.enable_grad():
            model.eval().requires_grad_(False)
            torch.manual_seed(0)
            output = prediction(task.run(model, tracked))
            if not floats or not output.requires_grad:
                return 0.0
            others = output[1:]
            direction = torch.randn(others.shape, generator=torch.Generator().manual_seed(1)).to(others)
            found = torch.autograd.grad((others * direction).sum(), floats, allow_unused=True)
    except (RuntimeError, NotImplementedError, DataError):
        return 0.0  # not every model that predicts can be differentiated; the other probe stands
    known = [gradient.double().nan_to_num(0.0) for gradient in found if gradient is not None]
    own = max((float(gradient[1:].abs().max()) for gradient in known), default=0.0)
    leaked = max((float(gradient[0].abs().max()) for gradient in known), default=0.0)
    return leaked / own if own else leaked


def probe_dropout(model: nn.Module, task: Task, batch: Any) -> dict[str, float]:
    """Return for each norm its input's variance with dropout on over that with it off, geometric mean over channels."""
    active = [
        m
        for m in model.modules()
        if getattr(m, "p", None) and any(word in type(m).__name__.lower() for word in _DROPOUTS)
    ]
    if not active:
        return {}
    small = take_samples(batch, slice(0, DROPOUT_SAMPLES))
    off, on = _variances(model, task, small, []), _variances(model, task, small, active)
    ratios = {}
    for name in off.keys() & on.keys():
        quiet, loud = off[name].values.variance, on[name].values.variance
        alive = quiet > quiet.mean() * 1e-3
        if bool(alive.any()) and off[name].clusters > 1:
            ratios[name] = float((loud[alive] / quiet[alive]).log().mean().exp())
    return ratios


def _variances(model: nn.Module, task: Task, batch: Any, active: list[nn.Module]) -> dict[str, ClusteredMoments]:
    found: dict[str, ClusteredMoments] = {}

    def visit(call: NormCall) -> Statistics | None:
        clusters = ClusteredMoments.of(call.sample_moments())
        known = found.get(call.layer.name)
        found[call.layer.name] = clusters if known is None else known.merge(clusters)
        return batch_statistics(clusters.values)

    with torch.no_grad(), preserved_random_state(), observing(model, visit) as watch:
        torch.manual_seed(0)
        for module in active:
            module.training = True
        watch.begin_pass()
        task.run(model, batch)
        for module in active:
            module.training = False
    return found
