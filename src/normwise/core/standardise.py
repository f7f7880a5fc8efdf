"""Coefficients that standardise: scale and shift from mean and variance, with an affine."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from normwise.core.kernels import reference
from normwise.core.moments import Moments

Tables = tuple[Float[Tensor, "..."], Float[Tensor, "..."]]


@dataclass(frozen=True)
class Standardise:
    r"""Coefficients that give mean `bias` and standard deviation `weight` (population variance plus eps).

    .. math:: scale = weight / \sqrt{\sigma^2 + ((1 - share) \mu)^2 + eps}, \quad shift = bias - share \, \mu \, scale

    share, of the mean that is taken off: 1 where none is given; what is left of the mean counts as variance.
    pooled: by one statistic over all cells, each with its own affine. Weight, bias and share are `(c,)` or `(g, c)`.
    `core.normalize` knows its derivative in closed form.

    Reference: Ioffe and Szegedy 2015, algorithm 1; with a share, Cai et al. 2021, "GraphNorm", section 4.
    """

    eps: float = 1e-5
    pooled: bool = False

    def statistics(self, moments: Moments) -> Moments:
        """Return the moments that are standardised by, of those of the cells: tables `(g, c)` or `(1, c)`."""
        return moments.pool(0, keepdim=True) if self.pooled else moments

    def __call__(
        self, moments: Moments, weight: Tensor | None = None, bias: Tensor | None = None, share: Tensor | None = None
    ) -> Tables:
        """Return scale and shift, by operators that autograd knows."""
        return reference.standardise(self.statistics(moments), weight, bias, share, eps=self.eps)
