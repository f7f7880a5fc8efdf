"""`MaskedBatchNorm`: the conformance suite, and equality with torch on unpadded data."""

from __future__ import annotations

import copy

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, LayerCase, LayerConformance, Refusal, no_side, shapes_unchecked
from torch import nn

from normwise.errors import DataError, ShapeError
from normwise.layers import BatchInfo, MaskedBatchNorm


def lengths(x):
    """Of every size down to 1; all of them there is for rows."""
    longest = x.shape[-1] if x.ndim == 3 else 1
    return (longest - torch.arange(len(x)) % longest,)


def valid(x, side):
    positions = np.arange(x.shape[-1])
    return np.where(positions < np.asarray(side[0])[:, None], 0, -1)[:, None, :]


def oracle(x, side, state, momentum):
    statistics = loops.measure(x, valid(x, side))
    y = loops.standardise(x, valid(x, side), loops.by_batch(statistics), loops.shared(state))
    return y, loops.updated(state, statistics, momentum)


def evaluate(x, side, state):
    return loops.standardise(
        x, valid(x, side), lambda _, c: (state["running_mean"][c], state["running_var"][c]), loops.shared(state)
    )


def too_few(x):
    return (torch.tensor([1]),)


def everywhere(x):
    return torch.ones(len(x), *x.shape[2:], dtype=torch.bool)


def nowhere(x):
    return ~everywhere(x)


class TestMaskedBatchNorm(LayerConformance):
    case = LayerCase(
        create=MaskedBatchNorm,
        oracle=oracle,
        evaluate=evaluate,
        shapes=((4, 3, 5), (5, 2, 3), (2, 4, 7)),
        side=lengths,
        groups=lambda x, side: torch.from_numpy(valid(x, side)),
        trivial_side=lambda x: (torch.full((len(x),), x.shape[-1]),),
        refusals=(
            *BAD_INPUT,
            Refusal("more than 1 value per channel", (1, 3, 4), side=too_few, training_only=True),
            Refusal("more than 1 value per channel", (0, 3, 4), training_only=True),
            Refusal("more than 1 value per channel", (1, 3), side=no_side, mask=everywhere, training_only=True),
            Refusal("more than 1 value per channel", side=no_side, mask=nowhere, training_only=True),
            Refusal("exactly one of lengths and mask", mask=everywhere),
            Refusal(r"mask must be \(4, 2\)", side=no_side, mask=lambda x: torch.ones(4, 3, dtype=torch.bool)),
            Refusal(r"mask must be \(4, 2\) of bool", side=no_side, mask=lambda x: torch.ones(4, 2)),
            Refusal("lengths must hold values", side=lambda x: (torch.ones(4, dtype=torch.long, device="meta"),)),
            Refusal("mask must be on the device of x", side=no_side, mask=lambda x: everywhere(x).to("meta")),
            Refusal(
                r"lengths must lie in \[1, 2\], got values from 2 to 3", side=lambda x: (torch.tensor([2, 3, 2, 2]),)
            ),
            Refusal(r"lengths must lie in \[1, 2\], got values from 0", side=lambda x: (torch.tensor([2, 0, 2, 2]),)),
            Refusal(r"lengths must lie in \[1, 2\], got values from -1", side=lambda x: (torch.tensor([-1, 2, 2, 2]),)),
            Refusal("lengths must be 4 integers", side=lambda x: (torch.ones(3).long(),)),
            Refusal("lengths must be 4 integers", side=lambda x: (torch.ones(4),)),
            Refusal("pass a mask", (4, 3, 2, 2), side=lambda x: (torch.ones(4).long(),)),
        ),
    )


HOLES = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [1, 1, 1]]]).bool()


@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (3, 2, 6), (3, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_of_any_rank_is_torch_on_the_values_it_names(shape, training):
    mask = HOLES[:, 0, 0] if len(shape) == 2 else HOLES.view(3, *shape[2:])
    mask = torch.tensor([True, False, True]) if len(shape) == 2 else mask
    ours, theirs = MaskedBatchNorm(2, dtype=torch.float64), nn.BatchNorm1d(2, dtype=torch.float64)
    nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    ours.train(training), theirs.train(training)
    x, upstream = torch.randn(shape).double().requires_grad_(), torch.randn(shape).double()
    rows = x.movedim(1, -1)[mask].detach().requires_grad_()
    y, expected = ours(x, mask=mask), theirs(rows)
    y.backward(upstream)
    expected.backward(upstream.movedim(1, -1)[mask])
    torch.testing.assert_close(y.movedim(1, -1)[mask], expected)
    torch.testing.assert_close(x.grad.movedim(1, -1)[mask], rows.grad)
    assert (y.movedim(1, -1)[~mask] == 0).all()
    assert (x.grad.movedim(1, -1)[~mask] == 0).all()
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(3, 4).bool(), "more than 1 value per channel"),
        (torch.ones(3, 5).bool(), r"mask must be \(3, 4\)"),
        (torch.ones(4, 3).bool(), r"mask must be \(3, 4\)"),
        (torch.zeros(3, 4), "of bool"),  # one to be added to attention scores, 0 where valid
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    layer = MaskedBatchNorm(2)
    before = copy.deepcopy(layer.state_dict())
    with shapes_unchecked(), pytest.raises(ShapeError, match=message):
        layer(torch.randn(3, 2, 4), mask=mask)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())


def test_all_masked_evaluates_to_zero():
    assert (MaskedBatchNorm(2).eval()(torch.randn(3, 2, 4), mask=torch.zeros(3, 4).bool()) == 0).all()


def test_without_lengths_the_error_says_how_to_pass_them():
    with pytest.raises(DataError, match="BatchInfo"):
        MaskedBatchNorm(2)(torch.randn(3, 2, 4))
    with pytest.raises(ShapeError, match="exactly one"):
        MaskedBatchNorm(2)(torch.randn(3, 2, 4), torch.tensor([1, 2, 3]), mask=torch.ones(3, 4).bool())


def test_batch_info_gives_lengths_or_the_mask():
    x, lengths, layer = torch.randn(3, 2, 4), torch.tensor([4, 1, 2]), MaskedBatchNorm(2)
    mask = torch.arange(4) < lengths.unsqueeze(1)
    expected = layer(x, lengths)
    for info in (BatchInfo(lengths=lengths), BatchInfo(mask=mask), BatchInfo(lengths=lengths - 1, mask=mask)):
        with info:
            assert torch.equal(layer(x), expected)
