"""Training at equal data: what is read, how often, and on what both modes are compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwise.layers import AcrossChannelNorm, BatchNorm
from normwise.studies.causality import training
from normwise.studies.causality.training import CONTEXT, read, saw, text
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


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_data_are_equal_whatever_the_batch(batch):
    seen: list[int] = []
    read(lambda width: _Counting(width, seen), text(), batch, 32)
    assert sum(seen) == 32 * 5  # two blocks of two norms, and a last one
    seen.clear()
    saw(lambda width: _Counting(width, seen), *digits(), batch, 32)
    assert sum(seen) == 32 * 3


def test_layer_norm_reads_the_same_in_either_mode_and_batch_norm_does_not():
    """Both losses are of the same text, so that statistics alone tell them apart."""
    together, alone = read(AcrossChannelNorm, text(), 4, 16)
    assert together == pytest.approx(alone, rel=1e-6)
    together, alone = read(BatchNorm, text(), 4, 16)
    assert abs(together - alone) > 1e-3


def test_what_is_held_back_is_not_learnt_from(monkeypatch):
    """Later text is of symbols that come nowhere before: nobody foretells them."""
    monkeypatch.setattr(training, "RATE", 1e-2)
    written = torch.cat([torch.zeros(9000).long(), torch.ones(1000).long()])
    assert min(read(AcrossChannelNorm, written, 4, 400)) > 5
    assert max(read(AcrossChannelNorm, written * 0, 4, 400)) < 0.1


def test_a_vision_transformer_learns_digits():
    assert min(saw(BatchNorm, *digits(), 32, 3200)) > 0.5


def test_text_is_long_and_its_commonest_symbols_come_first():
    symbols = text()
    counts = symbols.bincount(minlength=SYMBOLS)
    assert len(symbols) > 100_000 > CONTEXT
    assert len(counts) == SYMBOLS
    assert (counts[:-1].diff() <= 0).all()
    assert (counts > 0).all()
