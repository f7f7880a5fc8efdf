"""What is looked at in a discriminator before its training, and in both players of a game while they train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.studies.digit_scores import DigitScores, covered
from normwise.studies.discriminator_coupling import games, probes
from normwise.studies.estimate import root_mean_square

CONTRASTS = (1.0, 0.5, 0.25, 0.125)  # each half of the one before
LOOKS = np.arange(1, 11) / 10  # of the steps, when samples are looked at
HALF = 64  # reals, and as many fakes, of a batch
_FEW, SHOWN = 8, 20  # of each half for a whole Jacobian; samples that are shown


def some(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw so many images, with replacement."""
    return pixels[torch.randint(len(pixels), (count,), generator=generator)]


def fakes(count: int, generator: torch.Generator) -> Tensor:
    """Return images of a generator that has not learnt anything yet."""
    return games.generator_net()(torch.randn(count, games.LATENT, generator=generator)).detach()


def at_start(kind: games.Kind, pixels: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Look at a discriminator with random weights, in float64."""
    model = games.discriminator(kind).double()
    real, fake, better = some(pixels, HALF, generator), fakes(HALF, generator), some(pixels, HALF, generator)
    real, fake, better = real.double(), fake.double(), better.double()
    found = _looked_at(model, real, fake, better)
    few = real[:_FEW], fake[:_FEW]
    steepness = [found["lipschitz"], *(probes.lipschitz(model, *(c * x for x in few)) for c in CONTRASTS[1:])]
    with torch.no_grad():
        features = model[0](torch.cat(few))
    return {
        **found,
        "steepening": [one / steepness[0] for one in steepness],
        "variances": features.var(0, unbiased=False).tolist(),
        "layer": float(torch.linalg.matrix_norm(_weight(model[0]), 2)),
    }


def _weight(linear: Any) -> Tensor:
    return linear.weight.detach()


def _looked_at(model: nn.Module, real: Tensor, fake: Tensor, better: Tensor) -> dict[str, float]:
    """Return how real logits move when digits replace the fakes, the generator's gradient through statistics, steepness."""
    probes.hold_weights(model)
    with torch.no_grad():
        spread = games.judge(model, real, fake)[0].std()
    return {
        "shift": root_mean_square(probes.shift(model, real, fake, better) / spread),
        "through": probes.through_statistics(model, real, fake, games.generator_loss),
        "lipschitz": probes.lipschitz(model, real[:_FEW], fake[:_FEW]),
    }


def played(
    kind: games.Kind, pixels: Tensor, scores: DigitScores, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """Train both players, and look at samples of the same noise again and again, as many as digits are held back."""
    noise = torch.randn(len(scores.held), games.LATENT, generator=generator)
    found: dict[str, list[Any]] = {"distance": [], "covered": [], "classes": []}
    game = games.Game(kind)
    for _ in LOOKS:
        game.play(pixels, steps=steps // len(LOOKS), batch=HALF // 2, noise=generator)
        made = game.images(noise)
        found["distance"].append(scores.distance(made))
        found["covered"].append(covered(scores.shares(made)))
        found["classes"].append(scores.classes(made))
    chosen = game.images(noise).flatten(1)[:HALF]
    after = _looked_at(game.discriminator, some(pixels, HALF, generator), chosen, some(pixels, HALF, generator))
    turned, back = turns(torch.stack(found.pop("classes")[len(LOOKS) // 2 :]))
    losses = game.losses[steps // 2 :]
    return {
        **found,
        **{f"{name} after": value for name, value in after.items()},
        "turned": turned,
        "back": back,
        "loss": float(np.std(losses) / np.mean(losses)),
        "pictures": gallery_of(chosen[:SHOWN]),
    }


def turns(classes: Tensor) -> tuple[float, float]:
    """Return the share of samples of another class at the next look, and of those there that are back at the one after.

    Shape: `(looks, samples)`. Both are shares of all samples: a generator on its way turns, one that oscillates turns back.
    """
    turned = classes[1:] != classes[:-1]
    back = turned[:-1] & (classes[2:] == classes[:-2])
    return float(turned.double().mean()), float(back.double().mean())


def gallery_of(pixels: Tensor) -> list[Any]:
    """Return images for a gallery, in two rows."""
    return pixels.view(2, -1, 8, 8).mul(100).round().div(100).tolist()
