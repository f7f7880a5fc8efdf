"""`PairNorm`: the conformance suite in both forms, and the distance it is there to hold."""

from __future__ import annotations

import math
from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import EPS, LayerCase, LayerConformance, Refusal
from graph_batches import BAD_BATCH, SHAPES, index, some_graphs

from normwise.errors import ShapeError
from normwise.layers import PairNorm

SCALE = 2.5


def oracle(individually, x, side, state, momentum):
    """Zhao and Akoglu, eq. 10 and 11: centre, then divide by a node's distance or by the root of the mean square one."""
    graph, y = side[0].tolist(), np.empty_like(x)
    means = loops.measure(x, np.asarray(side[0]).reshape(-1, 1))
    centred = [[x[i, c] - means[graph[i], c][1] for c in range(x.shape[1])] for i in range(len(x))]
    squares = [math.fsum(value**2 for value in row) for row in centred]
    for i in range(len(x)):
        same = [i] if individually else [j for j in range(len(x)) if graph[j] == graph[i]]
        distance = math.sqrt(math.fsum(squares[j] for j in same) / len(same) + EPS)
        y[i] = [SCALE * value / distance for value in centred[i]]
    return y, {}


def create(channels, individually, dtype=None):
    return PairNorm(SCALE, scale_individually=individually)


def case(individually):
    compute = partial(oracle, individually)
    return LayerCase(
        create=partial(create, individually=individually),
        oracle=compute,
        evaluate=lambda x, side, state: compute(x, side, state, None)[0],
        shapes=SHAPES,
        side=some_graphs,
        groups=index,
        trivial_side=None,
        refusals=(
            *BAD_BATCH,
            Refusal(r"x must be \(nodes, channels\), got \(4, 3, 2\)"),
            Refusal(r"x must be \(nodes, channels\)", (3,), side=lambda x: ()),
            Refusal("floating dtype", (4, 3), dtype=torch.int64),
        ),
        running=False,
        twin=False,
    )


class TestPairNorm(LayerConformance):
    case = case(False)


class TestPairNormOfNodes(LayerConformance):
    case = case(True)


def test_the_mean_squared_distance_of_pairs_is_the_same_for_every_graph_and_size():
    x, batch = torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 2
    x = torch.where(batch.unsqueeze(1) == 0, 1e3 * x, 10 * x + 5)
    y = PairNorm(SCALE)(x, batch)
    for graph in (0, 1):
        pairs = torch.cdist(y[batch == graph], y[batch == graph]).square().mean()
        assert pairs.item() == pytest.approx(2 * SCALE**2, rel=1e-6)


def test_scaled_individually_every_node_lies_at_the_same_distance():
    y = PairNorm(SCALE, scale_individually=True)(torch.randn(9, 3) * 50)
    torch.testing.assert_close(y.norm(dim=1), torch.full((9,), SCALE))


def test_construction_and_the_printed_form():
    with pytest.raises(ShapeError, match="eps must be a number that is not negative"):
        PairNorm(eps=-1.0)
    assert repr(PairNorm()) == "PairNorm(scale=1.0, scale_individually=False, eps=1e-05)"
    assert list(PairNorm().state_dict()) == []
