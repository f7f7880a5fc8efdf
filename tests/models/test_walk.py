"""Norms are found by what they hold and do."""

import pytest
import torch
from tests.models.kinds import CHANNELS, NORMS, WITH_MORE, FrozenBatchNorm2d, Ported, net
from torch import nn

from normwise.errors import ModelError
from normwise.layers import BatchNorm
from normwise.models.walk import device_of, names_of, norm_layers, require_norm_layers, stays_in_eval


@pytest.mark.parametrize("kind", [*NORMS, *WITH_MORE])
def test_every_kind_is_found_once_with_its_statistics(kind):
    norm = {**NORMS, **WITH_MORE}[kind](CHANNELS)
    (layer,) = norm_layers(net(norm))
    assert layer.name == "1"
    assert layer.module is norm
    assert layer.channels == CHANNELS
    assert layer.running_mean.shape == layer.running_var.shape == (CHANNELS,)


def test_a_renamed_affine_and_statistics_are_read():
    norm = Ported(CHANNELS)
    (layer,) = norm_layers(norm)
    assert (layer.name, layer.statistics, layer.affine) == ("", ("moving_mean", "moving_variance"), ("gamma", "beta"))
    assert layer.weight is norm.gamma
    assert layer.bias is norm.beta
    assert layer.momentum == 0.99
    assert layer.updates is None


def test_untracked_norms_are_found_without_statistics():
    for norm in (nn.BatchNorm2d(4, track_running_stats=False), BatchNorm(4, track_running_stats=False)):
        (layer,) = norm_layers(norm)
        assert layer.statistics is None
        assert layer.running_mean is None
        assert layer.channels == 4
        assert not layer.learns_statistics


def test_other_normalizations_are_not_found():
    model = nn.Sequential(
        nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1), nn.LocalResponseNorm(2)
    )
    assert norm_layers(model) == []
    with pytest.raises(ModelError, match="expected layers with running statistics, found none in Sequential"):
        require_norm_layers(model)


def test_tracked_instance_norm_is_found_and_known_as_per_sample():
    (layer,) = norm_layers(nn.InstanceNorm2d(4, track_running_stats=True))
    assert layer.per_sample


def test_a_shared_norm_is_one_layer_with_all_its_names():
    norm = nn.BatchNorm1d(3)
    model = nn.ModuleDict({"a": norm, "b": nn.Sequential(norm)})
    (layer,) = norm_layers(model)
    assert layer.name == "a"
    assert names_of(model, norm) == ["a", "b.0"]


def test_a_lazy_norm_is_named():
    with pytest.raises(ModelError, match="layer '1' is lazy"):
        norm_layers(nn.Sequential(nn.ReLU(), nn.LazyBatchNorm2d()))


@pytest.mark.parametrize(
    ("norm", "learns"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm2d(3, momentum=None), True),
        (nn.BatchNorm2d(3, momentum=0.0), False),
        (FrozenBatchNorm2d(3), False),
        (Ported(3), True),
        (BatchNorm(3), True),
    ],
)
def test_learns_statistics(norm, learns):
    assert norm_layers(norm)[0].learns_statistics is learns


def test_a_norm_with_its_own_train_stays_in_eval():
    norm = nn.BatchNorm2d(3)
    assert not stays_in_eval(norm)
    norm.train = lambda mode=True: norm
    assert stays_in_eval(norm)
    assert not norm_layers(norm)[0].learns_statistics


def test_device_of_a_model_without_tensors_is_the_cpu():
    assert device_of(nn.ReLU()) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
