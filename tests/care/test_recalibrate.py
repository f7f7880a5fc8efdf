"""Recalibration: exact on unequal batches where torch's own is not; nothing else changes."""

from __future__ import annotations

import copy
import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import normwise
from normwise import BatchInfo, Task, recalibrate
from normwise.errors import DataError, ModelError, NormwiseError
from normwise.layers import DomainBatchNorm, MaskedBatchNorm, TimewiseBatchNorm


def unequal() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 3, 6, 6, generator=generator) * (1 + n / 20) + n / 10 for n in (1, 7, 40, 3)]


def oracle(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.double().movedim(1, 0).flatten(1)
    return values.mean(1), values.var(1)


def test_unequal_batches_count_by_size_where_update_bn_does_not():
    data, model = unequal(), nn.Sequential(nn.BatchNorm2d(3))
    mean, variance = oracle(torch.cat(data))
    theirs = copy.deepcopy(model)
    update_bn(data, theirs)
    report = normwise.recalibrate(model, data)
    assert report.samples == 51
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-6, atol=0)
    assert ((theirs[0].running_var.double() - variance).abs() / variance).max() > 0.1
    assert ((theirs[0].running_mean.double() - mean).abs() / mean.abs()).max() > 0.1


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_large_offsets(offset):
    data = [torch.randn(64, 4, 8, 8) * 2 + offset for _ in range(4)]
    model = nn.Sequential(nn.BatchNorm2d(4))
    normwise.recalibrate(model, data)
    mean, variance = oracle(torch.cat(data))
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-6, atol=0)


def test_deeper_layers_see_what_training_shows_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.BatchNorm1d(5))
    x = torch.randn(128, 4)
    normwise.recalibrate(model, [x])
    hidden = model[3](model[2](nn.functional.batch_norm(model[0](x), None, None, model[1].weight, model[1].bias, True)))
    torch.testing.assert_close(model[4].running_var, hidden.var(0))


def test_dropout_modes_momentum_and_random_state_are_left_alone():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5)).train()
    model[2].eval()
    state = torch.get_rng_state()
    data = unequal()
    normwise.recalibrate(model, data)
    assert [m.training for m in model] == [True, True, False]
    assert model[1].momentum == 0.3
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(model[1].running_mean.double(), oracle(torch.cat(data))[0], rtol=1e-6, atol=0)


def test_an_exception_leaves_the_statistics():
    model = nn.Sequential(nn.BatchNorm2d(3)).train()
    model[0].running_mean += 5
    before = copy.deepcopy(model.state_dict())
    for bad, message in (
        ([*unequal(), torch.zeros(2, 4, 6, 6)], "does not run"),
        ([torch.full((2, 3, 6, 6), float("nan"))], "NaN"),
    ):
        with pytest.raises(DataError, match=message):
            normwise.recalibrate(model, bad)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert model[0].training


def test_counters_say_that_the_history_is_grown_up():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None))
    normwise.recalibrate(model, unequal())
    assert int(model[1].num_batches_tracked) == 4
    assert (1 - 0.1) ** int(model[0].num_batches_tracked) <= 0.05


def test_frozen_shared_and_synchronised_norms_too():
    shared = nn.BatchNorm2d(3)
    model = nn.Sequential(shared, shared, nn.SyncBatchNorm(3)).train()
    normwise.freeze(model)
    result = normwise.recalibrate(model, unequal())
    assert set(result.layers) == {"0", "2"}
    assert not torch.equal(model[2].running_mean, torch.zeros(3))


def test_a_model_without_statistics_is_refused():
    with pytest.raises(ModelError, match="found none in Sequential"):
        normwise.recalibrate(nn.Sequential(nn.Linear(2, 2)), [torch.zeros(2, 2)])
    with pytest.raises(NormwiseError, match="at least one batch"):
        normwise.recalibrate(nn.Sequential(nn.BatchNorm1d(2)), [])


class Reader(nn.Module):
    """Two layers deep in a model that knows nothing of lengths, domains or steps."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * 3 + 1).mean(-1)


def described(batch: Tensor) -> BatchInfo:
    n = len(batch)
    return BatchInfo(lengths=4 + torch.arange(n) % 3, domain=torch.arange(n) % 2)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    "create", [MaskedBatchNorm, partial(DomainBatchNorm, num_domains=3), partial(TimewiseBatchNorm, max_length=9)]
)
def test_our_layers_are_measured_as_they_group(create, momentum):
    layer = create(2, momentum=momentum, dtype=torch.float64)
    batches = [torch.randn(n, 2, 6, dtype=torch.float64) + n for n in (5, 8, 3)]
    before = {name: table.clone() for name, table in layer.named_buffers()}
    recalibrate(Reader(layer), batches, task=Task(info=described))
    assert layer.observer is None
    values: dict[int, list[Tensor]] = {}
    for batch in batches:
        info = described(batch)
        for i, j in itertools.product(range(len(batch)), range(6)):
            valid = j < int(info.lengths[i])
            group = {MaskedBatchNorm: 0 if valid else None, TimewiseBatchNorm: j if valid else None}
            group = group.get(type(layer), int(info.domain[i]))
            if group is not None:
                values.setdefault(group, []).append(batch[i, :, j] * 3 + 1)
    means, variances = (t.view(-1, 2) for t in (layer.running_mean, layer.running_var))
    for group, found in values.items():
        torch.testing.assert_close(means[group], torch.stack(found).mean(0))
        torch.testing.assert_close(variances[group], torch.stack(found).var(0))
    for group in set(range(len(means))) - set(values):  # no data: as it was
        torch.testing.assert_close(means[group], before["running_mean"].view(-1, 2)[group])
    counter = layer.num_batches_tracked.view(-1)
    assert (counter[: len(values)] == 3).all() if momentum is None else (counter[: len(values)] > 25).all()
    assert (counter[len(values) :] == 0).all()
