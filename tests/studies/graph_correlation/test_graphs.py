"""Real graphs as they are read, and neighbourhoods cut out of them."""

from __future__ import annotations

import pytest
import torch

from normwise.errors import MissingDataError, MissingExtraError
from normwise.studies.graph_correlation.graphs import Graph, cora, neighbours_of_digits, side_by_side


def path(nodes: int, *, cut: int | None = None) -> Graph:
    """A line of nodes, torn before one."""
    one = torch.tensor([node for node in range(nodes - 1) if node + 1 != cut])
    edges = torch.cat([torch.stack([one, one + 1]), torch.stack([one + 1, one])], 1)
    return Graph("path", torch.eye(nodes), torch.arange(nodes), edges)


def test_a_ball_is_what_is_nearest():
    graph = path(9)
    assert sorted(graph.ball(4, 5)) == [2, 3, 4, 5, 6]
    assert sorted(graph.ball(0, 3)) == [0, 1, 2]


def test_a_smaller_ball_is_the_beginning_of_a_larger_one():
    graph = path(9, cut=4)
    assert graph.ball(6, 9)[:4] == graph.ball(6, 4)


def test_a_ball_goes_on_in_another_component():
    assert sorted(path(6, cut=2).ball(0, 4)) == [0, 1, 2, 3]


def test_the_whole_is_averaged_symmetrically_by_hand():
    spread = path(3).whole.smooth[:, 0]
    assert spread == pytest.approx(torch.tensor([1 / 2, 1 / 6**0.5, 0]))


def test_a_part_knows_nothing_of_the_rest():
    """Of nodes 3, 2 and 5 of a line only 2 and 3 are joined, and neither's other neighbour counts."""
    part = path(6).part([3, 2, 5])
    assert part.adjacency.numpy() == pytest.approx(torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]]).numpy())
    assert part.nodes.tolist() == [3, 2, 5]
    assert part.smooth[0] == pytest.approx(torch.tensor([0, 0, 0.5, 0.5, 0, 0]))


def test_all_of_a_graph_as_a_part_is_the_whole():
    graph = path(5)
    part = graph.part(range(5))
    torch.testing.assert_close(part.adjacency, graph.whole.adjacency.to_dense())
    torch.testing.assert_close(part.smooth, graph.whole.smooth)


def test_parts_side_by_side_do_not_touch():
    graph = path(6)
    both = side_by_side([graph.part([0, 1]), graph.part([1, 2])])
    assert both.nodes.tolist() == [0, 1, 1, 2]
    assert both.adjacency[:2, 2:].abs().sum() == both.adjacency[2:, :2].abs().sum() == 0
    torch.testing.assert_close(both.adjacency @ graph.features[both.nodes], both.smooth)


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
