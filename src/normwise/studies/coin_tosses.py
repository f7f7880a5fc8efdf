"""A model that is asked to foretell tosses of a fair coin: whatever it gains, statistics have told it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, GhostBatchNorm
from normwise.studies.attention import average

TOSSES = 8  # of a sequence
_TOGETHER, _TESTED = 1024, 40  # tokens a step; steps to test on
_FEATURES, _WIDTH, _RATE = 4, 64, 1e-2  # two hidden layers: one gives too smooth a curve to be the best predictor


def tossed(kind: str, count: int, steps: int) -> tuple[float, float, float]:
    """Train a model of single tokens to foretell independent tosses; `count` of them share statistics.

    Return the nats it gains on log 2 in training mode and in evaluation, both on new tosses, and the probability of a
    repetition in evaluation.
    """
    splits, sequences = _TOGETHER // count, _TOGETHER // TOSSES
    embed = nn.Embedding(2, _FEATURES)
    norm = GhostBatchNorm(_FEATURES, splits) if kind == "pooled" else AcrossChannelNorm(_FEATURES)
    hidden = nn.Linear(_FEATURES, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, _WIDTH), nn.GELU()
    head = nn.Sequential(*hidden, nn.Linear(_WIDTH, 2))
    model = nn.ModuleList([embed, norm, head])
    optimizer = torch.optim.Adam(model.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)

    def forward(tokens: Tensor) -> Tensor:
        return head(norm(embed(tokens).transpose(1, 2)).transpose(1, 2))

    def loss() -> Tensor:
        tokens = torch.randint(2, (sequences, TOSSES))
        return functional.cross_entropy(forward(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        gain = math.log(2) - average(loss, _TESTED)
        model.eval()
        later = math.log(2) - average(loss, _TESTED)
        repeated = forward(torch.tensor([[0, 1]])).softmax(-1)[0].diagonal()
    return gain, later, float(repeated.mean())
