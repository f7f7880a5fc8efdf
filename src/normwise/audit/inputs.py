"""Whether a shift at the first norm is a forgotten or doubled normalization of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normwise.audit.trace import DomainTrace, Trace

_EXPLAINED = 0.8  # share of the mean shift that scale and offset of the inputs must explain
_EVEN = 0.35  # spread over channels of the log standard deviation ratio that one scale leaves
_CHANGED = 0.1  # smallest change of scale or offset, in trained units, worth a word


@dataclass(frozen=True)
class InputExplanation:
    """Inputs that look like `scale * trained + offset`, as the first convolution or linear layer sees them."""

    layer: str
    producer: str
    scale: float
    offset: Tensor
    explained: float

    @property
    def sentence(self) -> str:
        """Say it."""
        offsets = ", ".join(f"{value:+.2f}" for value in self.offset.tolist())
        return f"{self.scale:.2f} times those of training, plus ({offsets}): is their normalisation missing or doubled?"

    @property
    def evidence(self) -> dict[str, Any]:
        """The numbers."""
        return {"input_scale": self.scale, "input_offset": self.offset.tolist(), "input_explains": self.explained}


def explain_input(trace: Trace, domain: DomainTrace, first: str) -> InputExplanation | None:
    """Fit one scale, and an offset an input channel, to the shift at the first norm; None where they do not explain it.

    A convolution maps `a x + b_k` to `a (conv(x) - bias) + sum_k b_k W_k + bias`, so running statistics, measured
    statistics and weights give a and b by least squares over the output channels (borders neglected).
    """
    producer, seen = trace.wiring[first].producer, domain.layers[first]
    mean, variance = seen.layer.running_mean, seen.layer.running_var
    if producer is None or mean is None or variance is None or not seen.measured:
        return None
    module = trace.model.get_submodule(producer)
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if (
        not isinstance(weight, Tensor)
        or weight.ndim < 2
        or getattr(module, "groups", 1) != 1
        or getattr(module, "transposed", False)
    ):
        return None
    kernel = weight.detach().double().flatten(2).sum(-1) if weight.ndim > 2 else None
    if kernel is None or len(kernel) != mean.numel() or kernel.shape[1] * 2 > len(kernel):
        return None
    offset_of_layer = bias.detach().double() if isinstance(bias, Tensor) else torch.zeros_like(seen.moments.values.mean)
    observed, source = seen.moments.values, mean.detach().double() - offset_of_layer
    alive = (variance > seen.layer.working_eps) & (observed.variance > seen.layer.working_eps)
    if int(alive.sum()) < 2 * kernel.shape[1]:
        return None
    log_scale = 0.5 * (observed.variance / variance.double())[alive].log()
    scale = float(log_scale.median().exp())
    spread = float((log_scale - log_scale.median()).abs().median())
    root = variance.double().sqrt()[alive]
    gap = ((observed.mean - offset_of_layer)[alive] - scale * source[alive]) / root
    columns = kernel[alive] / root.unsqueeze(1)
    offset = torch.linalg.lstsq(columns, gap.unsqueeze(1)).solution.squeeze(1)
    shift = ((observed.mean - mean.double())[alive] / root).square().sum()
    explained = float(1 - (gap - columns @ offset).square().sum() / shift.clamp_min(1e-12))
    changed = abs(scale - 1) > _CHANGED or bool((offset.abs() > _CHANGED).any())
    if explained < _EXPLAINED or spread > _EVEN or not changed:
        return None
    return InputExplanation(first, producer, scale, offset, explained)
