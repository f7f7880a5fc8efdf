"""A small recurrent network that tells who speaks, its norms, and its training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, BatchInfo, BatchNorm, MaskedBatchNorm, TimewiseBatchNorm
from normwise.studies.sequence_drift.vowels import CHANNELS, LONGEST, SPEAKERS, Utterances

WIDTH = 24  # of the LSTM
NORMS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "pooled,\npadded": lambda: BatchNorm(WIDTH),
    "pooled,\nmasked": lambda: MaskedBatchNorm(WIDTH),
    "time-\nwise": lambda: TimewiseBatchNorm(WIDTH, LONGEST),
    "time-\nwise,\nborrowing": lambda: TimewiseBatchNorm(WIDTH, LONGEST, min_count=16),
    "layer\nnorm": lambda: AcrossChannelNorm(WIDTH),
}


class Recogniser(nn.Module):
    """An LSTM, a norm over its outputs, a second LSTM, and a linear layer on its last valid step.

    Reference: Laurent et al. 2016, "Batch normalized recurrent neural networks" (the norm between layers, not steps).
    """

    def __init__(self, norm: nn.Module, width: int) -> None:
        """Take a norm of `(n, width, t)`, which finds the lengths in the active `BatchInfo`."""
        super().__init__()
        self.first = nn.LSTM(CHANNELS, width, batch_first=True)
        self.norm = norm
        self.second = nn.LSTM(width, width, batch_first=True)
        self.classify = nn.Linear(width, SPEAKERS)

    def features(self, x: Utterances) -> Tensor:
        """Return what the norm is given, `(n, width, t)`, zeros after the end."""
        alive = torch.arange(x.values.shape[2]) < x.lengths.unsqueeze(1)
        return self.first(x.values.transpose(1, 2))[0].transpose(1, 2) * alive.unsqueeze(1)

    def forward(self, x: Utterances) -> Tensor:
        """Return logits `(n, speakers)`."""
        with BatchInfo(lengths=x.lengths):
            normalised = self.norm(self.features(x))
        steps = self.second(normalised.transpose(1, 2))[0]
        return self.classify(steps[torch.arange(len(x)), x.lengths - 1])


def trained(model: Recogniser, train: Utterances, epochs: int, generator: torch.Generator) -> Recogniser:
    """Train a recogniser, and return it."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with torch.enable_grad():
        for _ in range(epochs):
            for chosen in torch.randperm(len(train), generator=generator).split(16):
                loss = functional.cross_entropy(model(train[chosen]), train.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model
