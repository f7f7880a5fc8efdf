"""A recurrent network that tells who speaks: what stands behind an utterance's end reaches nothing; moments by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwise.layers import MaskedBatchNorm, TimewiseBatchNorm
from normwise.studies.recogniser import LATE, Recogniser, drift_of
from normwise.studies.vowels import CHANNELS, LONGEST, Utterances


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


def test_moments_by_step_are_those_of_the_utterances_that_are_alive():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(LATE, LONGEST + 1, (40,), generator=generator)
    x = Utterances(torch.randn(40, CHANNELS, LONGEST, generator=generator), lengths, torch.zeros(40))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Recogniser(torch.nn.Identity(), 6)
        given, unit = drift_of(model, x)
        values = model.features(x)[:, unit].double().numpy()
    for step in (0, LATE - 1, int(lengths.max()) - 1):
        alive = values[lengths.numpy() > step, step]
        assert given["step counts"][step] == len(alive)
        assert given["step means"][step] == pytest.approx(alive.mean(), abs=1e-7)
        assert given["step variances"][step] == pytest.approx(alive.var(), abs=1e-7)
    assert np.average(given["step variances"], weights=given["step counts"]) == pytest.approx(given["spread"])
