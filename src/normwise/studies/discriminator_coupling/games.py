"""Small adversarial networks for 8 x 8 digits, whose discriminators differ in their normalization only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from normwise.layers import BatchInfo, BatchNorm, DomainBatchNorm

PIXELS, LATENT = 64, 16
_WIDTH, _SLOPE = 128, 0.2
_RATE, _BETAS = 1e-3, (0.5, 0.999)  # the same for all


@dataclass(frozen=True)
class Kind:
    """A discriminator's norm by its number of features, and what is made of its weights."""

    norm: Callable[[int], nn.Module]
    weights: Callable[[nn.Module], nn.Module] = lambda linear: linear


KINDS = {
    "joint BN": Kind(BatchNorm),
    "separate BN": Kind(partial(DomainBatchNorm, num_domains=2)),  # domain 0 is real, 1 is fake
    "LayerNorm": Kind(nn.LayerNorm),
    "spectral norm": Kind(lambda _: nn.Identity(), spectral_norm),
}


def discriminator(kind: Kind) -> nn.Sequential:
    """Return a discriminator from `(n, 64)` to logits `(n, 1)`."""
    sizes = ((PIXELS, _WIDTH), (_WIDTH, _WIDTH))
    hidden = [(kind.weights(nn.Linear(i, o)), kind.norm(o), nn.LeakyReLU(_SLOPE)) for i, o in sizes]
    return nn.Sequential(*(layer for block in hidden for layer in block), kind.weights(nn.Linear(_WIDTH, 1)))


def generator_net() -> nn.Sequential:
    """Return a generator from noise `(n, 16)` to images `(n, 64)` in [0, 1]."""
    return nn.Sequential(
        nn.Linear(LATENT, _WIDTH), BatchNorm(_WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), BatchNorm(_WIDTH), nn.ReLU(),
        nn.Linear(_WIDTH, PIXELS), nn.Sigmoid(),
    )  # fmt: skip


def judge(model: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of reals and fakes in one batch whose layers can know which is which."""
    domain = torch.arange(2).repeat_interleave(torch.tensor([len(real), len(fake)]))
    with BatchInfo(domain=domain):
        logits = model(torch.cat([real, fake])).squeeze(1)
    return logits[: len(real)], logits[len(real) :]


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the non-saturating loss, which falls as fakes are taken for reals."""
    return functional.softplus(-fake_logits).mean()


@final
class Game:
    """Both networks in training, and the generator's loss at each step; the caller seeds torch for their weights."""

    def __init__(self, kind: Kind) -> None:
        """Build both."""
        self.generator, self.discriminator, self.losses = generator_net(), discriminator(kind), list[float]()
        self._players = [
            torch.optim.Adam(net.parameters(), _RATE, betas=_BETAS, fused=True)
            for net in (self.discriminator, self.generator)
        ]

    def play(self, images: Tensor, *, steps: int, batch: int, noise: torch.Generator) -> None:
        """Train in turns; both see reals and fakes in one batch, so that joint statistics are joint for both."""
        judging, drawing = self._players
        for _ in range(steps):
            real = images[torch.randint(len(images), (batch,), generator=noise)]
            fake = self.generator(torch.randn(batch, LATENT, generator=noise))
            of_real, of_fake = judge(self.discriminator, real, fake.detach())
            _step(judging, generator_loss(of_real) + generator_loss(-of_fake))
            loss = generator_loss(judge(self.discriminator, real, fake)[1])
            _step(drawing, loss)
            self.losses.append(float(loss.detach()))

    @torch.no_grad()
    def images(self, noise: Tensor) -> Tensor:
        """Return what the generator makes of noise in evaluation, `(n, 1, 8, 8)`."""
        images = self.generator.eval()(noise)
        self.generator.train()
        return images.view(-1, 1, 8, 8)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
