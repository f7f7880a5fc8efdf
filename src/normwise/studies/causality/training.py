"""Two models trained on the same amount of data, in batches of any size: text that comes with Python, and digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.studies.causality.transformers import SYMBOLS, Norm, VisionTransformer, language_model

CONTEXT = 32
TEXTS, IMAGES = (1, 4, 16), (8, 32, 128)  # sequences, images of a batch
RATE = 3e-3  # of a batch of the middle size; that of others is as the root of their size
_WIDTH = 32
_LEARNT = 1300  # digits that are learnt from; the rest is held back
_HELD_BACK = 256  # sequences of later text


def text() -> Tensor:
    """Return the language reference that comes with Python as symbols `(n,)`: its commonest characters, and all others."""
    written = "\n".join(topics[name] for name in sorted(topics)).lower()
    common = [character for character, _ in Counter(written).most_common(SYMBOLS - 1)]
    number = {character: i for i, character in enumerate(common)}
    return torch.tensor([number.get(character, SYMBOLS - 1) for character in written])


def read(norm: Norm, written: Tensor, batch: int, sequences: int) -> tuple[float, float]:
    """Train on so many sequences; return the loss on later ones in batches of that size, and in evaluation.

    Both are of the same later sequences, evenly spaced.
    """
    model, train = language_model(_WIDTH, CONTEXT, norm), len(written) * 9 // 10

    def loss(starts: Tensor) -> Tensor:
        chosen = written[starts[:, None] + torch.arange(CONTEXT + 1)]
        return functional.cross_entropy(model(chosen[:, :-1]).flatten(0, 1), chosen[:, 1:].flatten())

    _fit(model, batch / TEXTS[1], sequences // batch, lambda: loss(torch.randint(train - CONTEXT, (batch,))))
    later = torch.linspace(train, len(written) - CONTEXT - 1, _HELD_BACK).long()
    later = later[torch.randperm(_HELD_BACK)]  # neighbours do not share a batch
    with torch.no_grad():
        normalised_together = float(torch.stack([loss(starts) for starts in later.split(batch)]).mean())
        model.eval()
        return normalised_together, float(loss(later))


def saw(norm: Norm, images: Tensor, labels: Tensor, batch: int, shown: int) -> tuple[float, float]:
    """Train on so many images; return the accuracy on held-back ones in batches of that size, and in evaluation."""
    model = VisionTransformer(_WIDTH, norm)

    def loss() -> Tensor:
        chosen = torch.randint(_LEARNT, (batch,))
        return functional.cross_entropy(model(images[chosen]), labels[chosen])

    _fit(model, batch / IMAGES[1], shown // batch, loss)
    held_back = images[_LEARNT:]
    with torch.no_grad():
        answers = torch.cat([model(part) for part in held_back.split(batch)]), model.eval()(held_back)
    together, alone = (float((answer.argmax(1) == labels[_LEARNT:]).double().mean()) for answer in answers)
    return together, alone


def _fit(model: nn.Module, size: float, steps: int, loss: Callable[[], Tensor]) -> None:
    """Train with a rate as the root of the batch's size, so that batches of all sizes are as noisy.

    Reference: Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms".
    """
    optimizer = torch.optim.Adam(model.parameters(), RATE * size**0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
