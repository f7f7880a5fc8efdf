"""Small generators of digits by class: conditional batch norm, labels beside the noise, a network a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import final

import torch
from torch import Tensor, nn

from normwise.layers import BatchInfo, BatchNorm, ConditionalBatchNorm

CLASSES, LATENT, SIDE, KERNEL = 10, 8, 8, 3
_RATE, _BATCH = 1e-2, 16  # of Adam; images of each class in a step


@dataclass(frozen=True)
class Kind:
    """How a generator is told the class: by its norms, by networks that never meet, or by more inputs."""

    norm: Callable[[int], nn.Module]
    networks: int = 1
    labels: int = 0


KINDS = {
    "conditional BN": Kind(partial(ConditionalBatchNorm, num_classes=CLASSES)),
    "labels beside the noise": Kind(BatchNorm, labels=CLASSES),
    "a network a class": Kind(BatchNorm, networks=CLASSES),
}


@final
class ConditionalGenerator(nn.Module):
    """From noise `(n, 10, 8)`, some for every class, to images `(n, 10, 8, 8)` in [0, 1], by networks of some width.

    Networks of their own for each class are groups of channels.
    """

    def __init__(self, kind: Kind, width: int) -> None:
        """Build it; width is that of each network."""
        super().__init__()
        k, channels, inputs = kind.networks, kind.networks * width, kind.networks * (LATENT + kind.labels)
        self.kind = kind
        self.body = nn.Sequential(
            nn.ConvTranspose2d(inputs, channels, SIDE // 2, groups=k, bias=False), kind.norm(channels), nn.ReLU(),
            convolution(channels, channels, k), kind.norm(channels), nn.ReLU(),
            convolution(channels, channels, k), kind.norm(channels), nn.ReLU(),
            convolution(channels, 4 * k, k), nn.PixelShuffle(2), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        """Draw an image of each class from each noise."""
        if self.kind.networks > 1:
            rows = noise.flatten(1)
        else:
            labels = torch.eye(CLASSES, self.kind.labels).expand(len(noise), -1, -1)
            rows = torch.cat([noise, labels], 2).flatten(0, 1)
        with BatchInfo(condition=torch.arange(CLASSES).repeat(len(noise))):
            return self.body(rows[..., None, None]).view(-1, CLASSES, SIDE, SIDE)


def convolution(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size of its maps."""
    return nn.Conv2d(inputs, outputs, KERNEL, padding=1, groups=groups, bias=False)


def parameters(module: nn.Module) -> int:
    """Count a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def widest(make: Callable[[int], nn.Module], budget: int) -> int:
    """Return the largest width, at least 1, whose module has no more parameters than the budget."""
    return next(width for width in count(1) if parameters(make(width + 1)) > budget)


def train(
    model: ConditionalGenerator, images: Tensor, labels: Tensor, *, steps: int, noise: torch.Generator
) -> ConditionalGenerator:
    """Train by the energy distance in pixels between drawn and real images of each class; return it in evaluation.

    Stable, without an adversary, and blind to the classifier that judges afterwards.

    Reference: Szekely and Rizzo 2013, "Energy statistics", eq. 1.
    """
    optimizer = torch.optim.Adam(model.parameters(), _RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    members = [images[labels == label].flatten(1) for label in range(CLASSES)]
    for _ in range(steps):
        real = torch.stack([own[torch.randint(len(own), (_BATCH,), generator=noise)] for own in members])
        made = model(torch.randn(_BATCH, CLASSES, LATENT, generator=noise)).flatten(2).transpose(0, 1)
        between, within = torch.cdist(made, real).mean(), torch.cdist(made, made).mean() * _BATCH / (_BATCH - 1)
        optimizer.zero_grad()
        (2 * between - within).backward()
        optimizer.step()
        schedule.step()
    return model.eval()
