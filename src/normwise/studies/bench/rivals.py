"""The usual ways to do what our layers do, as people write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-5
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def native(shape: tuple[int, ...], **options: Any) -> nn.Module:
    """Return torch's batch normalization for tensors of a shape."""
    return _BATCH_NORMS[len(shape)](shape[1], **options)


def by_channel(table: Tensor, x: Tensor) -> Tensor:
    """Shape a table `(c,)` so that it broadcasts against x."""
    return table.view(1, -1, *[1] * (x.ndim - 2))


def by_sample(table: Tensor, x: Tensor) -> Tensor:
    """Shape a table `(n, c)` so that it broadcasts against x."""
    return table.view(*table.shape, *[1] * (x.ndim - 2))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
    return mean, variance


class _Tables(nn.Module):
    """Abstract: tables by channel, for what is made of torch operators and differentiated by autograd."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def track(self, mean: Tensor, variance: Tensor) -> None:
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(variance, 0.1)

    def affine(self, y: Tensor) -> Tensor:
        return y * by_channel(self.weight, y) + by_channel(self.bias, y)


class Composite(_Tables):
    """Batch normalization."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        mean, variance = _moments(x)
        self.track(mean, variance)
        return self.affine((x - by_channel(mean, x)) * by_channel((variance + EPS).rsqrt(), x))


class Apart(nn.Module):
    """Batch normalization, addition and activation, one after the other."""

    def __init__(self, norm: nn.Module, activation: nn.Module, *, in_place: bool = False) -> None:
        """See the class."""
        super().__init__()
        self.norm, self.activation, self.in_place = norm, activation, in_place

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the output."""
        y = self.norm(x)
        if residual is not None:
            y = y.add_(residual) if self.in_place else y + residual
        return self.activation(y)


class Packed(nn.Module):
    """The valid positions taken out, normalised and put back."""

    def __init__(self, channels: int) -> None:
        """See the class."""
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the output."""
        last = x.transpose(1, 2)
        return torch.zeros_like(last).index_put((mask,), self.norm(last[mask])).transpose(1, 2)


class MaskedComposite(_Tables):
    """Batch normalization with masked sums."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the output."""
        valid = mask.unsqueeze(1).to(x.dtype)
        count = valid.sum()
        mean = (x * valid).sum((0, 2), keepdim=True) / count
        centred = (x - mean) * valid
        variance = centred.square().sum((0, 2), keepdim=True) / count
        self.track(mean.flatten(), variance.flatten())
        return self.affine(centred * (variance + EPS).rsqrt()) * valid


class MaskLoop(nn.Module):
    """One batch normalization a domain, each given its samples by a mask."""

    def __init__(self, shape: tuple[int, ...], domains: int) -> None:
        """See the class."""
        super().__init__()
        self.norms = nn.ModuleList(native(shape) for _ in range(domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Return the output."""
        y = torch.empty_like(x)
        for number, norm in enumerate(self.norms):
            chosen = domain == number
            y[chosen] = norm(x[chosen])
        return y


class Modulated(nn.Module):
    """Batch normalization without affine, then a weight and a bias looked up by class."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """See the class."""
        super().__init__()
        self.norm = native(shape, affine=False)
        self.weight, self.bias = (nn.Parameter(torch.zeros(classes, shape[1])) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the output."""
        weight, bias = (functional.embedding(condition, table) for table in (self.weight, self.bias))
        return by_sample(weight, x) * self.norm(x) + by_sample(bias, x)


class Steps(nn.Module):
    """One batch normalization a step."""

    def __init__(self, channels: int, steps: int) -> None:
        """See the class."""
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(steps))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        return torch.stack([norm(x[..., step]) for step, norm in enumerate(self.norms)], -1)


class Columns(nn.Module):
    """All steps in one batch normalization whose channels are the pairs of channel and step."""

    def __init__(self, channels: int, steps: int) -> None:
        """See the class."""
        super().__init__()
        self.norm, self.steps = nn.BatchNorm1d(channels * steps, affine=False), steps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        weight, bias = (table.repeat_interleave(self.steps) for table in (self.weight, self.bias))
        norm = self.norm
        y = functional.batch_norm(x.flatten(1), norm.running_mean, norm.running_var, weight, bias, True, 0.1, EPS)
        return y.view_as(x)


class Chunks(nn.Module):
    """Batch normalization of one part of the batch after the other."""

    def __init__(self, shape: tuple[int, ...], splits: int) -> None:
        """See the class."""
        super().__init__()
        self.norm, self.splits = native(shape), splits

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        return torch.cat([self.norm(part) for part in x.chunk(self.splits)])


class RenormComposite(_Tables):
    """Batch renormalization."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        mean, variance = _moments(x)
        sigma, running = (variance + EPS).sqrt(), (self.running_var + EPS).sqrt()
        r = (sigma / running).clamp(1 / 3, 3).detach()
        d = ((mean - self.running_mean) / running).clamp(-5, 5).detach()
        self.track(mean, variance)
        y = (x - by_channel(mean, x)) / by_channel(sigma, x)
        return self.affine(y * by_channel(r, x) + by_channel(d, x))


class AcrossComposite(_Tables):
    """Normalization over channels at each position."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return self.affine((x - mean) * (variance + EPS).rsqrt())
