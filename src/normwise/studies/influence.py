"""How far one input of a norm reaches other outputs: derivatives, in standard deviations of what is normalised together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import AcrossChannelNorm, BatchNorm, TimewiseBatchNorm
from normwise.studies.estimate import Estimate, dots, root_mean

SEQUENCES, STEPS, CHANNELS = 8, 16, 64
GROUPS = {"pooled": (0, 2), "time-wise": (0,), "layer norm": (1,)}  # axes of `(n, c, t)` that share statistics


def norm_of(name: str) -> nn.Module:
    """Return the norm of a name."""
    if name == "time-wise":
        return TimewiseBatchNorm(CHANNELS, STEPS, affine=False)
    return (BatchNorm if name == "pooled" else AcrossChannelNorm)(CHANNELS, affine=False)


def squared_influence(name: str, norm: nn.Module, count: int) -> Tensor:
    """Return `(t, n, s)`: the mean square of the derivative of the first sequence's output at t by each input at s.

    In standard deviations of what is normalised together; mean over channels, whose outputs take signs at random, so
    that they cannot cancel.
    """
    x = torch.randn(count, CHANNELS, STEPS, requires_grad=True)
    y = norm(x)
    deviation = x.detach().std(GROUPS[name], correction=0, keepdim=True).expand_as(x)[0]
    rows: list[Tensor] = []
    for t in range(STEPS):
        (row,) = torch.autograd.grad(y[0, :, t] @ torch.randn(CHANNELS).sign(), x, retain_graph=True)
        rows.append((row * deviation[:, t].unsqueeze(1)).square().mean(1))
    return torch.stack(rows)


def roots(x: list[int], squares: Any) -> dict[str, list[float]]:
    """Return what a figure draws of mean squares `(r, len(x))`: root mean squares."""
    return dots(x, [Estimate.jackknife(root_mean, column) for column in np.asarray(squares).T])
