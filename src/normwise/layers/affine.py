"""What every layer shares: channels, eps, affine parameters, refusals of tensors that do not fit."""

from __future__ import annotations

from abc import ABC
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from normwise.errors import ShapeError

_LEAST_DIMENSIONS = 2


class AffineNorm(nn.Module, ABC):
    """Abstract: weight and bias by channel, or by group and channel, and what a layer asks of its input."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        affine_groups: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the subclass; weight and bias are `(affine_groups, c)`, without `affine_groups` `(c,)`."""
        super().__init__()
        check_number("num_features", num_features)
        if num_features < 1:
            raise ShapeError(f"num_features must be at least 1, got {num_features}")
        check_eps(eps)
        self.num_features, self.eps, self.affine = num_features, eps, affine
        for name in ("weight", "bias"):
            table = torch.empty(table_shape(affine_groups, num_features), device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(table) if affine else None)

    def reset_parameters(self) -> None:
        """Set weight 1 and bias 0."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def check_input(self, x: Tensor) -> None:
        """Raise `ShapeError` for a tensor this layer cannot take, before any buffer has changed."""
        if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(f"x must be a tensor (n, {self.num_features}, *), got {type(x).__name__}")
        if x.ndim < _LEAST_DIMENSIONS:
            raise ShapeError(
                f"x must be (n, {self.num_features}, *), got {tuple(x.shape)}; add a batch axis with x.unsqueeze(0)"
            )
        if x.shape[1] != self.num_features:
            raise ShapeError(
                f"x must have {self.num_features} channels on axis 1, got {x.shape[1]} in {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ShapeError(f"x must be of a floating dtype, got {x.dtype}; call .float() on it")
        for table in (*self._parameters.values(), *self._buffers.values()):
            if table is None:
                continue
            if table.device != x.device:
                raise ShapeError(f"x must be on the layer's device, {table.device}, got {x.device}; move one of them")
            if table.is_floating_point() and x.dtype != table.dtype and not _mixed_precision(x.dtype, table.dtype):
                raise ShapeError(
                    f"x must be of the layer's dtype, {table.dtype}, or float16 or bfloat16 into float32, got {x.dtype}; "
                    f"call layer.to({x.dtype})"
                )

    def extra_repr(self) -> str:
        """Show the configuration."""
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


def check_number(name: str, value: object) -> None:
    """Raise `ShapeError` for a count that is not an integer."""
    if not isinstance(value, Integral):
        raise ShapeError(f"{name} must be an integer, got {value!r}")


def check_eps(eps: object) -> None:
    """Raise `ShapeError` for an eps that is not a number of 0 or more."""
    if not isinstance(eps, Real) or not float(eps) >= 0:
        raise ShapeError(f"eps must be a number that is not negative, got {eps!r}; 1e-5 is usual")


def table_shape(groups: int | None, channels: int) -> tuple[int, ...]:
    """Return `(groups, c)`, or `(c,)` without groups."""
    return (channels,) if groups is None else (groups, channels)


def _mixed_precision(values: torch.dtype, tables: torch.dtype) -> bool:
    """Return whether half-precision values meet float32 tables, which every backend computes with."""
    return values in (torch.float16, torch.bfloat16) and tables == torch.float32
