"""A model that is asked to foretell tosses of a fair coin: whatever it gains, statistics have told it.

A model of single tokens sees no order, so a batch is as good as its number of heads. One batch of each number, weighed by
its chance, is all there are: every average here is over all of them, and exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.layers import AcrossChannelNorm, GhostBatchNorm

TOSSES = 8  # of a batch
_FEATURES, _WIDTH = 4, 64
_MEMORY = 50  # steps that the quasi-Newton method remembers
_SAME = 9  # decimals to which two inputs of a model are one
_ENDS = [0, -1]  # of a batch whose heads come first: a head and a tail, if it has them


@dataclass(frozen=True)
class Told:
    """What a trained model makes of tosses.

    Arguments:
        gain: the nats it gains on log 2, of all batches, each normalised by its own statistics
        later: the same in evaluation
        repeated: the probability it gives to a repetition in evaluation
        left: the nats that training has left to gain, at most

    """

    gain: float
    later: float
    repeated: float
    left: float


class Tosses:
    """Every batch of so many tosses.

    Attributes:
        batches: one of each number of heads, which come first, `(k, n)`
        chance: of each number, `(k,)`
        weight: the chance of a head and of a tail in each, `(k, 2)`
        following: the share of heads among the tokens other than that one, any of which may come next, `(k, 2)`

    """

    def __init__(self, count: int) -> None:
        """Count them."""
        heads = torch.arange(count + 1)
        ways = [math.comb(count, number) / 2**count for number in range(count + 1)]
        self.batches = (torch.arange(count) < heads[:, None]).long()
        self.chance = torch.tensor(ways, dtype=torch.float64)
        share = heads.double() / count
        self.weight = self.chance[:, None] * torch.stack([share, 1 - share], 1)
        self.following = (heads[:, None] - self.batches[:, _ENDS]).double() / (count - 1)


class Foreteller(nn.Module):
    """A model of single tokens, `(b, n)`, that says of each whether tails or heads follow; a row shares statistics."""

    def __init__(self, kind: str, rows: int) -> None:
        """Take whether statistics are "pooled" or of a "layer norm", and the number of rows."""
        super().__init__()
        self.embed = nn.Embedding(2, _FEATURES)
        self.norm = GhostBatchNorm(_FEATURES, rows) if kind == "pooled" else AcrossChannelNorm(_FEATURES)
        self.enter, self.mix, self.leave = nn.Linear(_FEATURES, _WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 2)
        self.double()

    def seen(self, tokens: Tensor) -> Tensor:
        """Return all that it knows of each token, `(b, n, features)`."""
        return self.norm(self.embed(tokens).transpose(1, 2)).transpose(1, 2)

    def said(self, seen: Tensor) -> Tensor:
        """Return logits, `(b, n, 2)`. Sines bend as sharply as they must (Sitzmann et al. 2020), so that training ends."""
        return self.leave(self.mix(self.enter(seen).sin()).sin())

    def settle(self, tosses: Tosses) -> None:
        """Give the running statistics the mean of all batches, each weighed by its chance."""
        if isinstance(self.norm, GhostBatchNorm):
            self.norm.splits = 1
            for row, share in zip(tosses.batches, tosses.chance / tosses.chance.cumsum(0), strict=True):
                self.norm.momentum = float(share)
                self.seen(row[None])


def expected(logits: Tensor, tosses: Tosses) -> Tensor:
    """Return the mean cross-entropy of what comes next, given logits `(k, 2, 2)` of a head and a tail of each batch."""
    following = torch.stack([1 - tosses.following, tosses.following], -1)
    each = functional.cross_entropy(logits.flatten(0, 1), following.flatten(0, 1), reduction="none")
    return tosses.weight.flatten() @ each


def foretold(kind: str, count: int, steps: int) -> Told:
    """Train a model to foretell tosses of which `count` share statistics, by a quasi-Newton method."""
    tosses = Tosses(count)
    model = Foreteller(kind, len(tosses.batches))
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=steps,
        history_size=_MEMORY,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def ends() -> Tensor:
        return model.said(model.seen(tosses.batches)[:, _ENDS])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected(ends(), tosses)
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    with torch.no_grad():
        gain, left = math.log(2) - float(expected(ends(), tosses)), left_to_gain(model, tosses)
        model.settle(tosses)
        model.eval()
        later = math.log(2) - float(expected(ends(), tosses))
        repeated = model.said(model.seen(torch.tensor([[0, 1]]))).softmax(-1)[0].diagonal()
    return Told(gain, later, float(repeated.mean()), left)


def left_to_gain(model: Foreteller, tosses: Tosses) -> float:
    """Return how many nats any model that sees the same could gain, at most, by the gradient of each logit.

    1. In a share w of all cases a model sees the same; in a share p of them heads follow, and it says q. The gradient
       of the loss by that logit is g = w (q - p).
    2. Left to gain is the sum of w KL(p, q), and KL(p, q) <= (q - p)^2 / (q (1 - q)).
    3. So it is at most the sum of g^2 / (w q (1 - q)). The rounding of the loss's own sum is added.
    """
    with torch.no_grad():
        seen = model.seen(tosses.batches)[:, _ENDS]
    with torch.enable_grad():
        logits = model.said(seen).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(expected(logits, tosses), logits)
    _, case = seen.flatten(0, 1).round(decimals=_SAME).unique(dim=0, return_inverse=True)
    cases = torch.zeros(int(case.max()) + 1, dtype=torch.float64)
    g = cases.index_add(0, case, gradient[..., 1].flatten())
    w = cases.index_add(0, case, tosses.weight.flatten())
    q = cases.index_copy(0, case, logits.detach().softmax(-1)[..., 1].flatten())
    return float((g.square() / (w * q * (1 - q))).sum()) + tosses.weight.numel() * torch.finfo(torch.float64).eps
