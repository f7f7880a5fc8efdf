"""What a layer registers: how to make it, what it must compute, what it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

EPS = 1e-5
Side = tuple[Tensor | int, ...]  # by sample, or a number of groups
State = dict[str, np.ndarray]  # float64


def no_side(x: Tensor) -> Side:
    """The layer takes x alone."""
    return ()


def one_group(x: Tensor, side: Side) -> Tensor:
    """All values of a channel are one group; shape `(n, 1, *)`."""
    return torch.zeros_like(x[:, :1], dtype=torch.long)


@dataclass(frozen=True)
class Refusal:
    """An input a layer of three channels must refuse, and words of the message.

    side: the side information, if not the case's own. mask: the mask, as an argument by name. training_only: evaluation
    takes it.
    """

    message: str
    shape: tuple[int, ...] = (4, 3, 2)
    dtype: torch.dtype = torch.float64
    device: str | None = None
    side: Callable[[Tensor], Side] | None = None
    mask: Callable[[Tensor], Tensor] | None = None
    training_only: bool = False


BAD_INPUT = (
    Refusal("3 channels", (4, 5, 2)),
    Refusal("must be", (3,)),
    Refusal("must be", ()),
    Refusal("floating dtype", dtype=torch.int64),
    Refusal("floating dtype", dtype=torch.bool),
    Refusal("floating dtype", dtype=torch.complex64),
    Refusal("dtype", dtype=torch.float32),
    Refusal("dtype", dtype=torch.bfloat16),
    Refusal("device", device="meta"),
)
TOO_FEW_VALUES = tuple(
    Refusal("more than 1 value per channel", shape, training_only=True)
    for shape in ((1, 3), (1, 3, 1, 1), (0, 3), (0, 3, 4), (4, 3, 0))
)


@dataclass(frozen=True)
class LayerCase:
    """How to make a layer and what it must compute.

    create(channels, *, momentum, dtype): the layer; without `running` (running statistics), momentum is not passed.
    oracle(x, side, state, momentum): the output and the floating buffers after one training step, in plain float64
    loops; `state` holds all parameters and buffers before it, `momentum` is a number or, for a layer that counts
    batches by group, with momentum None, one number a group. A counter of which it says nothing is expected to rise by
    one. evaluate(x, side, state): the output in evaluation mode.

    shapes: of inputs; the first two, rows and `(n, c, l)` where a layer takes both, are all that a slow backend runs.
    trivial(channels, ...), trivial_side(x), trivial_shapes: the layer, the side information and the inputs that make it
    plain batch normalization, tables reshaped; `trivial_side` None where nothing does. offset_shape: the shape of many
    values for it. groups_are_centred: whether input gradients sum to zero over each group. exchangeable: whether
    permuting samples permutes the output. twin: whether the state dict is torch's.
    """

    create: Callable[..., nn.Module]
    oracle: Callable[[np.ndarray, Side, State, float | np.ndarray], tuple[np.ndarray, State]]
    evaluate: Callable[[np.ndarray, Side, State], np.ndarray] | None = None
    shapes: tuple[tuple[int, ...], ...] = ((7, 3), (4, 3, 5), (3, 2, 3, 4), (2, 2, 2, 3, 2))
    side: Callable[[Tensor], Side] = no_side
    groups: Callable[[Tensor, Side], Tensor] = one_group
    trivial: Callable[..., nn.Module] | None = None
    trivial_side: Callable[[Tensor], Side] | None = no_side
    trivial_shapes: tuple[tuple[int, ...], ...] | None = None
    offset_shape: tuple[int, ...] = (64, 4, 50)
    refusals: tuple[Refusal, ...] = BAD_INPUT + TOO_FEW_VALUES
    running: bool = True
    groups_are_centred: bool = True
    exchangeable: bool = True
    twin: bool = True

    def variant(self, **changes: Any) -> LayerCase:
        """The same case but for some of it."""
        return replace(self, **changes)
