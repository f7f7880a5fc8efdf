"""What is looked at in a discriminator before its training, and in both players of a game while they train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.studies import gans
from normwise.studies.digit_scores import DigitScores, covered, frechet
from normwise.studies.linear_discriminator import HALF, fakes, magnitude, shift, some

CONTRASTS = (1.0, 0.5, 0.25, 0.125)
LOOKS = np.arange(1, 11) / 10  # of the steps, when samples are looked at
_FEW, _SAMPLES, SHOWN = 8, 500, 20  # of each half for a whole Jacobian; samples, and how many of them are shown


def at_start(kind: gans.Kind, pixels: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Look at a discriminator with random weights."""
    model, real, fake = gans.discriminator(kind), some(pixels, HALF, generator), fakes(HALF, generator)
    gans.hold_weights(model)
    few = real[:_FEW], fake[:_FEW]
    return {
        **_looked_at(model, real, fake, some(pixels, HALF, generator)),
        "layer": float(torch.linalg.matrix_norm(_weight(model[0]), 2)),
        "lipschitz": [gans.lipschitz(model, *(contrast * x for x in few)) for contrast in CONTRASTS],
    }


def _weight(linear: Any) -> Tensor:
    return linear.weight.detach()


def _looked_at(model: nn.Module, real: Tensor, fake: Tensor, better: Tensor) -> dict[str, float]:
    """Return how real logits move when digits take the fakes' place, and the generator's gradient through statistics."""
    with torch.no_grad():
        spread = gans.judge(model, real, fake)[0].std()
    return {
        "shift": magnitude(shift(model, real, fake, better) / spread),
        "through": gans.through_statistics(model, real, fake, gans.generator_loss),
    }


def played(
    kind: gans.Kind, images: Tensor, scores: DigitScores, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """Train both players, and look at the same samples again and again."""
    pixels, real_features = images.flatten(1), scores.features(images)
    noise = torch.randn(_SAMPLES, gans.LATENT, generator=generator)
    found: dict[str, list[Any]] = {"distance": [], "covered": [], "classes": []}
    game, made = gans.Game(kind), images
    for _ in LOOKS:
        game.play(pixels, steps=steps // len(LOOKS), batch=HALF // 2, noise=generator)
        made = game.images(noise)
        found["distance"].append(frechet(scores.features(made), real_features))
        found["covered"].append(covered(scores.shares(made)))
        found["classes"].append(scores.classes(made))
    gans.hold_weights(game.discriminator)
    chosen = made.flatten(1)[:HALF]
    after = _looked_at(game.discriminator, some(pixels, HALF, generator), chosen, some(pixels, HALF, generator))
    late = torch.stack(found.pop("classes")[len(LOOKS) // 2 :])
    return {
        **found,
        **{f"{name} after": value for name, value in after.items()},
        "turned": float((late[1:] != late[:-1]).double().mean()),
        "loss": float(np.std(game.losses[steps // 2 :])),
        "pictures": gallery_of(chosen[:SHOWN]),
    }


def gallery_of(pixels: Tensor) -> list[Any]:
    """Return images for a gallery, in two rows."""
    return pixels.view(2, -1, 8, 8).mul(100).round().div(100).tolist()
