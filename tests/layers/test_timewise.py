"""`TimewiseBatchNorm`: the conformance suite, equality with one torch layer a step, and its two policies for few values."""

from __future__ import annotations

from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, LayerCase, LayerConformance, Refusal, no_side
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from normwise.errors import ShapeError
from normwise.layers import BatchInfo, TimewiseBatchNorm

STEPS = 8


def lengths(x):
    """The last step of the longest sequence stands alone, where there is more than one step."""
    longest = x.shape[-1] if x.ndim == 3 else 1
    order = torch.arange(len(x))
    return (torch.where(order == 1, longest, (longest - 1 - order % 2).clamp_min(1)),)


def step_of(x, side):
    positions = np.arange(x.shape[-1])
    return np.where(positions < np.asarray(side[0])[:, None], positions, -1)[:, None, :]


def nowhere(x):
    return torch.zeros(len(x), x.shape[-1], dtype=torch.bool)


def oracle(x, side, state, momentum):
    statistics = loops.measure(x, step_of(x, side))
    y = loops.standardise(x, step_of(x, side), loops.by_batch(statistics), loops.shared(state))
    return y, loops.updated(state, statistics, momentum) | loops.counted(state, statistics)


def evaluate(x, side, state):
    def running(step, channel):
        return state["running_mean"][step, channel], state["running_var"][step, channel]

    return loops.standardise(x, step_of(x, side), running, loops.shared(state))


class TestTimewiseBatchNorm(LayerConformance):
    case = LayerCase(
        create=partial(TimewiseBatchNorm, max_length=STEPS),
        oracle=oracle,
        evaluate=evaluate,
        shapes=((5, 3, 4), (4, 2, 8), (7, 1, 1)),
        side=lengths,
        groups=lambda x, side: torch.from_numpy(step_of(x, side)),
        trivial=partial(TimewiseBatchNorm, max_length=1),
        trivial_side=no_side,
        trivial_shapes=((9, 3, 1),),
        offset_shape=(3200, 4, 1),
        refusals=(
            *BAD_INPUT,
            Refusal("more than 1 value per channel", (1, 3, 1), training_only=True),
            Refusal("more than 1 value per channel", (0, 3, 4), training_only=True),
            Refusal("more than 1 value per channel", side=no_side, mask=nowhere, training_only=True),
            Refusal(r"mask must be \(4, 2\) of bool", side=no_side, mask=lambda x: torch.ones(4, 2)),
            Refusal("lengths must hold values", side=lambda x: (torch.ones(4, dtype=torch.long, device="meta"),)),
            Refusal("mask must be on the device of x", side=no_side, mask=lambda x: nowhere(x).to("meta")),
            Refusal("lengths must be 4 integers", side=lambda x: (torch.ones(3).long(),)),
            Refusal("lengths must be 4 integers", side=lambda x: (torch.ones(4),)),
            Refusal(r"lengths must lie in \[1, 2\], got values from -1", side=lambda x: (torch.tensor([-1, 2, 2, 2]),)),
            Refusal(r"must be \(n, 3, t\) of at most 8 steps, got \(4, 3\)", (4, 3), side=no_side),
            Refusal(r"must be \(n, 3, t\) of at most 8 steps, got \(4, 3, 9\)", (4, 3, 9)),
            Refusal(r"must be \(n, 3, t\)", (4, 3, 2, 2), side=no_side),
            Refusal(
                r"lengths must lie in \[1, 2\], got values from 1 to 3", side=lambda x: (torch.tensor([1, 3, 2, 2]),)
            ),
            Refusal(r"lengths must lie in \[1, 2\], got values from 0", side=lambda x: (torch.tensor([2, 0, 2, 2]),)),
        ),
        twin=False,
    )


@pytest.mark.parametrize("momentum", [0.2, None])
def test_training_is_that_of_one_torch_layer_a_step(momentum):
    ours = TimewiseBatchNorm(3, 5, momentum=momentum, dtype=torch.float64)
    each = nn.ModuleList(nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in range(5))
    for steps in (3, 5, 4):
        x = torch.randn(6, 3, steps).double() * 3 + torch.arange(steps)
        torch.testing.assert_close(ours(x), torch.stack([each[t](x[..., t]) for t in range(steps)], -1))
    assert ours.num_batches_tracked.tolist() == [3, 3, 3, 2, 1]
    ours.eval(), each.eval()
    torch.testing.assert_close(ours(x), torch.stack([each[t](x[..., t]) for t in range(steps)], -1))


def test_a_single_value_gives_the_bias_and_leaves_its_steps_buffers():
    layer = TimewiseBatchNorm(2, 3)
    nn.init.normal_(layer.bias)
    y = layer(torch.randn(3, 2, 3), torch.tensor([1, 3, 2]))
    torch.testing.assert_close(y[1, :, 2], layer.bias)
    assert layer.num_batches_tracked.tolist() == [1, 1, 0]
    assert layer.running_mean[2].tolist() == [0, 0]
    assert layer.running_var[2].tolist() == [1, 1]


def test_a_mask_and_batch_info_say_the_same_as_lengths():
    layer, x, lengths = TimewiseBatchNorm(2, 4), torch.randn(5, 2, 4), torch.tensor([4, 2, 3, 1, 4])
    mask = torch.arange(4) < lengths.unsqueeze(1)
    expected = layer(x, lengths)
    assert torch.equal(layer(x, mask=mask), expected)
    for info in (BatchInfo(lengths=lengths), BatchInfo(mask=mask)):
        with info:
            assert torch.equal(layer(x), expected)
    assert (layer(x) != expected).any()  # without any of them, all steps are valid


# --- steps that training never saw


def test_evaluation_takes_the_nearest_step_that_training_has_seen():
    layer = TimewiseBatchNorm(1, 9, dtype=torch.float64)
    with torch.no_grad():
        layer.running_mean.copy_(torch.arange(9.0).unsqueeze(1))
        layer.num_batches_tracked.copy_(torch.tensor([0, 0, 1, 0, 0, 0, 3, 0, 0]))
    y = layer.eval()(torch.zeros(1, 1, 9).double())
    used = -y[0, 0] * (1 + 1e-5) ** 0.5
    torch.testing.assert_close(used, torch.tensor([2.0, 2, 2, 2, 2, 6, 6, 6, 6]).double())
    shorter = layer(torch.zeros(1, 1, 2).double())  # the nearest may lie beyond this batch
    torch.testing.assert_close(shorter, y[..., :2])


def test_an_untrained_layer_evaluates_as_torchs():
    x = torch.randn(6, 2, 3)
    torch.testing.assert_close(TimewiseBatchNorm(2, 3).eval()(x), nn.BatchNorm1d(2).eval()(x))


# --- late steps with few values


def shrunk_by_hand(values, neighbour, min_count):
    """Mean and variance of few values and of as many of the neighbour's as are missing, from sums of squares."""
    own, missing = len(values), min_count - len(values)
    mean = (values.sum(0) + missing * neighbour.mean(0)) / min_count
    second = (values.square().sum(0) + missing * neighbour.square().mean(0)) / min_count
    assert own < min_count
    return mean, second - mean.square()


def test_a_step_of_few_values_is_shrunk_towards_the_nearest_step_of_enough():
    layer = TimewiseBatchNorm(2, 4, min_count=4, affine=False, dtype=torch.float64)
    x, lengths = torch.randn(6, 2, 4).double() + 3, torch.tensor([4, 2, 2, 3, 1, 3])  # 6, 5, 3 and 1 values
    y, plain = layer(x, lengths), TimewiseBatchNorm(2, 4, affine=False, dtype=torch.float64)
    expected = plain(x, lengths)
    torch.testing.assert_close(y[..., :2], expected[..., :2], rtol=0, atol=0)
    for step in (2, 3):
        alive = lengths > step
        mean, variance = shrunk_by_hand(x[alive, :, step], x[lengths > 1, :, 1], 4)
        torch.testing.assert_close(y[alive, :, step], (x[alive, :, step] - mean) / (variance + 1e-5).sqrt())
    assert torch.equal(layer.running_mean, plain.running_mean)  # buffers take a step's own values
    assert layer.num_batches_tracked.tolist() == [1, 1, 1, 0]


def test_where_no_step_has_enough_values_none_is_shrunk():
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(TimewiseBatchNorm(2, 3, min_count=16)(x), TimewiseBatchNorm(2, 3)(x))


def test_gradients_flow_to_the_neighbours_that_lent():
    layer = TimewiseBatchNorm(2, 4, min_count=5, eps=0.1, dtype=torch.float64)
    x, lengths = torch.randn(6, 2, 4).double().requires_grad_(), torch.tensor([4, 2, 2, 3, 1, 3])
    assert gradcheck(lambda x: layer(x, lengths), x)
    assert gradgradcheck(lambda x: layer(x, lengths), x)


def test_shrinking_halves_the_error_of_late_steps():
    """Steps drift slowly; a late step's mean is better known together with its neighbour's."""
    generator = torch.Generator().manual_seed(0)
    errors = {1: [], 16: []}
    for _ in range(200):
        x = torch.randn(32, 1, 2, generator=generator) + torch.tensor([0.0, 0.1])
        for min_count in errors:
            y = TimewiseBatchNorm(1, 2, min_count=min_count)(x, torch.tensor([2, 2, 2] + [1] * 29))
            errors[min_count].append(float((y.detach()[:3, 0, 1] - (x[:3, 0, 1] - 0.1)).square().mean()))
    assert np.mean(errors[16]) < 0.5 * np.mean(errors[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"max_length": 3, "min_count": 0}, "min_count must be at least 1"),
    ],
)
def test_construction_refuses(options, message):
    with pytest.raises(ShapeError, match=message):
        TimewiseBatchNorm(2, **options)


def test_the_printed_form_and_fewer_tables():
    assert "max_length=4, min_count=2" in repr(TimewiseBatchNorm(2, 4, min_count=2))
    layer, x = TimewiseBatchNorm(2, 4, affine=False, track_running_stats=False), torch.randn(5, 2, 3)
    assert list(layer.state_dict()) == []
    assert torch.equal(layer.train()(x), layer.eval()(x))
