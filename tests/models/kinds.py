"""Norms as they come in the wild, and small networks around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import BatchNorm

CHANNELS = 6


class SubclassedNorm(nn.BatchNorm2d):
    """A subclass that goes through super."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class FrozenBatchNorm2d(nn.Module):
    """Detection's frozen norm: buffers only, arithmetic of its own."""

    def __init__(self, c: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(c))
        self.register_buffer("bias", torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.view(1, -1, 1, 1) * (self.running_var.view(1, -1, 1, 1) + self.eps).rsqrt()
        return x * scale + (self.bias.view(1, -1, 1, 1) - self.running_mean.view(1, -1, 1, 1) * scale)


class EpslessFrozen(FrozenBatchNorm2d):
    """The same, and its eps is written into the code."""

    def __init__(self, c: int) -> None:
        super().__init__(c)
        del self.eps

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * self.running_var.rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


class Renamed(nn.Module):
    """Torch's operator under another class name."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-3, 0.2
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class Ported(nn.Module):
    """A port from TensorFlow: other names, other arithmetic, momentum the other way round."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-3, 0.99
        self.gamma, self.beta = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.register_buffer("moving_mean", torch.zeros(c))
        self.register_buffer("moving_variance", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        view = (1, -1) + (1,) * (x.ndim - 2)
        mean, variance = self.moving_mean, self.moving_variance
        if self.training:
            values = x.transpose(0, 1).flatten(1)
            mean, variance = values.mean(1), values.var(1, correction=0)
            with torch.no_grad():
                self.moving_mean.lerp_(mean, 1 - self.momentum)
                self.moving_variance.lerp_(values.var(1), 1 - self.momentum)
        return (x - mean.view(view)) / (variance + self.eps).sqrt().view(view) * self.gamma.view(view) + self.beta.view(
            view
        )


class NormAct(nn.BatchNorm2d):
    """timm's fused layer: the norm, then an activation."""

    def __init__(self, c: int) -> None:
        super().__init__(c)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(
            functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
            )
        )


class HiddenAct(nn.BatchNorm2d):
    """The same with an activation that no child module shows."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(super().forward(x))


class OwnsConv(nn.Module):
    """One module that holds a convolution and the buffers of a functional norm."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))
        self.momentum = 0.1

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            self.conv(x), self.running_mean, self.running_var, training=self.training, momentum=self.momentum
        )


# Pure norms for (n, c, h, w), by what is odd about them.
NORMS = {
    "torch": nn.BatchNorm2d,
    "subclass": SubclassedNorm,
    "renamed": Renamed,
    "ported": Ported,
    "sync": nn.SyncBatchNorm,
    "no-affine": lambda c: nn.BatchNorm2d(c, affine=False),
    "ours": BatchNorm,
    "frozen": FrozenBatchNorm2d,
}
WITH_MORE = {"norm-act": NormAct, "hidden-act": HiddenAct, "owns-conv": OwnsConv}


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and buffer a value that shows."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=draw)
            tensor.data.copy_(values + 0.5 if "var" in name else values - 0.3)
    return model


def images(n: int = 5, c: int = CHANNELS, seed: int = 1) -> Tensor:
    return torch.randn(n, c, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 + 0.7


def net(norm: nn.Module, c: int = CHANNELS) -> nn.Module:
    """A convolution, the norm, and a head."""
    return randomize(
        nn.Sequential(nn.Conv2d(c, c, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(c * 25, 3))
    ).eval()


def snapshot(model: nn.Module) -> dict[str, bytes]:
    """Return the bits of every parameter and buffer."""
    return {key: value.detach().clone().numpy().tobytes() for key, value in model.state_dict().items()}
