"""Spoken vowels: 640 utterances of nine speakers, 7 to 29 steps long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from normwise.errors import DataError
from normwise.studies.data import packaged

CHANNELS, SPEAKERS, LONGEST = 12, 9, 29
_FOLDER = "aeon/datasets/data/JapaneseVowels"


@dataclass(frozen=True, eq=False)
class Utterances:
    """Sequences `(n, c, t)` with zeros after their end, their lengths `(n,)` and speakers `(n,)`."""

    values: Tensor
    lengths: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.labels)

    def __getitem__(self, chosen: Tensor) -> Utterances:
        """Return those of these indices."""
        return Utterances(self.values[chosen], self.lengths[chosen], self.labels[chosen])


def vowels() -> tuple[Utterances, Utterances]:
    """Return JapaneseVowels, 270 utterances to train on and 370 held back; from the package aeon.

    Reference: Kudo, Toyama and Shimbo 1999, "Multidimensional curve classification using passing-through regions".
    """
    train, held = (
        packaged(f"{_FOLDER}/JapaneseVowels_{part}.ts", package="aeon==1.6.0", purpose="the JapaneseVowels data set")
        for part in ("TRAIN", "TEST")
    )
    return read_utterances(train), read_utterances(held)


def read_utterances(path: Path) -> Utterances:
    """Read a `.ts` file: after `@data` one sequence a line, channels and then its class joined by colons.

    Raises `DataError`, which names the line, for what is not 12 channels of one length up to 29 and a class 1 to 9.
    """
    sequences: list[Tensor] = []
    labels: list[int] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    start = lines.index("@data") + 1 if "@data" in lines else len(lines)
    for number, line in enumerate(lines[start:], start + 1):
        *channels, label = line.split(":")
        try:
            sequence, speaker = torch.tensor([_numbers(channel) for channel in channels]), int(label) - 1
        except ValueError as error:
            raise _spoilt(path, f"line {number}") from error
        if len(sequence) != CHANNELS or sequence.shape[1] > LONGEST or not 0 <= speaker < SPEAKERS:
            raise _spoilt(path, f"line {number}")
        sequences.append(sequence)
        labels.append(speaker)
    if not sequences:
        raise _spoilt(path, "no line")
    values = torch.zeros(len(sequences), CHANNELS, LONGEST)
    for row, sequence in zip(values, sequences, strict=True):
        row[:, : sequence.shape[1]] = sequence
    return Utterances(values, torch.tensor([one.shape[1] for one in sequences]), torch.tensor(labels))


def _numbers(channel: str) -> list[float]:
    return [float(value) for value in channel.split(",")]


def _spoilt(path: Path, found: str) -> DataError:
    return DataError(
        f"path must hold utterances of {CHANNELS} channels, at most {LONGEST} steps and a class of 1 to {SPEAKERS} "
        f"after '@data', got {found} in '{path}'; install the data's package anew"
    )
