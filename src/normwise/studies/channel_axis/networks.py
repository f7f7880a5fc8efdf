"""Small networks that tell digits, with statistics on either axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.studies.channel_axis.maps import features
from normwise.studies.data import TRAINED

AXES = {"by": BatchNorm, "across": AcrossChannelNorm}
_FILTERS = 7


def plain(kind: str, images: Tensor, labels: Tensor, epochs: int, seed: int) -> float:
    """Return the accuracy on held-back digits of two convolutions, each with its norm."""
    torch.manual_seed(seed)
    norm = AXES[kind]
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return _learnt(model, images, labels, epochs, seed)


def beside_noise(kind: str, loudness: float, images: Tensor, labels: Tensor, epochs: int, seed: int) -> float:
    """Return the accuracy of a network whose norm meets seven filtered digits of scale 1 and a channel of noise."""
    torch.manual_seed(seed)
    digits = features(images, _FILTERS)
    digits = digits / digits.std((0, 2, 3), keepdim=True)
    noise = torch.randn(len(images), 1, 8, 8) * loudness
    model = nn.Sequential(
        AXES[kind](_FILTERS + 1), nn.Conv2d(_FILTERS + 1, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    return _learnt(model, torch.cat([noise, digits], 1), labels, epochs, seed)


def _learnt(model: nn.Module, x: Tensor, labels: Tensor, epochs: int, seed: int) -> float:
    """Train on most of the digits; return the accuracy on the others."""
    optimizer, generator = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(seed)
    for _ in range(epochs * TRAINED // 64):
        chosen = torch.randint(TRAINED, (64,), generator=generator)
        loss = functional.cross_entropy(model(x[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(x[TRAINED:]).argmax(1) == labels[TRAINED:]).double().mean())
