"""A small recurrent network that tells who speaks: its norms, its training, and the unit of it that drifts most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, BatchInfo, BatchNorm, MaskedBatchNorm, TimewiseBatchNorm
from normwise.studies.vowels import CHANNELS, LONGEST, SPEAKERS, Utterances

WIDTH, LATE, SPOKEN = 24, 20, 128  # of the LSTM; a step that half the utterances have not; utterances a batch
NORMS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "pooled,\npadded": lambda: BatchNorm(WIDTH),
    "pooled,\nmasked": lambda: MaskedBatchNorm(WIDTH),
    "time-\nwise": lambda: TimewiseBatchNorm(WIDTH, LONGEST),
    "time-wise,\nborrowing": lambda: TimewiseBatchNorm(WIDTH, LONGEST, min_count=16),
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


def drift_of(model: Recogniser, x: Utterances) -> tuple[dict[str, Any], int]:
    """Return moments by step, over all utterances, of the LSTM's unit that drifts most from side to side, and which it is."""
    features = model.features(x).double()
    steps = int(x.lengths.max())
    features, alive = features[:, :, :steps], torch.arange(steps) < x.lengths.view(-1, 1, 1)
    counts = alive.sum(0).double().squeeze(0)
    means = features.sum(0) / counts
    variances = ((features - means).square() * alive).sum(0) / counts
    early, late = (means[:, step] - means @ (counts / counts.sum()) for step in (0, LATE - 1))
    unit = int((-early * late / (variances @ (counts / counts.sum()))).argmax())
    mean, variance = means[unit].numpy(), variances[unit].numpy()
    return {
        "step means": mean.tolist(),
        "step variances": variance.tolist(),
        "step counts": counts.tolist(),
        "slope": float(np.polyfit(np.arange(steps), mean, 1)[0]),
        "spread": float(np.average(variance, weights=counts)),
    }, unit


def outputs(model: Recogniser, x: Utterances, unit: int, batches: int, generator: torch.Generator) -> dict[str, Any]:
    """Return the unit's output mean at each step over many batches of utterances, pooled and time-wise."""
    masked, timewise = MaskedBatchNorm(1, affine=False), TimewiseBatchNorm(1, LONGEST, affine=False)
    sums, steps = torch.zeros(2, LONGEST, dtype=torch.float64), int(x.lengths.max())
    counts = torch.zeros(LONGEST, dtype=torch.float64)
    for _ in range(batches):
        batch = x[torch.randint(len(x), (SPOKEN,), generator=generator)]
        features = model.features(batch)[:, unit : unit + 1]
        sums += torch.stack([norm(features, batch.lengths).double().sum((0, 1)) for norm in (masked, timewise)])
        counts += (batch.lengths.unsqueeze(1) > torch.arange(LONGEST)).sum(0)
    pooled, own = (sums / counts.clamp_min(1))[:, :steps].tolist()
    return {"spoken": pooled, "spoken, time-wise": own}
