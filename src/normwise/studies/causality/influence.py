"""How far one input of a norm reaches other outputs, and how far an output depends on who shares its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.layers import AcrossChannelNorm, BatchNorm, TimewiseBatchNorm
from normwise.studies.estimate import Estimate, dots, root_mean
from normwise.studies.study import Progress, tracked

SEQUENCES, STEPS, CHANNELS = 8, 16, 64
COUNTS = (1, 4, 16, 64)  # sequences
LAGS = [lag for lag in range(1 - STEPS, STEPS) if lag]
GROUPS = {"pooled": (0, 2), "time-wise": (0,), "layer norm": (1,)}  # axes of `(n, c, t)` that share statistics
Squares = dict[str, list[Any]]  # by name, of each replicate a mean square, or several


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


def squared_shift(name: str, count: int) -> float:
    """Return the mean square by which a sequence's outputs move from a batch of so many to evaluation on its own.

    Inputs are standard Gaussian values; running statistics are as they begin, 0 and 1: the true ones.
    """
    norm, x = norm_of(name), torch.randn(count, CHANNELS, STEPS)
    alone, together = norm.eval()(x[:1]), norm.train()(x)[:1]
    return float((together - alone).square().mean())


def influences(replicates: int, progress: Progress) -> Squares:
    """Return the mean squares of influences and shifts, by what they are of."""
    future = torch.ones(STEPS, STEPS).triu(1).bool()
    found: Squares = {}
    for _ in tracked(range(replicates), progress):
        for name in GROUPS:
            squares = squared_influence(name, norm := norm_of(name), SEQUENCES)
            _add(found, name, float(squares.mean(1)[future].mean()))
            _add(found, f"lag, {name}", [float(squares.mean(1).diagonal(lag).mean()) for lag in LAGS])
            if name == "time-wise":
                _add(found, "others", float(squares[:, 1:].diagonal(dim1=0, dim2=2).mean()))
            if name == "pooled":
                later = squared_influence(name, norm.eval(), SEQUENCES)
                _add(found, "later", float(later.mean(1)[future].mean()))
        pooled = [squared_influence("pooled", norm_of("pooled"), count).mean(1)[future] for count in COUNTS]
        _add(found, "growth", [float(squares.mean()) for squares in pooled])
        for name in ("pooled", "layer norm"):
            _add(found, f"shift, {name}", [squared_shift(name, count) for count in COUNTS])
            _add(found, f"shift of {SEQUENCES}, {name}", squared_shift(name, SEQUENCES))
    return found


def _add(found: Squares, name: str, value: Any) -> None:
    found.setdefault(name, []).append(value)


def root(squares: Squares, name: str) -> Estimate:
    """Return a root mean square of one name."""
    return Estimate.jackknife(root_mean, squares[name])


def roots(squares: Squares, name: str, x: Sequence[float]) -> dict[str, list[float]]:
    """Return what a figure draws of one name: root mean squares over `x`."""
    return dots(x, [Estimate.jackknife(root_mean, column) for column in np.asarray(squares[name]).T])


def one_batch() -> dict[str, Any]:
    """Return a batch of one channel, `(n, t)`, its norm's `eps`, and the derivatives of each first output by all inputs.

    In double precision: `(n, n, t)`, of the pooled norm in training.
    """
    norm = BatchNorm(1, affine=False).double()
    x = torch.randn(SEQUENCES, 1, STEPS, dtype=torch.float64, requires_grad=True)
    first = norm(x)[:, 0, 0]
    rows = [torch.autograd.grad(output, x, retain_graph=True)[0][:, 0] for output in first]
    return {"x": x.detach()[:, 0].tolist(), "eps": norm.eps, "rows": torch.stack(rows).tolist()}
