"""Batch normalization with a residual addition and an activation in the same pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from normwise.core.grouping import Channelwise
from normwise.core.normalize import Activation
from normwise.core.standardise import Standardise
from normwise.errors import ShapeError
from normwise.layers.base import RunningNorm
from normwise.layers.policy import DEFAULT, StatisticsPolicy

_PURE_MODULES = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.ReLU6, nn.SELU,
    nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
)  # fmt: skip
_PURE_FUNCTIONS = (
    functional.elu, functional.gelu, functional.hardswish, functional.leaky_relu, functional.mish, functional.relu6,
    functional.selu, functional.silu, functional.softplus, torch.sigmoid, torch.tanh,
)  # fmt: skip

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@final
class BatchNormAct(RunningNorm):
    r"""Batch normalization, an optional residual addition and an activation, fused forward and backward.

    .. math:: y = activation\left(\frac{x - \mu_c}{\sqrt{\sigma_c^2 + eps}} \, weight_c + bias_c + residual\right)

    Shape: x and residual `(n, c, *)` to the same. Accumulation in float64 (torch's operators: their own dtype).

    Arguments: activation, a callable such as `torch.relu`, `nn.SiLU()` or one of your own; a module's parameters are
    this layer's. The others as `BatchNorm`.

    On the compiled loops ReLU costs no pass of its own and keeps nothing: the backward pass computes its gate again from
    x (with a residual it keeps y instead, which the next layer usually keeps too). Other activations that are known to be
    elementwise and without parameters (SiLU, GELU, ...) are computed again in the backward pass; any other is simply
    applied.

    Buffers, modes and state dict: as `BatchNorm`. Gradients flow through batch statistics. A constant channel gives
    `activation(bias + residual)`.

    Raises: `ShapeError`, before any buffer changes, as `BatchNorm`, and for a residual unlike x in shape or device, or of
    integers. One of a wider floating dtype widens the sum, as under autocast.

    >>> layer = BatchNormAct(3, torch.relu)
    >>> bool((layer(torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4)) >= 0).all())
    True

    Reference: Rota Bulo et al. 2018, "In-Place Activated BatchNorm", section 3 (recomputation, here from the input).
    """

    def __init__(
        self,
        num_features: int,
        activation: Callable[[Tensor], Tensor],
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        policy: StatisticsPolicy = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        if not callable(activation):
            raise ShapeError(f"activation must be a callable such as torch.relu or nn.SiLU(), got {activation!r}")
        super().__init__(
            num_features, eps, momentum,
            affine=affine, track_running_stats=track_running_stats, policy=policy, device=device, dtype=dtype,
        )  # fmt: skip
        self.activation = activation

    def forward(
        self, x: Float[Tensor, "n c *l"], residual: Float[Tensor, "n c *l"] | None = None
    ) -> Float[Tensor, "n c *l"]:
        """Normalise x, add the residual, activate."""
        self.check_input(x)
        self._check_residual(residual, x)
        if self.goes_native(x, fused=True):
            y = self.with_torch(x)
            return self.activation(y if residual is None else y + residual)
        if residual is not None and residual.dtype != x.dtype:  # the sum is of the wider one
            y = self.normalise(x, Channelwise(), Standardise(self.eps), self.weight, self.bias)
            return self.activation(y + residual)
        pure = _pure(self.activation)
        coefficients = Standardise(self.eps)
        y = self.normalise(x, Channelwise(), coefficients, self.weight, self.bias, residual=residual, activation=pure)
        return y if pure is not None else self.activation(y)

    def _check_residual(self, residual: object, x: Tensor) -> None:
        if residual is None:
            return
        if not isinstance(residual, Tensor):
            raise ShapeError(f"residual must be a tensor like x, got {type(residual).__name__}")
        if (residual.shape, residual.device) != (x.shape, x.device) or not residual.is_floating_point():
            raise ShapeError(
                f"residual must be like x, {tuple(x.shape)} {x.dtype} on {x.device}, got {tuple(residual.shape)} "
                f"{residual.dtype} on {residual.device}; project or cast it first"
            )

    def extra_repr(self) -> str:
        """Show the configuration."""
        name = "" if isinstance(self.activation, nn.Module) else getattr(self.activation, "__name__", "a callable")
        return f"{super().extra_repr()}, activation={name}" if name else super().extra_repr()


def _pure(activation: Callable[[Tensor], Tensor]) -> Activation | None:
    """Return the activation as an elementwise function that changes nothing in place, or None for an unknown one.

    A module with hooks is an unknown one: they are to be called once a forward pass, with the real tensors.
    """
    if isinstance(activation, nn.Module) and any(getattr(activation, hooks) for hooks in _HOOKS):
        return None
    if activation in (functional.relu, torch.relu) or type(activation) is nn.ReLU:
        return functional.relu
    if type(activation) in _PURE_MODULES:
        plain = copy.copy(activation)
        if getattr(plain, "inplace", False):
            plain.inplace = False  # type: ignore[attr-defined]
        return plain
    return activation if activation in _PURE_FUNCTIONS else None
