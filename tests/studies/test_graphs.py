"""Real graphs as they are read, and neighbourhoods cut out of them."""

from __future__ import annotations

import pytest
import torch

from normwise.errors import MissingDataError, MissingExtraError
from normwise.studies.graphs import Graph, cora, neighbours_of_digits, propagate


def path(nodes: int, *, cut: int | None = None) -> Graph:
    """A line of nodes, torn before one."""
    one = torch.tensor([node for node in range(nodes - 1) if node + 1 != cut])
    edges = torch.cat([torch.stack([one, one + 1]), torch.stack([one + 1, one])], 1)
    return Graph("path", torch.eye(nodes), torch.arange(nodes), edges)


def test_a_ball_is_what_is_nearest():
    graph = path(9)
    assert sorted(graph.ball(4, 5)) == [2, 3, 4, 5, 6]
    assert sorted(graph.ball(0, 3)) == [0, 1, 2]


def test_a_ball_goes_on_in_another_component():
    assert sorted(path(6, cut=2).ball(0, 4)) == [0, 1, 2, 3]


def test_propagation_is_the_symmetric_mean_by_hand():
    spread = propagate(path(3), torch.tensor([[1.0], [0.0], [0.0]]))
    assert spread.flatten() == pytest.approx(torch.tensor([1 / 2, 1 / 6**0.5, 0]))


def test_cora_is_all_there():
    try:
        graph = cora()
    except (MissingDataError, MissingExtraError) as error:
        pytest.skip(str(error))
    assert graph.features.shape == (2708, 1433)
    assert len(graph.labels.unique()) == 7
    assert (graph.edges.flip(0).unique(dim=1) == graph.edges).all()


def test_digits_are_joined_to_their_like():
    graph = neighbours_of_digits()
    one, other = graph.edges
    assert (one != other).all()
    assert int(torch.bincount(one).min()) >= 8
    assert float((graph.labels[one] == graph.labels[other]).double().mean()) > 0.9
