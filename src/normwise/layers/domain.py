"""Batch normalization by domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from normwise.core.estimate import fill_from_pooled
from normwise.core.grouping import Cells, Indexed
from normwise.core.moments import Moments
from normwise.core.standardise import Standardise
from normwise.errors import DataError, ShapeError
from normwise.layers.base import RunningNorm
from normwise.layers.info import required
from normwise.layers.policy import DEFAULT, StatisticsPolicy


@final
class DomainBatchNorm(RunningNorm):
    r"""Normalise each channel over the samples of each domain; a batch may mix domains in any order.

    .. math:: y_i = \frac{x_i - \mu_{gc}}{\sqrt{\sigma_{gc}^2 + eps}} \, weight_c + bias_c, \quad g = domain_i

    Shape: x `(n, c, *)` to the same; domain `(n,)`, integers in `[0, num_domains)`, the second argument or from the
    active `BatchInfo`. Accumulation in float64.

    Arguments: num_domains g. affine_by_domain: weight and bias are `(g, c)`, one set a domain, instead of shared `(c,)`
    (the default: only the statistics tell domains apart). unseen: what evaluation uses for domains no batch has
    updated: `(running moments, num_batches_tracked) -> moments`, by default `fill_from_pooled`, the mixture of the
    other domains, weighted by their batches, the variance between them included (initial values where no domain has
    been updated); None to refuse such a domain. The others as `BatchNorm`.

    Buffers: running_mean and running_var (unbiased) `(g, c)`; num_batches_tracked `(g,)`, the batches that updated
    each domain, so that momentum None is each domain's own average.

    Modes: train uses and tracks the statistics of each domain in the batch, eval the running ones; `policy` changes
    either for good. Gradients flow through batch statistics. A single value of a domain, and a channel constant in
    it, give `bias`; a single value leaves its domain's buffers as they are.

    Raises, before any buffer changes: `DataError` without a domain, or for an unseen one with `unseen=None`;
    `ShapeError` for domains of another shape, dtype or range, and for whatever `BatchNorm` refuses.

    >>> DomainBatchNorm(3, num_domains=2)(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])).shape
    torch.Size([4, 3])

    Reference: Chang et al. 2019, "Domain-Specific Batch Normalization", eq. 3 and 4 (with `affine_by_domain`).
    """

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        affine_by_domain: bool = False,
        track_running_stats: bool = True,
        unseen: Callable[[Moments, Int[Tensor, " g"]], Moments] | None = fill_from_pooled,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if num_domains < 1:
            raise ShapeError(f"num_domains must be at least 1, got {num_domains}")
        super().__init__(
            num_features, eps, momentum,
            groups=num_domains, affine=affine, affine_groups=num_domains if affine_by_domain else None,
            track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.num_domains, self.affine_by_domain, self.unseen = num_domains, affine_by_domain, unseen

    def forward(self, x: Float[Tensor, "n c *l"], domain: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n c *l"]:
        """Normalise x, each sample within its domain."""
        self.check_input(x)
        grouping = Indexed(required("domain", domain), self.num_domains, name="domain")
        return self.normalise(x, grouping, Standardise(self.eps), self.weight, self.bias)

    def known_moments(self, cells: Cells) -> Moments:
        """Return the running statistics of every domain, those of unseen ones as `unseen` says."""
        batches = self.num_batches_tracked
        if batches is None or cells.sample is None:
            return self.running_moments()
        if self.unseen is not None:
            return self.unseen(self.running_moments(), batches)
        if torch.compiler.is_compiling():  # which cannot look
            return self.running_moments()
        missing = cells.sample[batches[cells.sample] == 0]
        if len(missing):
            raise DataError(
                f"domain must be one that training has seen, got {int(missing[0])}; train on it, or construct the layer "
                "with unseen=fill_from_pooled"
            )
        return self.running_moments()

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{super().extra_repr()}, num_domains={self.num_domains}, affine_by_domain={self.affine_by_domain}"
