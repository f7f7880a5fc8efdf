"""Shapes, layouts and cells that kernels are tried on."""

from __future__ import annotations

import torch
from torch import Tensor

from normwise.core.grouping import Cells

SHAPES = [(40, 3, 1), (70, 5, 4), (6, 4, 7), (5, 3, 40), (3, 2, 5000), (300, 7, 1), (40, 1030, 2), (600, 3, 20)]
KINDS = ("one", "indexed", "sorted", "holes", "prefix", "indexed prefix", "steps", "ragged steps")


def draw(shape: tuple[int, ...], channels_last: bool) -> Tensor:
    n, channels, positions = shape
    if channels_last:
        return torch.randn(n, positions, channels, dtype=torch.float64).permute(0, 2, 1)
    return torch.randn(shape, dtype=torch.float64)


def cells_of(kind: str, shape: tuple[int, ...]) -> Cells:
    n, _, positions = shape
    index = torch.randint(0, 5, (n,))
    prefix = torch.arange(positions) < torch.randint(1, positions + 1, (n, 1))
    return {
        "one": Cells(),
        "indexed": Cells(7, index),  # two of the seven are empty
        "sorted": Cells(7, index.sort().values),
        "holes": Cells(mask=torch.rand(n, positions) > 0.4),
        "prefix": Cells(mask=prefix),
        "indexed prefix": Cells(5, index, mask=prefix),
        "steps": Cells(positions, steps=True),
        "ragged steps": Cells(positions, steps=True, mask=prefix),
    }[kind]
