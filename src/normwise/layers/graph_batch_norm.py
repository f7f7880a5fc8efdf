"""Batch normalization over the nodes of all graphs, with running statistics that hold for correlated nodes."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from normwise.core import running
from normwise.core.grouping import Cells, Channelwise, canonical
from normwise.core.moments import MIN_VALUES, Moments
from normwise.core.normalize import normalize
from normwise.core.standardise import Standardise
from normwise.errors import UsageError
from normwise.layers.base import RunningNorm
from normwise.layers.graph import check_nodes
from normwise.layers.policy import DEFAULT, StatisticsPolicy


@final
class GraphBatchNorm(nn.Module):
    r"""Normalise each channel over all nodes of the batch; drop-in for `torch_geometric.nn.BatchNorm`.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + eps}} \, weight_c + bias_c

    Nodes of one graph resemble each other. With a correlation :math:`\rho` between the nodes of a batch its variance
    is :math:`1 - \rho` of the population's, and so is an average of batch variances, which is what PyG and torch keep:
    evaluation then inflates outputs, at :math:`\rho = .9` threefold. The running variance here also holds the variance
    between batches, `running.exact`, which is what is missing.

    Shape: x `(nodes, c)` to the same; takes no batch, as PyG. Accumulation in float64 (torch's operator: its own dtype).

    Arguments: in_channels c. eps, momentum, affine, track_running_stats as `BatchNorm`. allow_single_element: a batch
    of one node or none is normalised by the running statistics, and changes none, instead of an error; requires
    track_running_stats. update: what becomes of the running statistics; `running.exponential` for PyG's own. policy,
    see `StatisticsPolicy`.

    Buffers, of `module`: running_mean; running_var, of all nodes a training run sees, weighted exponentially, initial
    values 0 and 1 included: they fade as `(1 - momentum)^k` after k batches (momentum None drops them with the first);
    num_batches_tracked. State dict as PyG's, both ways: keys begin with `module.`.

    Modes: train uses and tracks batch statistics (population variance), eval uses the running ones; `module.policy`
    changes either for good. Gradients flow through batch statistics. A constant channel gives `bias`.

    Raises, before any buffer changes: `ShapeError` for x that is not `(nodes, c)`, and whatever `BatchNorm` refuses;
    `UsageError` for allow_single_element without track_running_stats.

    >>> layer = GraphBatchNorm(3)
    >>> layer(torch.randn(5, 3)).shape, list(layer.state_dict())[0]
    (torch.Size([5, 3]), 'module.weight')

    Reference: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1; the variance is that of a mixture of the
    distribution so far, weight 1 - a, and the batch, weight a: `core.running.exact`.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        allow_single_element: bool = False,
        update: running.Update = running.exact,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        if allow_single_element and not track_running_stats:
            raise UsageError(
                "allow_single_element must be False without track_running_stats, got True; one node needs running "
                "statistics to be normalised by"
            )
        self.in_channels, self.allow_single_element = in_channels, allow_single_element
        self.module = NodeBatchNorm(
            in_channels, eps, momentum, update=update,
            affine=affine, track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip

    def reset_running_stats(self) -> None:
        """Set mean 0, variance 1, count 0."""
        self.module.reset_running_stats()

    def reset_parameters(self) -> None:
        """Set weight 1, bias 0 and the running statistics to their initial values."""
        self.module.reset_parameters()

    def forward(self, x: Float[Tensor, "nodes c"]) -> Float[Tensor, "nodes c"]:
        """Normalise x."""
        self.module.check_input(x)
        check_nodes(x)
        if self.allow_single_element and len(x) < MIN_VALUES:
            return self.module.evaluate(x)
        return self.module(x)


@final
class NodeBatchNorm(RunningNorm):
    """What `GraphBatchNorm` keeps as `module`: tables, and the rule by which the running ones follow the batches."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        update: running.Update = running.exact,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See `GraphBatchNorm`."""
        super().__init__(
            num_features, eps, momentum,
            affine=affine, track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.update = update

    def forward(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x."""
        self.check_input(x)
        if self.goes_native(x):
            return self.with_torch(x)
        return self.normalise(x, Channelwise(), Standardise(self.eps), self.weight, self.bias)

    def follows_as_torch(self) -> bool:
        """Return whether the update is torch's."""
        return self.update is running.exponential

    def evaluate(self, x: Float[Tensor, "n c *l"]) -> Float[Tensor, "n c *l"]:
        """Normalise x by the running statistics, whatever the mode, and change none."""
        moments = self.running_moments()
        coefficients = Standardise(self.eps)
        y, _ = normalize(canonical(x), Cells(), coefficients, self.weight, self.bias, known=moments)
        return y.view_as(x)

    def update_statistics(self, batch: Moments, update: running.Update | None = None) -> None:
        """Replace the running statistics by `update`, this layer's own by default."""
        super().update_statistics(batch, update or self.update)
