"""A small model that really was trained, and its data: what the audit's tests break in known ways."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.studies.data import digits

MEAN, STD = 0.305, 0.376
Batches = list[tuple[Tensor, Tensor]]


@cache
def _trained() -> tuple[nn.Module, Tensor, Tensor]:
    images, labels = digits()
    images = (images - MEAN) / STD
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for epoch in range(10):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - epoch / 10)
            for x, y in zip(images[:1200].split(64), labels[:1200].split(64), strict=True):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model.eval(), images[1200:], labels[1200:]


def trained() -> nn.Module:
    """A fresh copy of the trained model; norms are '1', '4' and '8'."""
    return copy.deepcopy(_trained()[0]).eval()


def batches(size: int = 32) -> Batches:
    """Batches it was not trained on."""
    _, images, labels = _trained()
    return list(zip(images.split(size), labels.split(size), strict=True))


def raw(size: int = 32) -> Batches:
    """The same without input normalisation."""
    return [(x * STD + MEAN, y) for x, y in batches(size)]
