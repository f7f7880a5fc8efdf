"""`AcrossChannelNorm`: the conformance suite, and equality with `nn.LayerNorm` on channels moved last."""

from __future__ import annotations

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, LayerCase, LayerConformance
from torch import nn

from normwise.errors import ShapeError
from normwise.layers import AcrossChannelNorm


def oracle(x, side, state, momentum):
    """Channels on axis 0 stand for samples: a group is a sample and a position, over all channels."""
    turned = np.moveaxis(x, 1, 0)[:, None]  # (c, 1, n, *)
    place_number = np.arange(turned[0].size).reshape(turned[:1].shape)

    def affine(place):
        return state["weight"][place[0]], state["bias"][place[0]]

    statistics = loops.measure(turned, place_number)
    y = loops.standardise(turned, place_number, loops.by_batch(statistics), affine)
    return np.moveaxis(y[:, 0], 0, 1), {}


class TestAcrossChannelNorm(LayerConformance):
    case = LayerCase(
        create=AcrossChannelNorm,
        oracle=oracle,
        evaluate=lambda x, side, state: oracle(x, side, state, 0)[0],
        shapes=((7, 3), (4, 3, 5), (3, 2, 3, 4), (1, 4, 2, 3, 2)),
        trivial_side=None,
        groups_are_centred=False,  # groups run across channels, whose weights differ
        refusals=BAD_INPUT,
        running=False,
        twin=False,
    )


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (6, 3, 4, 5)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_it_is_layer_norm_at_each_position_and_takes_its_state_dict(shape, offset):
    theirs, ours = nn.LayerNorm(3), AcrossChannelNorm(3)
    nn.init.normal_(theirs.weight), nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x = (torch.randn(shape) + offset).requires_grad_()
    y, expected, upstream = ours(x), theirs(x.movedim(1, -1)).movedim(-1, 1), torch.randn(shape)
    assert torch.equal(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, x, upstream), torch.autograd.grad(expected, x, upstream))


def test_no_sample_and_no_position_sees_another():
    layer, x = AcrossChannelNorm(4), torch.randn(3, 4, 5)
    y = layer(x)
    x[1, :, 2] = 100 * torch.randn(4)
    changed = (layer(x) != y).any(1)
    assert changed.nonzero().tolist() == [[1, 2]]


def test_gradients_of_each_position_sum_to_zero_over_channels():
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    AcrossChannelNorm(4, affine=False, dtype=torch.float64)(x).backward(torch.randn(3, 4, 5, dtype=torch.float64))
    assert x.grad.sum(1).abs().max() < 1e-12
    assert x.grad.abs().max() > 1e-3


def test_construction_and_the_printed_form():
    with pytest.raises(ShapeError, match=r"num_features must be at least 2.*got 1"):
        AcrossChannelNorm(1)
    with pytest.raises(ShapeError, match="num_features must be at least 1, got 0"):
        AcrossChannelNorm(0)
    assert repr(AcrossChannelNorm(3)) == "AcrossChannelNorm(3, eps=1e-05, affine=True)"
    assert list(AcrossChannelNorm(3, affine=False).state_dict()) == []
