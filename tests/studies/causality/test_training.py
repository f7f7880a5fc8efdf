"""Training at equal data: what is read, how often, how it is judged, and what the next symbol itself told."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from normwise.errors import MissingDataError
from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.studies.causality import training
from normwise.studies.causality.training import (
    CONTEXT,
    Judged,
    judged_reader,
    judged_seer,
    later_text,
    text,
    told_by_the_next,
    trained_reader,
    trained_seer,
)
from normwise.studies.causality.transformers import SYMBOLS
from normwise.studies.data import digits


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class _Counting(nn.Module):
    """A norm that counts what it is trained on."""

    def __init__(self, channels: int, seen: list[int]) -> None:
        super().__init__()
        self.norm, self.seen = AcrossChannelNorm(channels), seen

    def forward(self, x):
        if torch.is_grad_enabled():
            self.seen.append(len(x))
        return self.norm(x)


class _Peeping(nn.Module):
    """A model of text that in training is sure, by so many nats, of the symbol that lies so far ahead, at chosen places."""

    def __init__(self, nats: float, ahead: int, places: slice) -> None:
        super().__init__()
        self.nats, self.ahead, self.places = nats, ahead, places

    def forward(self, x):
        logits = torch.zeros(*x.shape, SYMBOLS)
        if self.training:
            sure = self.nats * nn.functional.one_hot(x.roll(-self.ahead, 1), SYMBOLS)
            logits[:, self.places] = sure[:, self.places]
        return logits


def read(norm, written, batch, sequences) -> Judged:
    return judged_reader(trained_reader(norm, written, batch, sequences), *later_text(written), batch)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_data_are_equal_whatever_the_batch(batch):
    seen: list[int] = []
    trained_reader(lambda width: _Counting(width, seen), text(), batch, 32)
    assert sum(seen) == 32 * 5  # two blocks of two norms, and a last one
    seen.clear()
    trained_seer(lambda width: _Counting(width, seen), *digits(), batch, 32)
    assert sum(seen) == 32 * 3


def test_nothing_is_learnt_from_what_judges():
    """Running statistics move in training even without gradients; those of a model that is judged do not."""
    reader, seer = trained_reader(BatchNorm, text(), 4, 16), trained_seer(BatchNorm, *digits(), 8, 64)
    before = {of: {name: value.clone() for name, value in of.state_dict().items()} for of in (reader, seer)}
    judged_reader(reader, *later_text(text()), 4)
    told_by_the_next(reader, *later_text(text()), 4)
    judged_seer(seer, *digits(), 8)
    for model, state in before.items():
        assert any(name.endswith("running_mean") for name in state)
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_a_judge_looks_at_both_modes_of_the_same_model():
    """By hand, from a model that nobody has judged."""
    written, batch = text(), 4
    model, (inputs, targets) = trained_reader(BatchNorm, written, batch, 64), later_text(written)
    judged = judged_reader(model, inputs, targets, batch)
    with torch.no_grad():
        alone = nn.functional.cross_entropy(model.eval()(inputs).flatten(0, 1), targets.flatten())
        model.train()
        together = [
            nn.functional.cross_entropy(model(inputs[i : i + batch]).flatten(0, 1), targets[i : i + batch].flatten())
            for i in range(0, len(inputs), batch)
        ]
    assert judged.alone == pytest.approx(float(alone), rel=1e-5)
    assert judged.together == pytest.approx(float(torch.stack(together).mean()), rel=1e-5)


def test_layer_norm_reads_the_same_in_either_mode_and_batch_norm_does_not():
    """Both losses are of the same text, so that statistics alone tell them apart."""
    judged = read(AcrossChannelNorm, text(), 4, 16)
    assert judged.together == pytest.approx(judged.alone, rel=1e-6)
    judged = read(BatchNorm, text(), 4, 16)
    assert abs(judged.together - judged.alone) > 1e-3


def test_what_is_held_back_is_not_learnt_from(monkeypatch):
    """Later text is of symbols that come nowhere before: nobody foretells them."""
    monkeypatch.setattr(training, "RATE", 1e-2)
    written = torch.cat([torch.zeros(9000).long(), torch.ones(1000).long()])
    assert read(AcrossChannelNorm, written, 4, 400).alone > 5
    assert read(AcrossChannelNorm, written * 0, 4, 400).alone < 0.1


@pytest.mark.parametrize(
    ("ahead", "places", "share"),
    [(1, slice(None, -1), 1.0), (1, slice(-2, -1), 1 / 31), (1, slice(0, 1), 1 / 31), (2, slice(None, -2), 0.0)],
    ids=["everywhere", "the last place", "the first place", "two ahead"],
)
def test_what_the_next_symbol_tells_a_model_that_peeps(ahead, places, share):
    """It is `nats` less sure wherever another symbol was drawn: 39 times in 40, as it knows nothing in evaluation."""
    nats, (inputs, targets) = 3.0, later_text(text())
    found = told_by_the_next(_Peeping(nats, ahead, places), inputs, targets, 4)
    swaps = training._SWAPS * len(inputs) * share
    error = nats * (39 / 40 / 40 / swaps) ** 0.5 if share else 0.0
    assert found == pytest.approx(nats * 39 / 40 * share, abs=share * (4 * error + nats / swaps) if share else 1e-7)


def test_the_next_symbol_tells_layer_norm_nothing_and_a_sequence_of_its_own_statistics_much():
    """Coins of two sides that are as often heads as tails: the rest of a short sequence is all there is to know."""
    halves = torch.stack([torch.randperm(CONTEXT + 1) % 2 for _ in range(400)]).flatten()
    told = {}
    for norm in (AcrossChannelNorm, BatchNorm):
        model, (inputs, targets) = trained_reader(norm, halves, 1, 400), later_text(halves)
        told[norm] = told_by_the_next(model, inputs[:64], targets[:64], 1)
    assert told[AcrossChannelNorm] == pytest.approx(0, abs=1e-6)
    assert told[BatchNorm] > 0.05


def test_no_random_number_is_used_up():
    """Both norms meet the same data, though one of them only is asked what it was told."""
    model, held_back = trained_reader(BatchNorm, text(), 16, 16), later_text(text())
    before = torch.get_rng_state()
    told_by_the_next(model, *held_back, 16)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_vision_transformer_learns_digits():
    judged = judged_seer(trained_seer(BatchNorm, *digits(), 32, 3200), *digits(), 32)
    assert min(judged.together, judged.alone) > 0.5


def test_text_is_long_and_its_commonest_symbols_come_first():
    symbols = text()
    counts = symbols.bincount(minlength=SYMBOLS)
    assert len(symbols) > 100_000 > CONTEXT
    assert len(counts) == SYMBOLS
    assert (counts[:-1].diff() <= 0).all()
    assert (counts > 0).all()


def test_a_python_without_its_text_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(MissingDataError, match=r"needs 'pydoc_data' of Python's standard library.*use a Python"):
        text()


def test_studies_are_found_without_pythons_text():
    """In a Python of its own, whose text was stripped."""
    script = (
        "import sys; sys.modules['pydoc_data'] = sys.modules['pydoc_data.topics'] = None\n"
        "from normwise.studies.study import find_study\n"
        "print(find_study('causality').name)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "causality", found.stderr
