"""What a norm does is found by trying it."""

import pytest
import torch
from tests.models.kinds import CHANNELS, NORMS, WITH_MORE, EpslessFrozen, Ported, images, randomize, snapshot
from torch import nn

from normwise.layers import BatchNorm, Source, StatisticsPolicy
from normwise.layers.policy import DEFAULT, FROZEN
from normwise.models.form import evaluation_form, scale_and_shift, training_form
from normwise.models.walk import norm_layers


def layer_of(norm):
    return norm_layers(randomize(norm))[0]


@pytest.mark.parametrize("kind", NORMS)
def test_pure_norms_are_known_in_evaluation(kind):
    layer = layer_of(NORMS[kind](CHANNELS))
    form = evaluation_form(layer)
    assert form.eps == layer.eps
    assert not form.batch
    assert 4 in form.ranks


@pytest.mark.parametrize("kind", WITH_MORE)
def test_norms_that_do_more_are_not(kind):
    assert evaluation_form(layer_of(WITH_MORE[kind](CHANNELS))) is None


def test_an_eps_that_is_not_told_is_found():
    assert evaluation_form(layer_of(EpslessFrozen(CHANNELS))).eps == 0.0


@pytest.mark.parametrize(
    ("norm", "ranks"),
    [(nn.BatchNorm1d(4), {2, 3}), (nn.BatchNorm2d(4), {4}), (nn.BatchNorm3d(4), {5}), (BatchNorm(4), {2, 3, 4, 5})],
)
def test_ranks(norm, ranks):
    assert evaluation_form(layer_of(norm)).ranks == ranks


def test_an_unknown_table_is_more_than_a_norm():
    norm = nn.BatchNorm2d(4)
    norm.register_parameter("gain", nn.Parameter(torch.ones(4)))
    assert evaluation_form(layer_of(norm)) is None


def test_batch_statistics_in_evaluation_are_seen():
    assert evaluation_form(layer_of(nn.BatchNorm2d(4, track_running_stats=False))).batch
    assert evaluation_form(layer_of(BatchNorm(4, policy=StatisticsPolicy(evaluation=Source.BATCH)))).batch


@pytest.mark.parametrize(
    ("norm", "policy", "momentum"),
    [
        (nn.BatchNorm2d(4), DEFAULT, 0.1),
        (nn.BatchNorm2d(4, momentum=None), DEFAULT, None),
        (nn.BatchNorm2d(4, momentum=0.0), DEFAULT, 0.0),
        (NORMS["renamed"](4), DEFAULT, 0.2),
        (Ported(4), DEFAULT, 0.01),
        (NORMS["frozen"](4), FROZEN, None),
        (BatchNorm(4, momentum=0.3), DEFAULT, 0.3),
        (BatchNorm(4, policy=FROZEN), FROZEN, 0.1),
        (nn.BatchNorm2d(4, track_running_stats=False), DEFAULT, 0.1),
    ],
)
def test_training_forms(norm, policy, momentum):
    layer = layer_of(norm)
    form = training_form(layer, evaluation_form(layer))
    assert form.policy == policy
    assert form.momentum == pytest.approx(momentum)


def test_instance_statistics_in_training_are_no_batch_normalization():
    layer = layer_of(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    form = evaluation_form(layer)
    assert form is not None
    assert training_form(layer, form) is None


def test_trying_runs_no_hooks_and_leaves_the_module_alone():
    norm, calls = randomize(nn.BatchNorm2d(4)), []
    norm.register_forward_hook(lambda *_: calls.append(1))
    norm.register_forward_pre_hook(lambda *_: calls.append(1))
    bits, state = snapshot(norm), torch.get_rng_state()
    layer = norm_layers(norm)[0]
    training_form(layer, evaluation_form(layer))
    assert calls == []
    assert snapshot(norm) == bits
    assert norm.training
    assert len(norm._forward_hooks) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_scale_and_shift_are_the_norm():
    norm = randomize(nn.BatchNorm2d(CHANNELS)).eval().double()
    scale, shift = scale_and_shift(norm_layers(norm)[0], norm.eps)
    x = images().double()
    torch.testing.assert_close(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), norm(x), rtol=1e-13, atol=1e-13)
