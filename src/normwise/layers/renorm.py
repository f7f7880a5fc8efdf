"""Batch renormalization."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from normwise.core.estimate import renormalise
from normwise.core.grouping import Channelwise
from normwise.errors import ShapeError
from normwise.layers.base import RunningNorm
from normwise.layers.policy import DEFAULT, StatisticsPolicy


@final
class BatchRenorm(RunningNorm):
    r"""Normalise by the batch, then correct towards the running statistics, so that training sees what evaluation sees.

    .. math:: y = \left( \frac{x - \mu_c}{\sigma_c} r + d \right) weight_c + bias_c, \quad
       r = \mathrm{clip}\left(\frac{\sigma_c}{\sigma}, \frac1{r_{max}}, r_{max}\right), \quad
       d = \mathrm{clip}\left(\frac{\mu_c - \mu}{\sigma}, -d_{max}, d_{max}\right)

    with mu_c, sigma_c of the batch (population variance), mu, sigma the running ones before this batch, eps inside
    every root. Where neither is clipped y is that of evaluation; for small or dependent batches.

    Shape: `(n, c, *)` to the same. Accumulation in float64.

    Arguments: r_max, at least 1, and d_max, at least 0, the bounds of the correction (3 and 5: where the paper ends);
    1 and 0 is plain batch normalization. Both are attributes: the paper holds them at 1 and 0 for the first 5,000
    steps, while the running statistics settle, then raises r_max to 3 by step 40,000 and d_max to 5 by step 25,000.
    momentum 0.1 (the paper: 0.01). The others as `BatchNorm`.

    Buffers: as `BatchNorm` (the paper averages sigma, this its square). State dict as `nn.BatchNorm2d`.

    Modes: train and eval as `BatchNorm`; `policy` changes either for good. Gradients flow through batch statistics,
    and take r and d for constants, as the paper does. A constant channel gives `d * weight + bias`. Under activation
    checkpointing the recomputation finds the running statistics updated: r and d differ by one step of momentum.

    Raises: as `BatchNorm`, before any buffer changes.

    >>> BatchRenorm(3, r_max=1.5, d_max=0.5)(torch.randn(8, 3)).shape
    torch.Size([8, 3])

    Reference: Ioffe 2017, "Batch Renormalization", algorithm 1.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        affine: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__(num_features, eps, momentum, affine=affine, policy=policy, device=device, dtype=dtype)
        if not r_max >= 1:
            raise ShapeError(f"r_max must be at least 1, got {r_max}; 1 leaves the scale alone")
        if not d_max >= 0:
            raise ShapeError(f"d_max must not be negative, got {d_max}; 0 leaves the mean alone")
        self.r_max, self.d_max = r_max, d_max

    def forward(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x."""
        self.check_input(x)
        if not self.uses_batch_statistics() and self.goes_native(x):
            return self.with_torch(x)
        coefficients = partial(
            renormalise, running=self.running_moments(), eps=self.eps, r_max=self.r_max, d_max=self.d_max
        )
        return self.normalise(x, Channelwise(), coefficients, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"
