"""A unit's moments by step are those of the utterances that are alive; batches of them are counted as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwise.studies.sequence_drift.recogniser import Recogniser
from normwise.studies.sequence_drift.speech import SPOKEN, drifting_unit, moments, outputs
from normwise.studies.sequence_drift.vowels import CHANNELS, LONGEST, Utterances


@pytest.fixture
def utterances() -> Utterances:
    """Forty of noise, 3 to 29 steps long, zeros after their end."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, LONGEST + 1, (40,), generator=generator)
    alive = torch.arange(LONGEST) < lengths.view(-1, 1, 1)
    return Utterances(torch.randn(40, CHANNELS, LONGEST, generator=generator) * alive, lengths, torch.zeros(40))


def unit_of(x: Utterances) -> torch.Tensor:
    """One channel whose mean rises."""
    steps = int(x.lengths.max())
    return (x.values[:, 0, :steps].double() + torch.arange(steps) / 8) * (torch.arange(steps) < x.lengths.unsqueeze(1))


def test_moments_by_step_are_those_of_the_utterances_that_are_alive(utterances):
    unit, lengths = unit_of(utterances), utterances.lengths.numpy()
    found = moments(unit, utterances.lengths)
    for step in (0, 9, int(lengths.max()) - 1):
        alive = unit.numpy()[lengths > step, step]
        assert found["step counts"][step] == len(alive)
        assert found["step means"][step] == pytest.approx(alive.mean())
        assert found["step variances"][step] == pytest.approx(alive.var())
    assert np.average(found["step variances"], weights=found["step counts"]) == pytest.approx(found["spread"])


def test_the_scatter_of_a_batch_is_that_of_drawn_batches(utterances):
    """Sums over 20000 batches of 128 utterances, drawn with replacement, vary as `moments` says."""
    unit, lengths, draws = unit_of(utterances).numpy(), utterances.lengths.numpy(), 20_000
    alive = lengths[:, None] > np.arange(unit.shape[1])
    values = unit[alive]
    z = np.where(alive, (unit - values.mean()) / values.std(), 0.0)
    each = np.stack([z.sum(1), (z**2).sum(1) - lengths, lengths, z[:, 4], alive[:, 4]], 1)
    rows = np.random.default_rng(0).integers(len(unit), size=(draws, SPOKEN))
    drawn = np.cov(sum(each[row] for row in rows.T).T)
    found = moments(torch.from_numpy(unit), utterances.lengths)["scatter"]
    measured = {
        "mean": (0, 0, found["mean"]),
        "square": (1, 1, found["square"]),
        "mean_square": (0, 1, found["mean_square"]),
        "mean_values": (0, 2, found["mean_values"]),
        "square_values": (1, 2, found["square_values"]),
        "step_square": (3, 1, found["step_square"][4]),
        "counts_mean": (4, 0, found["counts_mean"][4]),
    }
    for name, (i, j, value) in measured.items():
        off = (value - drawn[i, j]) / (drawn[i, i] * drawn[j, j]) ** 0.5
        assert abs(off) < 5 * (2 / draws) ** 0.5, name  # the error of a covariance of nearly normal sums


def test_the_unit_is_the_one_that_goes_from_one_side_to_the_other(utterances):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Recogniser(torch.nn.Identity(), 6)
        unit = drifting_unit(model, utterances, late=10)
        features = model.features(utterances).double()
    lengths = utterances.lengths
    across = []
    for values in features.unbind(1):
        own = np.concatenate([one[:end] for one, end in zip(values.numpy(), lengths.tolist(), strict=True)])
        late = values[lengths >= 10, 9].mean() - own.mean()
        across.append(float(-(values[:, 0].mean() - own.mean()) * late))
    chosen = [torch.equal(unit, values[:, : unit.shape[1]]) for values in features.unbind(1)].index(True)
    assert across[chosen] > 0
    assert sum(other > 2 * across[chosen] for other in across) == 0


def test_outputs_count_the_utterances_of_each_batch(utterances):
    unit = unit_of(utterances)
    generator = torch.Generator().manual_seed(3)
    found = outputs(unit, utterances.lengths, 2, generator)
    again = torch.Generator().manual_seed(3)
    sums, counts = np.zeros(unit.shape[1]), np.zeros(unit.shape[1])
    for _ in range(2):
        chosen = torch.randint(len(unit), (SPOKEN,), generator=again)
        values = unit[chosen].numpy()
        alive = utterances.lengths[chosen].numpy()[:, None] > np.arange(unit.shape[1])
        taken = values[alive]
        sums += np.where(alive, (values - taken.mean()) / np.sqrt(taken.var() + 1e-5), 0).sum(0)
        counts += alive.sum(0)
    np.testing.assert_allclose(np.array(found["spoken"]), np.stack([sums, counts], 1), atol=2e-4)
    np.testing.assert_allclose(np.array(found["spoken, time-wise"])[:, 0], 0, atol=2e-4)
