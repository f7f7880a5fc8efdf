"""Two models trained on the same amount of data, in batches of any size: text that comes with Python, and digits.

Each is judged in evaluation, and a copy of it in training, so that nothing is learnt from what is held back: running
statistics move in training even where no gradient is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.errors import MissingDataError
from normwise.studies.causality.transformers import SYMBOLS, Norm, VisionTransformer, language_model
from normwise.studies.data import TRAINED

CONTEXT = 32
TEXTS, IMAGES = (1, 4, 16), (8, 32, 128)  # sequences, images of a batch
RATE = 3e-3  # of a batch of the middle size; that of others is as the root of their size
_WIDTH = 32
_HELD_BACK = 256  # sequences of later text
_SWAPS = 4  # symbols of each that are swapped, one at a time


class _NoTextError(MissingDataError):
    """Python's own text is not there."""

    def __init__(self) -> None:
        super(MissingDataError, self).__init__(
            "text needs 'pydoc_data' of Python's standard library, the language reference that `help()` shows: use a "
            "Python whose standard library is whole"
        )


@dataclass(frozen=True)
class Judged:
    """How good a trained model is on what was held back: a loss in nats, or an accuracy.

    Arguments:
        together: in training, in batches of the size that it was trained with
        alone: in evaluation

    """

    together: float
    alone: float


def text() -> Tensor:
    """Return the language reference that comes with Python as symbols `(n,)`: its commonest characters, and all others.

    It is that of the running Python: text, and with it every loss, differ a little from version to version. Raises
    `MissingDataError` where the standard library was stripped of it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise _NoTextError from error
    written = "\n".join(topics[name] for name in sorted(topics)).lower()
    common = [character for character, _ in Counter(written).most_common(SYMBOLS - 1)]
    number = {character: i for i, character in enumerate(common)}
    return torch.tensor([number.get(character, SYMBOLS - 1) for character in written])


def trained_reader(norm: Norm, written: Tensor, batch: int, sequences: int) -> nn.Module:
    """Return a language model that has read so many sequences of the first nine tenths."""
    model, train = language_model(_WIDTH, CONTEXT, norm), len(written) * 9 // 10

    def loss() -> Tensor:
        inputs, targets = _sequences(written, torch.randint(train - CONTEXT, (batch,)))
        return _losses(model, inputs, targets).mean()

    _fit(model, batch / TEXTS[1], sequences // batch, loss)
    return model


def later_text(written: Tensor) -> tuple[Tensor, Tensor]:
    """Return evenly spaced sequences of the last tenth `(n, t)`, in random order, and what follows each symbol."""
    starts = torch.linspace(len(written) * 9 // 10, len(written) - CONTEXT - 1, _HELD_BACK).long()
    return _sequences(written, starts[torch.randperm(_HELD_BACK)])  # neighbours do not share a batch


@torch.no_grad()
def judged_reader(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int) -> Judged:
    """Return the mean loss in batches of that size, and in evaluation; the model ends in evaluation, else unchanged."""
    alone = _losses(model.eval(), inputs, targets)
    together = _in_batches(deepcopy(model).train(), inputs, targets, batch)
    return Judged(float(together.mean()), float(alone.mean()))


@torch.no_grad()
def told_by_the_next(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int) -> float:
    """Return how many nats a batch's statistics tell a model of a symbol because the symbol itself is among them.

    Each sequence is read in training with its next symbol as it is, and with one in its place that the model draws in
    evaluation, where it knows the past alone; the past, and what is to be foretold, stay. What the loss rises by, on
    average over places, came from the next symbol. No random number is used up.
    """
    drawn = model.eval()(inputs).softmax(-1)  # (n, t, symbols)
    twin = deepcopy(model).train()
    row, places = torch.arange(len(inputs)), inputs.shape[1] - 1  # the last place has its next symbol outside
    true = _in_batches(twin, inputs, targets, batch)
    rises: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for k in range(_SWAPS):
            place = (row + k * places // _SWAPS) % places
            swapped = inputs.clone()
            swapped[row, place + 1] = drawn[row, place].multinomial(1)[:, 0]
            rises.append((_in_batches(twin, swapped, targets, batch) - true)[row, place])
    return float(torch.stack(rises).mean())


def trained_seer(norm: Norm, images: Tensor, labels: Tensor, batch: int, shown: int) -> nn.Module:
    """Return a vision transformer that was shown so many of the first digits."""
    model = VisionTransformer(_WIDTH, norm)

    def loss() -> Tensor:
        chosen = torch.randint(TRAINED, (batch,))
        return functional.cross_entropy(model(images[chosen]), labels[chosen])

    _fit(model, batch / IMAGES[1], shown // batch, loss)
    return model


@torch.no_grad()
def judged_seer(model: nn.Module, images: Tensor, labels: Tensor, batch: int) -> Judged:
    """Return the accuracy on the last digits in batches of that size, and in evaluation; as `judged_reader`."""
    held_back = images[TRAINED:]
    alone, twin = model.eval()(held_back), deepcopy(model).train()
    together = torch.cat([twin(part) for part in held_back.split(batch)])
    return Judged(*(float((said.argmax(1) == labels[TRAINED:]).double().mean()) for said in (together, alone)))


def _sequences(written: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sequences that start there, `(n, t)`, and what follows each of their symbols."""
    chosen = written[starts[:, None] + torch.arange(CONTEXT + 1)]
    return chosen[:, :-1], chosen[:, 1:]


def _losses(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of every symbol, `(n, t)`."""
    return functional.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none")


def _in_batches(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int) -> Tensor:
    """Return the loss of every symbol, `(n, t)`, of sequences that are read so many at a time."""
    parts = zip(inputs.split(batch), targets.split(batch), strict=True)
    return torch.cat([_losses(model, *part) for part in parts])


def _fit(model: nn.Module, size: float, steps: int, loss: Callable[[], Tensor]) -> None:
    """Train with a rate as the root of the batch's size, so that batches of all sizes are as noisy.

    Reference: Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms".
    """
    optimizer = torch.optim.Adam(model.parameters(), RATE * size**0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
