"""Draws which values each layer pools, by asking the layers: `python docs/draw_layers.py`.

Two values are in one pool where the outputs of both depend on the same inputs: the pattern of the layer's Jacobian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from torch import Tensor, nn

from normwise.layers import (
    AcrossChannelNorm,
    BatchNorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    GraphBatchNorm,
    GraphLayerNorm,
    GraphNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)
from normwise.reporting.picture import png, svg
from normwise.reporting.style import BLUE, GREEN, INK, LINE, ORANGE, PURPLE, SOFT, VERMILLION, look

IMAGES = Path(__file__).parent / "images"
SAMPLES, CHANNELS, POSITIONS = 6, 3, 5
_HUES = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SOFT)
_GAP = 0.9  # cells between two channels
_PALEST = 0.85  # share of white
_COLUMNS = 3
_PADDED = -1
_SMALL: dict[str, Any] = {"fontsize": 6.5, "color": SOFT, "ha": "center", "va": "bottom"}


@dataclass(frozen=True)
class Case:
    """A layer in training and words for its picture.

    rows: what each sample of the example is called, and by which word; told: whether the layer is given that.
    nodes: whether x is a list of nodes, `(n, c)`.
    """

    title: str
    text: str
    layer: nn.Module
    rows: tuple[str, Tensor] | None = None
    told: bool = True
    nodes: bool = False


def cases() -> dict[str, Case]:
    """Return what is drawn, by the name of its file."""
    length, domain = ("length", torch.tensor([5, 3, 4, 2, 5, 2])), ("domain", torch.tensor([0, 1, 0, 2, 2, 1]))
    condition, graph = ("class", torch.tensor([3, 0, 1, 1, 2, 0])), ("graph", torch.tensor([0, 0, 1, 1, 2, 2]))
    part, c = ("part", torch.tensor([0, 0, 0, 1, 1, 1])), CHANNELS
    of_nodes = GraphLayerNorm(c, mode="node")
    return {
        "batch-norm": Case("BatchNorm", "a channel over the batch", BatchNorm(c)),
        "masked": Case("MaskedBatchNorm", "a channel, padding left out", MaskedBatchNorm(c), length),
        "timewise": Case("TimewiseBatchNorm", "a channel at a step", TimewiseBatchNorm(c, POSITIONS), length),
        "domain": Case("DomainBatchNorm", "a channel in a domain", DomainBatchNorm(c, 3), domain),
        "ghost": Case("GhostBatchNorm", "a channel in a part of the batch", GhostBatchNorm(c, 2), part, told=False),
        "conditional": Case(
            "ConditionalBatchNorm", "as BatchNorm; weight and bias by class", ConditionalBatchNorm(c, 4), condition
        ),
        "across-channel": Case("AcrossChannelNorm", "a position of a sample", AcrossChannelNorm(c)),
        "graph-batch-norm": Case("GraphBatchNorm", "a channel over all nodes", GraphBatchNorm(c), nodes=True),
        "graph-norm": Case("GraphNorm, GraphInstanceNorm", "a channel in a graph", GraphNorm(c), graph, nodes=True),
        "graph-layer-norm": Case("GraphLayerNorm, PairNorm", "a graph", GraphLayerNorm(c), graph, nodes=True),
        "graph-layer-norm-of-nodes": Case('GraphLayerNorm(mode="node")', "a node", of_nodes, graph, nodes=True),
    }


def pools(case: Case) -> np.ndarray:
    """Return the pool of each value, `(n, c, l)`, counted from 0 in the order they appear; padded ones are in none."""
    shape = (SAMPLES, CHANNELS) if case.nodes else (SAMPLES, CHANNELS, POSITIONS)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer, side = case.layer.double().train(), (case.rows[1],) if case.rows is not None and case.told else ()
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x, *side), x).view(x.numel(), x.numel())
    seen: dict[bytes, int] = {}
    labels = [seen.setdefault(row.tobytes(), len(seen)) if row.any() else _PADDED for row in (jacobian != 0).numpy()]
    return np.array(labels).reshape(SAMPLES, CHANNELS, -1)


def colours(labels: np.ndarray) -> list[str]:
    """Return a colour a pool: a hue a channel, or a hue a group and a shade a channel (a position, across channels)."""
    cells = [np.argwhere(labels == pool) for pool in range(labels.max() + 1)]
    first = [tuple(map(int, where[0])) for where in cells]
    if any(len(set(where[:, 1])) > 1 for where in cells):
        keys: list[tuple[Any, Any]] = [(n, position) for n, _, position in first]
    elif len(cells) == CHANNELS:
        keys = [(channel, 0) for _, channel, _ in first]
    else:
        keys = [((n, position), channel) for n, channel, position in first]
    hues, shades = (sorted(set(values)) for values in zip(*keys, strict=True))
    return [_shade(_HUES[hues.index(hue)], _PALEST * shades.index(shade) / len(shades)) for hue, shade in keys]


def _shade(colour: str, share: float) -> str:
    """Mix a colour with white; share 0 is the colour itself."""
    values = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(value + (255 - value) * share):02x}" for value in values)


def draw(axes: Axes, case: Case) -> None:
    """Draw one layer: a block of cells a channel, a row a sample, a column a position; one colour a pool."""
    labels = pools(case)
    positions = labels.shape[2]
    for pool, colour in enumerate(colours(labels)):
        axes.add_patch(PathPatch(_outline(labels == pool), facecolor=colour, edgecolor="white", linewidth=1.2))
    if (labels == _PADDED).any():
        axes.add_patch(
            PathPatch(_outline(labels == _PADDED), facecolor="white", edgecolor=LINE, hatch="/////", linewidth=0)
        )
    for channel in range(CHANNELS):
        left = channel * (positions + _GAP)
        axes.text(
            left + positions / 2, -0.25, f"channel {channel + 1}" if positions > 1 else str(channel + 1), **_SMALL
        )
    if positions == 1:
        axes.text(-0.3, -0.25, "channel", **{**_SMALL, "ha": "right"})
    if case.rows is not None:
        name, values = case.rows
        axes.text(-0.3, SAMPLES + 0.75, name, **{**_SMALL, "ha": "right"})
        for row, value in enumerate(values.tolist()):
            axes.text(-0.3, row + 0.5, str(value), **{**_SMALL, "ha": "right", "va": "center"})
    width = CHANNELS * (POSITIONS + _GAP)
    axes.set_xlim(-2.6, width)
    axes.set_ylim(SAMPLES + 0.8, -1)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(case.title, pad=14, fontsize=9.5, x=2.6 / (width + 2.6))
    axes.text(0, -1.15, case.text, fontsize=8, color=SOFT, va="bottom")


def _outline(chosen: np.ndarray) -> Outline:
    """Return the squares of the chosen cells as one outline."""
    positions = chosen.shape[2]
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=float)
    squares = [corners + np.array([c * (positions + _GAP) + p, n]) for n, c, p in np.argwhere(chosen)]
    codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY] * len(squares)
    return Outline(np.concatenate(squares), codes)


def _key(axes: Axes) -> None:
    """Say how to read the panels."""
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    lines = (
        "A row is a sample (or a node), a column",
        "a position, a block of columns a channel.",
        "",
        "Values of one colour share one mean and",
        "one variance in training. Hatched values are",
        "padding: in no statistic, 0 in the output.",
    )
    axes.text(0.17, 0.83, "\n".join(lines), fontsize=8, color=INK, va="top", linespacing=1.5)


def picture(chosen: Sequence[Case], *, key: bool) -> Figure:
    """Return a figure of some layers, with the key to it at the end if asked for."""
    panels = len(chosen) + key
    columns = min(panels, _COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.15 * columns, 1.75 * rows + 0.1), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09)
    figure.patches.append(Rectangle((0, 0), 1, 1, transform=figure.transFigure, color="white", zorder=-1))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, case in zip(grid, chosen):
        draw(axes, case)
    for axes in grid[panels:]:
        axes.axis("off")
    if key:
        _key(grid[panels - 1])
    return figure


def pictures() -> dict[str, bytes]:
    """Return every file of `docs/images` that this script writes, by its name."""
    files: dict[str, bytes] = {}
    with look():
        found = cases()
        everything = list(found.values())
        files["layers.svg"] = svg(picture(everything, key=True)).encode()
        files["layers.png"] = png(picture(everything, key=True))
        for name, case in found.items():
            files[f"layer-{name}.svg"] = svg(picture([case], key=False)).encode()
    return files


if __name__ == "__main__":
    for name, content in pictures().items():
        (IMAGES / name).write_bytes(content)
