"""`GhostBatchNorm`: the conformance suite, and equality with a loop of torch's layers over the parts."""

from __future__ import annotations

from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, LayerCase, LayerConformance, Refusal
from torch import nn

from normwise.errors import ShapeError
from normwise.layers import GhostBatchNorm, Source, StatisticsPolicy

SPLITS = 3


def parts(x):
    """The part of each sample: as many samples each as it takes, the last part what is left."""
    size = -(-len(x) // SPLITS)
    return (np.arange(len(x)) // size).reshape(-1, *[1] * (x.ndim - 1))


def oracle(x, side, state, momentum):
    statistics = loops.measure(x, parts(x))
    y = loops.standardise(x, parts(x), loops.by_batch(statistics), loops.shared(state))
    return y, loops.updated(state, loops.measure(x, parts(x) * 0), momentum)


class TestGhostBatchNorm(LayerConformance):
    case = LayerCase(
        create=partial(GhostBatchNorm, splits=SPLITS),
        oracle=oracle,
        shapes=((8, 3), (4, 3, 5), (5, 2, 3, 2), (3, 2, 2, 3, 2)),
        groups=lambda x, side: torch.from_numpy(parts(x)),
        trivial=partial(GhostBatchNorm, splits=1),
        exchangeable=False,
        refusals=(
            *BAD_INPUT,
            Refusal("more than 1 value per channel", (1, 3), training_only=True),
            Refusal("more than 1 value per channel", (0, 3, 4), training_only=True),
            Refusal(r"splits must lie in \[1, 2\], the number of samples, got 3", (2, 3, 4), training_only=True),
            Refusal(
                "last part of 1 of 7 samples at splits=3; use a batch size that splits evenly",
                (7, 3),
                training_only=True,
            ),
            Refusal("last part of 1 of 3 samples", (3, 3, 1, 1), training_only=True),
        ),
    )


@pytest.mark.parametrize("samples", [6, 7, 10])
def test_parts_are_those_of_torch_chunk_and_buffers_those_of_the_whole_batch(samples):
    ours, each = GhostBatchNorm(2, splits=4), nn.BatchNorm1d(2, track_running_stats=False)
    whole = nn.BatchNorm1d(2)
    x = torch.randn(samples, 2, 5) * 3 + 1
    torch.testing.assert_close(ours(x), torch.cat([each(part) for part in x.chunk(4)]), rtol=1e-4, atol=1e-5)
    whole(x)
    torch.testing.assert_close(ours.running_mean, whole.running_mean)
    torch.testing.assert_close(ours.running_var, whole.running_var)


def test_permuting_inside_a_part_permutes_the_output_and_across_parts_does_not():
    layer, x = GhostBatchNorm(2, splits=2), torch.randn(6, 2)
    inside, across = torch.tensor([2, 0, 1, 3, 5, 4]), torch.tensor([3, 1, 2, 0, 4, 5])
    y = layer(x)
    torch.testing.assert_close(layer(x[inside]), y[inside])
    assert (layer(x[across]) - y[across]).abs().max() > 0.1


def test_a_batch_too_small_to_split_evaluates_and_trains_with_frozen_statistics():
    layer, x = GhostBatchNorm(2, splits=4), torch.randn(3, 2)
    torch.testing.assert_close(layer.eval()(x), x / (1 + 1e-5) ** 0.5)
    layer.policy = StatisticsPolicy(training=Source.RUNNING)
    torch.testing.assert_close(layer.train()(x), x / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean(0))


def test_construction_and_the_printed_form():
    with pytest.raises(ShapeError, match="splits must be at least 1, got 0"):
        GhostBatchNorm(2, 0)
    assert "splits=4" in repr(GhostBatchNorm(2, 4))
    assert list(GhostBatchNorm(2, 4, affine=False, track_running_stats=False).state_dict()) == []
