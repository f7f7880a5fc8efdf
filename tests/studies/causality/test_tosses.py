"""Tosses of a fair coin: statistics that are shared tell of them, a token's own do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from normwise.layers import GhostBatchNorm
from normwise.studies.causality.tosses import TOSSES, Foreteller, Tosses, expected, foretold, left_to_gain

_COUNT = 6


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def every_sequence(count: int) -> torch.Tensor:
    """Every sequence of tosses, `(2^n, n)`."""
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1


@pytest.mark.parametrize("kind", ["pooled", "layer norm"])
def test_a_batch_of_every_number_of_heads_is_as_good_as_every_sequence(kind):
    """The same model foretells each next token of all sequences there are, in their own order."""
    tosses, model = Tosses(_COUNT), Foreteller(kind, _COUNT + 1)
    together = expected(model.said(model.seen(tosses.batches)[:, [0, -1]]), tosses).detach()
    if isinstance(model.norm, GhostBatchNorm):
        model.norm.splits = 2**_COUNT
    tokens = every_sequence(_COUNT)
    logits = model.said(model.seen(tokens))[:, :-1].detach()
    assert float(together) == pytest.approx(
        float(functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())), abs=1e-12
    )


def test_settled_statistics_are_those_of_every_sequence():
    tosses, model = Tosses(_COUNT), Foreteller("pooled", _COUNT + 1)
    model.settle(tosses)
    embedded = model.embed(every_sequence(_COUNT)).detach()  # (sequences, n, features)
    assert isinstance(model.norm, GhostBatchNorm)
    torch.testing.assert_close(model.norm.running_mean, embedded.mean((0, 1)))
    torch.testing.assert_close(model.norm.running_var, embedded.var(1).mean(0))


@pytest.mark.parametrize(("kind", "gains"), [("pooled", True), ("layer norm", False)])
def test_only_shared_statistics_tell_of_tosses(kind, gains):
    told = foretold(kind, TOSSES, 40)
    assert (told.gain > 0.06) is gains
    assert told.gain < math.log(2)
    assert (told.later < -0.005) is gains
    assert (told.repeated < 0.45) is gains
    assert told.left < 2e-3


def test_no_more_is_left_to_gain_than_is_said():
    """A model that was trained for longer shows what was left."""
    told = []
    for steps in (1, 5, 20, 60, 200):
        torch.manual_seed(1)
        told.append(foretold("pooled", TOSSES, steps))
    *short, best = told
    assert all(best.gain - one.gain <= one.left for one in short)
    assert best.left < 1e-5


def test_what_is_left_to_a_model_that_knows_nothing():
    """Always one half: at most the chi-squared distance of the truth from it, summed by hand."""
    tosses, model = Tosses(4), Foreteller("pooled", 5)
    with torch.no_grad():
        for part in model.leave.parameters():
            part.zero_()
    by_hand = 0.0
    for heads in (1, 2, 3):  # where all are alike, nothing can be told
        for of, others in ((heads, heads - 1), (4 - heads, heads)):
            by_hand += math.comb(4, heads) / 16 * of / 4 * 4 * (others / 3 - 0.5) ** 2
    assert left_to_gain(model, tosses) == pytest.approx(by_hand, rel=1e-12)
