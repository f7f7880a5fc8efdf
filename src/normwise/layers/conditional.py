"""Batch normalization whose affine depends on a condition."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from normwise.core.estimate import modulate_rows
from normwise.core.grouping import Channelwise, Indexed, Samplewise, canonical, check_side
from normwise.core.standardise import Standardise
from normwise.errors import ShapeError
from normwise.layers.base import RunningNorm
from normwise.layers.info import required
from normwise.layers.policy import DEFAULT, StatisticsPolicy

_ROW_DIMENSIONS = 2


@final
class ConditionalBatchNorm(RunningNorm):
    r"""Normalise each channel over the whole batch, then scale and shift each sample as its condition says.

    .. math:: y_i = \frac{x_i - \mu_c}{\sqrt{\sigma_c^2 + eps}} \, weight_{c}(condition_i) + bias_c(condition_i)

    Feature-wise linear modulation of normalised activations: statistics are shared by all conditions.

    Shape: x `(n, c, *)` to the same; condition, the second argument or from the active `BatchInfo`: class ids `(n,)`,
    integers in `[0, num_classes)`, or embeddings `(n, e)`. Accumulation in float64.

    Arguments: one of num_classes, for a weight and a bias by class, and embedding_features e, for a linear map from
    embeddings to weight and bias. eps, momentum, track_running_stats, policy as `BatchNorm`.

    Parameters: weight and bias `(num_classes, c)`, from 1 and 0; or modulation, a `nn.Linear(e, 2c)` to weight and bias
    side by side, from a map that gives 1 and 0 whatever the embedding. Buffers as `BatchNorm`.

    Modes: train uses and tracks batch statistics (population variance), eval the running ones; `policy` changes either
    for good. Gradients flow through batch statistics and to embeddings. A constant channel gives the condition's bias.

    Raises, before any buffer changes: `DataError` without a condition; `ShapeError` for one of another shape, dtype or
    range, and for whatever `BatchNorm` refuses.

    >>> ConditionalBatchNorm(3, num_classes=5)(torch.randn(4, 3, 8), torch.tensor([0, 4, 4, 2])).shape
    torch.Size([4, 3, 8])

    Reference: de Vries et al. 2017, "Modulating early visual processing by language", section 3; Perez et al. 2018,
    "FiLM", eq. 1.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        embedding_features: int | None = None,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if (num_classes is None) == (embedding_features is None):
            raise ShapeError(
                f"exactly one of num_classes and embedding_features must be given, got {num_classes} and "
                f"{embedding_features}; ids need num_classes, embeddings their number of features"
            )
        for name, value in (("num_classes", num_classes), ("embedding_features", embedding_features)):
            if value is not None and value < 1:
                raise ShapeError(f"{name} must be at least 1, got {value}")
        super().__init__(
            num_features, eps, momentum,
            affine=num_classes is not None, affine_groups=num_classes,
            track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.num_classes, self.embedding_features = num_classes, embedding_features
        if embedding_features is not None:
            self.modulation = nn.Linear(embedding_features, 2 * num_features, device=device, dtype=dtype)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight 1 and bias 0 for every condition, and the running statistics to their initial values."""
        super().reset_parameters()
        if "modulation" in self._modules:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
            nn.init.ones_(self.modulation.bias[: self.num_features])

    def forward(self, x: Float[Tensor, "n c *l"], condition: Tensor | None = None) -> Float[Tensor, "n c *l"]:
        """Normalise x, then modulate each sample."""
        self.check_input(x)
        condition = required("condition", condition)
        by_condition = Standardise(self.eps, pooled=True)
        if self.num_classes is not None and self.num_classes <= len(x):
            grouping = self._classes(condition)
            return self.normalise(x, grouping, by_condition, self.weight, self.bias)
        weight, bias = self._tables_of_samples(x, condition)
        if x.ndim > _ROW_DIMENSIONS:
            return self.normalise(x, Samplewise(), by_condition, weight, bias)
        return modulate_rows(self.normalise(x, Channelwise(), Standardise(self.eps)), weight, bias)

    def _classes(self, condition: Tensor) -> Indexed:
        return Indexed(condition, self.num_classes or 0, name="condition")

    def _tables_of_samples(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias of each sample, `(n, c)`."""
        if self.weight is not None and self.bias is not None:
            index = self._classes(condition).cells(canonical(x)).sample
            return self.weight[index], self.bias[index]
        check_side("condition", condition, x)
        if condition.shape != (len(x), self.embedding_features) or not condition.is_floating_point():
            raise ShapeError(
                f"condition must be embeddings ({len(x)}, {self.embedding_features}) of a floating dtype, got "
                f"{condition.dtype} {tuple(condition.shape)}; pass one embedding a sample"
            )
        weight, bias = self.modulation(condition.to(self.modulation.weight)).chunk(2, -1)
        return weight, bias

    def extra_repr(self) -> str:
        """Show the configuration."""
        kind = "num_classes" if self.num_classes is not None else "embedding_features"
        return f"{super().extra_repr()}, {kind}={getattr(self, kind)}"
