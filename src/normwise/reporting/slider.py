"""A closed form with a parameter, redrawn in the page.

Every position's curves are computed here, and the page's script only chooses among them: theory has one source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from normwise.errors import NormwiseError
from normwise.reporting.labels import apart, numbers
from normwise.reporting.style import INK, PALETTE

Curve = Callable[[np.ndarray, float], Any]
_LONGEST = 12  # characters of a name beside the picture
_STEPS = 1000  # units across and up a panel, in which curves are written
_TICKS = 5
_SIZES = {"wide": (720, 300, 64, 150), "narrow": (350, 260, 48, 88)}  # width, height, left and right of the panel
_TOP, _BOTTOM, _NAME = 26, 40, 15


@dataclass(frozen=True)
class Slider:
    """Curves over `x` that depend on a parameter.

    Raises `NormwiseError` for a curve's label that has no room beside the picture on a phone.

    Arguments:
        parameter: what is moved, as the page says it
        positions: its values, in order
        x: where the curves are computed
        curves: by label, a function of `x` and the parameter's value
        x_label, y_label: what is on the axes
        colors: by label, a name of the style's palette, or "ink"; blue where none is given
        dashed: labels of curves that are claims
        log: whether the vertical axis is logarithmic
        start: the position shown first
        told: what the page says beside the slider at a value, such as "at depth 32: 36.2"
        points: measured `x`, `y` and half of the 95% `interval`, which do not move

    """

    parameter: str
    positions: Sequence[float]
    x: Any
    curves: Mapping[str, Curve]
    x_label: str
    y_label: str
    colors: Mapping[str, str] = field(default_factory=dict)
    dashed: tuple[str, ...] = ()
    log: bool = False
    start: int = 0
    told: Callable[[float], str] = lambda value: f"{value:g}"
    points: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        """Refuse labels that are too long."""
        long = [label for label in self.curves if len(label) > _LONGEST]
        if long:
            raise NormwiseError(f"curves: expected labels of at most {_LONGEST} characters, got {long}; shorten them")

    def table(self) -> np.ndarray:
        """Return every curve at every position, `(positions, curves, x)`."""
        x = np.asarray(self.x, dtype=float)
        drawn = [[np.broadcast_to(curve(x, p), x.shape) for curve in self.curves.values()] for p in self.positions]
        return np.asarray(drawn, dtype=float)


def document(slider: Slider) -> dict[str, Any]:
    """Return what the page needs: the drawings, and for each position paths, places of names and words."""
    table, x = slider.table(), np.asarray(slider.x, dtype=float)
    low, high = _reach(slider, table)
    across = (x - x[0]) / (x[-1] - x[0])
    up = (_scaled(slider, table) - low) / (high - low)
    frames = [
        {
            "paths": [_path(across, curve) for curve in curves],
            "names": {size: _places(curves[:, -1], _SIZES[size][1] - _TOP - _BOTTOM) for size in _SIZES},
            "told": slider.told(position),
        }
        for position, curves in zip(slider.positions, up, strict=True)
    ]
    pictures = {size: _picture(slider, frames[slider.start], low, high, size) for size in _SIZES}
    return {
        "parameter": slider.parameter,
        "start": slider.start,
        "last": len(frames) - 1,
        "told": frames[slider.start]["told"],
        "frames": frames,
        "pictures": pictures,
    }


def _scaled(slider: Slider, values: Any) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)
    return np.log10(np.maximum(numbers, 1e-300)) if slider.log else numbers


def _reach(slider: Slider, table: np.ndarray) -> tuple[float, float]:
    """Return the ends of the vertical axis, which hold every position: so a curve moves, and the axis does not."""
    values = _scaled(slider, table)
    low, high = float(values.min()), float(values.max())
    if slider.points is not None:
        y, half = (np.asarray(slider.points[part], dtype=float) for part in ("y", "interval"))
        ends = _scaled(slider, [y, y - half, y + half])
        low, high = min(low, float(ends.min())), max(high, float(ends.max()))
    if slider.log:
        return math.floor(low), math.ceil(high)
    margin = 0.05 * (high - low) or 1.0
    return (0.0 if 0 <= low <= 0.3 * high else low - margin), high + margin


def _path(across: np.ndarray, up: np.ndarray) -> str:
    """Return a curve as an SVG path in thousandths of the panel."""
    places = zip(np.rint(_STEPS * across), np.rint(_STEPS * (1 - np.clip(up, -1, 2))), strict=True)
    return "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in places)


def _places(ends: np.ndarray, height: float) -> list[float]:
    """Return how far down the panel, in pixels, each curve's name stands."""
    order = np.argsort(ends)
    wanted = [height * min(max(float(ends[i]), 0.0), 1.0) for i in order]
    places = [0.0] * len(ends)
    for i, place in zip(order, apart(wanted, [float(_NAME)] * len(ends), height), strict=True):
        places[i] = round(height - place, 1)
    return places


def _picture(slider: Slider, frame: dict[str, Any], low: float, high: float, size: str) -> str:
    width, height, left, margin = _SIZES[size]
    inner, tall = width - left - margin, height - _TOP - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{slider.y_label} over {slider.x_label}")}">',
        f'<text class="axis" x="0" y="14">{escape(slider.y_label)}</text>',
        f'<text class="axis" x="{left + inner / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(slider.x_label)}</text>',
    ]
    for value, label in _ticks(low, high, log=slider.log):
        y = _TOP + tall * (1 - (value - low) / (high - low))
        parts.append(f'<line class="grid" x1="{left}" x2="{left + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}">{label}</text>')
    first, last = float(slider.x[0]), float(slider.x[-1])
    for value, label in _ticks(first, last, log=False):
        place = left + inner * (value - first) / (last - first)
        parts.append(f'<text class="axis" x="{place:.1f}" y="{height - 23}" text-anchor="middle">{label}</text>')
    if slider.points is not None:
        parts += _dots(slider, slider.points, low, high, (left, inner, tall))
    parts.append(
        f'<svg x="{left}" y="{_TOP}" width="{inner}" height="{tall}" viewBox="0 0 {_STEPS} {_STEPS}" preserveAspectRatio="none">'
    )
    for label, path in zip(slider.curves, frame["paths"], strict=True):
        dashed = ' stroke-dasharray="6 4"' if label in slider.dashed else ""
        parts.append(f'<path class="curve" style="stroke: {_color(slider, label)}"{dashed} d="{path}"/>')
    parts.append("</svg>")
    for label, place in zip(slider.curves, frame["names"][size], strict=True):
        parts.append(
            f'<text class="name" style="fill: {_color(slider, label)}" x="{left + inner + 6}" y="{place:.1f}" '
            f'dy="{_TOP + 4}">{escape(label)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _dots(
    slider: Slider, points: Mapping[str, Sequence[float]], low: float, high: float, panel: tuple[float, float, float]
) -> list[str]:
    left, inner, tall = panel
    first, last = float(slider.x[0]), float(slider.x[-1])

    def down(value: float) -> float:
        return _TOP + tall * (1 - (float(_scaled(slider, value)) - low) / (high - low))

    parts = []
    for x, y, half in zip(*(points[part] for part in ("x", "y", "interval")), strict=True):
        place = left + inner * (x - first) / (last - first)
        ends = (down(y - half), down(y + half))
        parts.append(
            f'<line class="interval" x1="{place:.1f}" x2="{place:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>'
            f'<circle class="dot" cx="{place:.1f}" cy="{down(y):.1f}" r="3"/>'
        )
    return parts


def _ticks(low: float, high: float, *, log: bool) -> list[tuple[float, str]]:
    """Return round values inside an axis, and how they are said."""
    if log:
        step = max(1, math.ceil((high - low) / _TICKS))
        powers, say = range(math.ceil(low), math.floor(high) + 1, step), numbers(10.0**low, 10.0**high)
        return [(float(power), say(10.0**power)) for power in powers]
    rough = (high - low) / _TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = unit * next(nice for nice in (1, 2, 5, 10) if nice * unit >= rough)
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:g}") for number in count]


def _color(slider: Slider, label: str) -> str:
    name = slider.colors.get(label, "blue")
    return f"var(--{name})" if name in PALETTE or name == "ink" else INK
