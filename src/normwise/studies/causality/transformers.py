"""Small transformers in which the norm is chosen: a model of text, and one that sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]
SYMBOLS = 40
_HEADS, _PATCH = 4, 2


class _Block(nn.Module):
    """Attention and a small network, each behind a norm of `(n, c, t)`, each added to what came in."""

    def __init__(self, width: int, norm: Norm, *, causal: bool) -> None:
        super().__init__()
        self.before, self.between = norm(width), norm(width)
        self.query, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        parts = self.query(_steps(self.before, x)).view(n, t, 3, _HEADS, c // _HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=self.causal)
        x = x + self.mix(seen.transpose(1, 2).reshape(n, t, c))
        return x + self.narrow(functional.gelu(self.widen(_steps(self.between, x))))


def _steps(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm of `(n, c, t)` to `(n, t, c)`."""
    return norm(x.transpose(1, 2)).transpose(1, 2)


class Transformer(nn.Module):
    """Positions, blocks and a last norm: `(n, t, c)` to the same. The norm alone may break the causality of attention.

    Reference: Xiong et al. 2020, "On layer normalization in the transformer architecture" (norms before each part).
    """

    def __init__(self, width: int, length: int, norm: Norm, *, causal: bool, blocks: int = 2) -> None:
        """Take a norm as a function of its width."""
        super().__init__()
        self.positions = nn.Parameter(0.1 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(_Block(width, norm, causal=causal) for _ in range(blocks)))
        self.last = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each position holds after all blocks."""
        return _steps(self.last, self.blocks(x + self.positions))


def language_model(width: int, length: int, norm: Norm) -> nn.Sequential:
    """Return a causal model of symbols: `(n, t)` to logits `(n, t, symbols)` of the next ones."""
    body = Transformer(width, length, norm, causal=True)
    return nn.Sequential(nn.Embedding(SYMBOLS, width), body, nn.Linear(width, SYMBOLS))


class VisionTransformer(nn.Module):
    """A classifier of 8 x 8 digits from 16 patches that all see each other."""

    def __init__(self, width: int, norm: Norm) -> None:
        """Take a norm as a function of its width."""
        super().__init__()
        self.cut = nn.Conv2d(1, width, _PATCH, stride=_PATCH)
        self.body = Transformer(width, 16, norm, causal=False, blocks=1)
        self.classify = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(n, 10)`."""
        return self.classify(self.body(self.cut(images).flatten(2).transpose(1, 2)).mean(1))
