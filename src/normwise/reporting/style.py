"""One look for all figures: colour-blind safe, named where the eye is, never without an interval.

matplotlib's `Figure` objects, never pyplot. Figures are drawn inside `with look():`, which changes nothing outside, and
become pictures in `reporting.picture`. A claim is vermillion and dashed, theory blue and a line, what was measured ink
and dots; where a panel shows several kinds of thing, each kind takes one of the other colours for its line and its dots.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1b1f24", "#59636e", "#d8dee4"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
CLAIM, THEORY, MEASURED = VERMILLION, BLUE, INK
# Okabe and Ito 2008, "Color Universal Design", and the same hues for dark paper: name -> (light, dark).
PALETTE = {
    "blue": (BLUE, "#5cb3f0"),
    "vermillion": (VERMILLION, "#ff8f4a"),
    "green": (GREEN, "#3fcf9f"),
    "purple": (PURPLE, "#e9a3cb"),
    "orange": (ORANGE, "#f2c14e"),
    "sky": (SKY, "#93d3f7"),
}
_WIDTH, _HEIGHT = 4.8, 3.5  # inches of 72 points: as wide as half a page on a desk, or a phone
_NORMAL, SMALL = 9.5, 8.5
_GALLERY = 3.8  # inches that pictures take beside their names
VERTICAL = "vertical-axis"  # what marks the words above a panel
LABEL = "direct-label"  # what marks the names beside a panel
_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": _NORMAL,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "svg.fonttype": "none",
    "svg.hashsalt": "normwise",
    "savefig.dpi": 144,
}


@contextmanager
def look() -> Generator[None]:
    """Draw and save figures in one style inside this block; raises `MissingExtraError` without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "studies", "drawing figures") from error
    with matplotlib.rc_context(_RC):
        yield


def figure(title: str, x: str, y: str, *, log: str = "") -> tuple[Figure, Axes]:
    """Return a figure of one panel and its axes: a title, what is on the axes, and which are logarithmic ("x", "xy")."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = made.add_subplot()
    axes.set_title(title, pad=20)
    axes.text(0, 1.02, y, transform=axes.transAxes, color=SOFT, fontsize=SMALL, va="bottom", label=VERTICAL)
    axes.set_xlabel(x)
    for name in log:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    return made, axes


def gallery(title: str, rows: Mapping[str, Any]) -> Figure:
    """Return a figure of small pictures: by name, `(r, k, h, w)` values in [0, 1], drawn as r rows of k pictures."""
    from matplotlib.figure import Figure

    mosaics = {name: _mosaic(np.clip(pictures, 0, 1)) for name, pictures in rows.items()}
    shapes = [mosaic.shape[:2] for mosaic in mosaics.values()]
    height = 0.5 + _GALLERY * sum(high / wide for high, wide in shapes) + 0.06 * len(shapes)
    made = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = made.subplots(len(shapes), height_ratios=[high / wide for high, wide in shapes], squeeze=False)[:, 0]
    panels[0].set_title(title, pad=8)
    for axes, (name, mosaic) in zip(panels, mosaics.items(), strict=True):
        axes.imshow(mosaic, interpolation="nearest")
        axes.set_axis_off()
        axes.text(1.02, 0.5, name, transform=axes.transAxes, color=INK, fontsize=SMALL, va="center")
    return made


def _mosaic(pictures: np.ndarray) -> np.ndarray:
    """Return `(r, k, h, w)` pictures side by side as red, green, blue and opacity, with see-through lines between."""
    rows, columns, high, wide = pictures.shape
    canvas = np.zeros((rows, high + 1, columns, wide + 1, 4))
    canvas[:, :high, :, :wide, :3] = pictures.transpose(0, 2, 1, 3)[..., None]
    canvas[:, :high, :, :wide, 3] = 1
    return canvas.reshape(rows * (high + 1), columns * (wide + 1), 4)[:-1, :-1]


def curve(axes: Axes, x: Any, y: Any, label: str = "", *, color: str = THEORY, dashed: bool = False) -> None:
    """Draw a prediction, `y` over `x`, as a line, named at its right end."""
    axes.plot(x, y, color=color, linewidth=1.8, linestyle=(0, (4, 2.5)) if dashed else "-", zorder=2)
    _name(axes, y, label, color)


def points(
    axes: Axes,
    measured: Mapping[str, Any],
    label: str = "",
    *,
    color: str = MEASURED,
    hollow: bool = False,
    aside: float = 0.0,
) -> None:
    """Draw measurements (`x`, `y` and half of the 95% `interval`) as dots, named at the last one.

    `aside` moves them to the right, in typographic points, where others stand at the same place.
    """
    from matplotlib.transforms import ScaledTranslation

    dots, caps, bars = axes.errorbar(
        measured["x"],
        measured["y"],
        yerr=np.asarray(measured["interval"], dtype=float),
        fmt="o",
        markersize=4.2,
        color=color,
        markerfacecolor="none" if hollow else color,
        elinewidth=1.3,
        capsize=2.2,
        zorder=3,
    ).lines
    moved = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for artist in (dots, *caps, *bars):
        artist.set_transform(moved)
    _name(axes, measured["y"], label, color)


def categories(axes: Axes, names: Iterable[str]) -> None:
    """Put names at 0, 1, 2... of the horizontal axis, with room on either side."""
    labels = list(names)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def mark(axes: Axes, x: float, label: str) -> None:
    """Mark a place on the horizontal axis, and say what it is."""
    axes.axvline(x, color=SOFT, linewidth=1, linestyle=":", zorder=1)
    axes.annotate(
        label,
        xy=(x, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=SOFT,
        fontsize=SMALL,
    )


def _name(axes: Axes, y: Any, label: str, color: str) -> None:
    """Write a name to the right of the axes, level with the last finite value."""
    values = np.asarray(y, dtype=float)
    if not label or not np.isfinite(values).any():
        return
    last = float(values[np.isfinite(values)][-1])
    axes.annotate(
        label,
        xy=(1, last),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        color=color,
        fontsize=SMALL,
        va="center",
        annotation_clip=False,
        label=LABEL,
    )
