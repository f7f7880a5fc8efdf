"""The picture of the layers shows what the groupings say, in colours that can be told apart, and is up to date."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normwise.core.grouping import Channelwise, Ghost, Grouping, Indexed, Prefix, Steps
from normwise.layers import BatchNormAct, BatchRenorm, GraphInstanceNorm, PairNorm

SCRIPT = Path(__file__).parent.parent / "docs/draw_layers.py"
SPEC = importlib.util.spec_from_file_location("draw_layers", SCRIPT)
drawing = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)  # dataclasses look for it there
SPEC.loader.exec_module(drawing)
CASES = drawing.cases()


def grouped(grouping: Grouping, labels: np.ndarray) -> np.ndarray:
    """Return the cell of each value, a channel apart from the others, -1 for padding."""
    n, c, positions = labels.shape
    cells = grouping.cells(torch.zeros(n, c, positions))
    group = torch.zeros(n, positions, dtype=torch.long) if cells.sample is None else cells.sample.view(-1, 1)
    group = torch.arange(positions).expand(n, -1) if cells.steps else group.expand(n, positions)
    groups = group.unsqueeze(1) * c + torch.arange(c).view(-1, 1)
    return groups.numpy() if cells.mask is None else groups.where(cells.mask.unsqueeze(1), -1).numpy()


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    return len(pairs) == len(set(first.ravel())) == len(set(second.ravel()))


@pytest.mark.parametrize(
    ("name", "grouping"),
    [
        ("batch-norm", lambda rows: Channelwise()),
        ("masked", Prefix),
        ("timewise", Steps),
        ("domain", lambda rows: Indexed(rows, 3)),
        ("ghost", lambda rows: Ghost(2)),
        ("conditional", lambda rows: Channelwise()),
        ("graph-batch-norm", lambda rows: Channelwise()),
        ("graph-norm", lambda rows: Indexed(rows, 3)),
    ],
)
def test_pools_are_the_cells_of_the_grouping(name, grouping):
    case = CASES[name]
    labels, cells = drawing.pools(case), grouping(None if case.rows is None else case.rows[1])
    expected = grouped(cells, labels)
    assert same_partition(labels, expected)
    assert ((labels < 0) == (expected < 0)).all()


def test_pools_across_channels():
    n, c, positions = drawing.SAMPLES, drawing.CHANNELS, drawing.POSITIONS
    places = np.arange(n * positions).reshape(n, 1, positions).repeat(c, 1)
    assert same_partition(drawing.pools(CASES["across-channel"]), places)
    graph = CASES["graph-layer-norm"].rows[1].numpy().reshape(n, 1, 1).repeat(c, 1)
    assert same_partition(drawing.pools(CASES["graph-layer-norm"]), graph)
    assert same_partition(drawing.pools(CASES["graph-layer-norm-of-nodes"]), np.arange(n).reshape(n, 1, 1).repeat(c, 1))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("batch-norm", BatchRenorm(3)),
        ("batch-norm", BatchNormAct(3, torch.nn.Identity())),
        ("graph-norm", GraphInstanceNorm(3)),
        ("graph-layer-norm", PairNorm()),
    ],
)
def test_layers_of_one_panel_pool_the_same(name, layer):
    other = dataclasses.replace(CASES[name], layer=layer)
    assert same_partition(drawing.pools(other), drawing.pools(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_every_pool_has_a_colour_of_its_own(name):
    labels = drawing.pools(CASES[name])
    chosen = [tuple(bytes.fromhex(colour[1:])) for colour in drawing.colours(labels)]
    assert len(chosen) == labels.max() + 1
    nearest = min(max(abs(a - b) for a, b in zip(one, other)) for one in chosen for other in chosen if one != other)
    assert len(set(chosen)) == len(chosen)
    assert nearest >= 16  # of 255, in red, green or blue


def test_pictures_are_up_to_date_and_the_same_each_time():
    for name, content in drawing.pictures().items():
        if name.endswith(".svg"):
            assert (drawing.IMAGES / name).read_bytes() == content, "run `python docs/draw_layers.py`"
        else:
            assert (drawing.IMAGES / name).exists()
