"""What becomes of moments before they normalise: neighbours found, groups shrunk and filled in."""

from __future__ import annotations

import pytest
import torch

from normwise.core.estimate import fill_from_nearest, fill_from_pooled, nearest, shrink_to_neighbours
from normwise.core.moments import Moments


def groups(count: int) -> Moments:
    """Groups of one value each, as running statistics are given, with means and variances of their own."""
    ones = torch.ones(count, 1, dtype=torch.float64)
    return Moments.from_variance(ones, torch.randn(count, 2).double(), 1 + torch.rand(count, 2).double())


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([1, 1, 1], [0, 1, 2]),
        ([0, 0, 1], [2, 2, 2]),
        ([1, 0, 0, 0, 1], [0, 0, 0, 4, 4]),
        ([0, 1, 0, 1, 0], [1, 1, 1, 3, 3]),
        ([0, 0, 0], [0, 1, 2]),
        ([], []),
    ],
)
def test_nearest_available_position(available, expected):
    assert nearest(torch.tensor(available).bool()).tolist() == expected


def test_groups_not_known_take_the_nearest_known_one():
    given = groups(5)
    filled = fill_from_nearest(given, torch.tensor([0, 1, 0, 0, 1]).bool())
    for group, source in enumerate([1, 1, 1, 4, 4]):
        assert torch.equal(filled.mean[group], given.mean[source])
        assert torch.equal(filled.variance[group], given.variance[source])


def test_groups_of_no_batches_take_the_mixture_of_the_others():
    """A draw from a group, chosen by its batches, has the mixture's mean and variance."""
    given, batches = groups(3), torch.tensor([3, 0, 1])
    filled = fill_from_pooled(given, batches)
    mean = 0.75 * given.mean[0] + 0.25 * given.mean[2]
    second = 0.75 * (given.variance[0] + given.mean[0] ** 2) + 0.25 * (given.variance[2] + given.mean[2] ** 2)
    torch.testing.assert_close(filled.mean[1], mean)
    torch.testing.assert_close(filled.variance[1], second - mean**2)
    for group in (0, 2):
        assert torch.equal(filled.mean[group], given.mean[group])
        assert torch.equal(filled.variance[group], given.variance[group])


def test_with_nothing_known_nothing_changes():
    given = groups(3)
    none = torch.zeros(3, dtype=torch.long)
    for filled in (fill_from_pooled(given, none), fill_from_nearest(given, none.bool())):
        assert torch.equal(filled.mean, given.mean)
        assert torch.equal(filled.variance, given.variance)


def test_shrinking_leaves_full_groups_bit_for_bit():
    moments = Moments(torch.tensor([[7.0], [2.0]]).double(), torch.randn(2, 3).double(), torch.rand(2, 3).double())
    shrunk = shrink_to_neighbours(moments, 7)
    assert torch.equal(shrunk.mean[0], moments.mean[0])
    assert torch.equal(shrunk.m2[0], moments.m2[0])
    assert (shrunk.mean[1] != moments.mean[1]).all()
    assert shrunk.count.tolist() == [[7], [7]]
