"""Norms made torch's: its batch norms, group norms, a fixed affine, or spectral norm on the layer in front."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normwise.errors import ModelError
from normwise.models.exchange import NOT_EXACT, Exchange, origin, refusal
from normwise.models.form import EvaluationForm, scale_and_shift
from normwise.models.plain import plain_norm
from normwise.models.pyg import to_pyg
from normwise.models.replace import adopt, like
from normwise.models.walk import NormLayer

TORCH_CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BY_RANK = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_MOST_GROUPS = 32  # Wu and He 2018


@final
class FrozenAffine(nn.Module):
    r"""A norm with its running statistics worked into one scale and shift a channel: :math:`y = scale_c x + shift_c`.

    Shape: `(n, c, *)` to the same. Buffers: scale, shift, `(c,)`. No modes; gradients flow to x only.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        """Take scale and shift, `(c,)`."""
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift x, in the wider of its dtype and the buffers'."""
        view = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.shift.view(view), x, self.scale.view(view)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return str(len(self.scale))


def to_torch(exchange: Exchange, layer: NormLayer) -> nn.Module:
    """Return a layer of torch's, or of PyG's where it was converted from one."""
    if isinstance(layer.module, TORCH_CLASSES):
        return layer.module
    kind = origin(layer.module)
    if kind is not None and kind not in TORCH_CLASSES:
        return to_pyg(exchange, layer, kind)
    source = plain_norm(exchange, layer)
    form = exchange.form(source)
    training = exchange.training(source, form)
    exchange.check_policy(layer, training.policy)
    exchange.note_local(source)
    return like(_torch_class(exchange, source, form), source, form, training)


def _torch_class(exchange: Exchange, layer: NormLayer, form: EvaluationForm) -> type[nn.Module]:
    kind = origin(layer.module)
    if kind is not None:
        return kind
    kinds = {_BY_RANK[rank] for rank in form.ranks}
    if len(kinds) == 1:
        return kinds.pop()
    rank = exchange.wired_rank(layer.name)
    if rank is None:
        why = (
            "no convolution in front of it says"
            if exchange.wiring.known
            else ("the model's code cannot be traced to see which convolution feeds it, pass example=")
        )
        raise ModelError(
            f"model: cannot tell whether layer '{layer.name}' stands for nn.BatchNorm1d, 2d or 3d, it takes inputs of "
            f"any rank and {why}; replace it by hand, its state_dict fits"
        )
    return _BY_RANK[rank]


def to_frozen_affine(exchange: Exchange, layer: NormLayer) -> nn.Module:
    """Return the running statistics and the affine as one scale and shift."""
    source = plain_norm(exchange, layer)
    form = exchange.form(source)
    mean = source.running_mean
    if mean is None or form.batch:
        raise ModelError(
            f"model: layer '{layer.name}' normalises with batch statistics in evaluation too, expected running ones; "
            "leave it out with where="
        )
    scale, shift = (table.to(mean.dtype).to(mean.device) for table in scale_and_shift(source, form.eps))
    exchange.note(layer, "exact in evaluation; in training the statistics and the affine no longer learn")
    return FrozenAffine(scale, shift)


def to_group_norm(exchange: Exchange, layer: NormLayer, *, groups: Callable[[int], int]) -> nn.Module:
    """Return `nn.GroupNorm` of so many groups of channels."""
    source = plain_norm(exchange, layer)
    form = exchange.form(source)
    channels = int(source.channels or 0)
    number = groups(channels)
    new = nn.GroupNorm(number, channels, form.eps, affine=False, device="meta")
    adopt(new, source, ("weight", "bias"))
    new.affine = source.weight is not None
    kind = {1: "one group of all channels", channels: "one group a channel"}.get(number, "groups of channels")
    exchange.note(layer, NOT_EXACT.format(f"each sample is now normalised with its own statistics over {kind}"))
    return new


def to_spectral(exchange: Exchange, layer: NormLayer) -> nn.Module:
    """Return nothing in the norm's place, and put torch's spectral norm on the layer that feeds it."""
    exchange.form(plain_norm(exchange, layer))
    feed = exchange.wiring[layer.name]
    if feed.producer is None:
        why = "" if exchange.wiring.known else ": the model's code cannot be traced, pass example="
        raise refusal(layer, f"is not known to take the output of one convolution or linear layer{why}; leave it out")
    producer = exchange.model.get_submodule(feed.producer)
    if not feed.sole or feed.calls != 1 or feed.producer_calls != 1:
        raise refusal(layer, f"or '{feed.producer}' in front of it is used more than once; leave it out with where=")
    if parametrize.is_parametrized(producer, "weight"):
        raise refusal(layer, f"is fed by '{feed.producer}', which is parametrized already; leave it out with where=")
    exchange.last.append(partial(parametrizations.spectral_norm, producer))
    exchange.note(
        layer,
        "not exact: the norm is removed, statistics, weight and bias with it, and the largest singular value of the "
        "weight in front of it is held at 1; train the model on",
    )
    return nn.Identity()


def by_most_groups(channels: int) -> int:
    """Return the most groups up to 32 that divide the channels."""
    return math.gcd(channels, _MOST_GROUPS)
