"""What becomes of a batch's moments: running estimates of mean and unbiased variance.

Every function takes the old estimates and the batch's `Moments` and returns new ones; groups without at least two
values leave theirs as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from normwise.core.kernels import reference
from normwise.core.kernels.dispatch import current_backend
from normwise.core.moments import Moments, accumulation_dtype

Running = tuple[Float[Tensor, "*g c"], Float[Tensor, "*g c"]]
Update = Callable[[Tensor, Tensor, Moments, float | Tensor], Running]


def exponential(running_mean: Tensor, running_var: Tensor, batch: Moments, momentum: float | Tensor) -> Running:
    """Move both estimates by `momentum` towards the batch, as torch does.

    The average of batch variances misses the variance BETWEEN batches: with correlated samples it underestimates
    by `1 - rho` for good. Use `exact` for such data.
    """
    return _follow(batch)(running_mean, running_var, batch, momentum, exact=False)


def exact(running_mean: Tensor, running_var: Tensor, batch: Moments, momentum: float | Tensor) -> Running:
    """Do the same and keep the variance between batches.

    The variance of a mixture of the old distribution (weight 1 - a) and the batch (weight a):
    `(1 - a) var + a s^2 + a (1 - a) (mean_batch - mean)^2`, s^2 the batch's population variance: Bessel's would count
    the error of the batch's mean twice. Over all batches, weighted alike, it is the population variance of all values.
    """
    return _follow(batch)(running_mean, running_var, batch, momentum, exact=True)


def cumulative_momentum(num_batches_tracked: Int[Tensor, "*g"]) -> Float[Tensor, "*g"]:
    """Return the momentum that makes batch number k count one k-th: the cumulative average (momentum None)."""
    count = num_batches_tracked.to(accumulation_dtype(num_batches_tracked.device))
    return count.clamp_min(1).reciprocal()


def weight_of_initial_value(momentum: float, updates: int) -> float:
    """Return the share of its initial value that an exponential average still holds: `(1 - a)^k`."""
    return (1.0 - momentum) ** updates


def _follow(batch: Moments) -> Callable[..., Running]:
    return reference.follow if torch.compiler.is_compiling() else current_backend(batch.mean).follow
