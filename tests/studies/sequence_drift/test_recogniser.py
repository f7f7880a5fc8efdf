"""A recurrent network that tells who speaks: what stands behind an utterance's end reaches nothing."""

from __future__ import annotations

import pytest
import torch

from normwise.layers import MaskedBatchNorm, TimewiseBatchNorm
from normwise.studies.sequence_drift.recogniser import Recogniser
from normwise.studies.sequence_drift.vowels import CHANNELS, LONGEST, Utterances


@pytest.mark.parametrize("norm", [MaskedBatchNorm(8), TimewiseBatchNorm(8, LONGEST)], ids=["masked", "time-wise"])
@pytest.mark.parametrize("training", [True, False])
def test_what_follows_an_utterance_does_not_reach_its_logits(norm, training):
    generator, lengths = torch.Generator().manual_seed(0), torch.tensor([3, 9, 5])
    values = torch.randn(3, CHANNELS, LONGEST, generator=generator)
    alive = torch.arange(LONGEST) < lengths.view(-1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recogniser(norm, 8).train(training)
    logits = [model(Utterances(x, lengths, torch.zeros(3))) for x in (values, values * alive)]
    assert torch.equal(*logits)
    last = values.clone()
    last[0, :, 2] += 1
    assert not torch.allclose(model(Utterances(last, lengths, torch.zeros(3)))[0], logits[0][0], atol=1e-4)
