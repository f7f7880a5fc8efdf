"""The page's pictures, as inline SVG: coloured by the page's own variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

WIDE, NARROW = 720, 350
_LEFT, _RIGHT = 64, 16
_PANEL, _GAP, _TOP, _NAMES = 170, 46, 26, 116
_APART = 13  # pixels two tick labels need
_SHIFT, _RATIO = 0.5, 2.0
_SLOT = 46  # pixels a layer's name needs
_LONGEST = 18
_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
_ROW = 34


@dataclass(frozen=True)
class _Panel:
    """One panel of the depth map: a column of the layers, its threshold, and how its values are said."""

    column: str
    title: str
    limit: float
    say: Callable[[float], str]
    reach: Callable[[float], float]


_PANELS = (
    _Panel(
        "shift",
        "mean shift, in running standard deviations",
        _SHIFT,
        lambda v: f"{v:.3g}",
        lambda most: next((nice for nice in _NICE if nice >= most), _NICE[-1]),
    ),
    _Panel(
        "log_ratio",
        "variance of the data over the running one",
        math.log(_RATIO),
        lambda v: f"{math.exp(v):.3g}x",
        lambda most: math.log(2) * min(max(math.ceil(most / math.log(2)), 2), 12),
    ),
)


def depth_map(layers: list[dict[str, Any]], *, width: int = WIDE) -> str:
    """Draw batch against running statistics through the depth of the net, for the data and the target; "" without any."""
    sources = [
        (prefix, label)
        for prefix, label in (("", "data"), ("target_", "target"))
        if any(_numbers(layer.get(f"{prefix}shift_quantiles")) for layer in layers)
    ]
    if not sources:
        return ""
    height = _TOP + 2 * _PANEL + _GAP + _NAMES
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(_told(layers, sources))}">']
    parts += [
        _panel(layers, sources, panel, _TOP + number * (_PANEL + _GAP), width) for number, panel in enumerate(_PANELS)
    ]
    parts.append(_names(layers, _TOP + 2 * _PANEL + _GAP, width))
    return "".join([*parts, "</svg>"])


def _numbers(values: Any) -> list[float] | None:
    """Return quantiles that are all there, or None."""
    return None if not values or any(value is None or not math.isfinite(value) for value in values) else list(values)


def _told(layers: list[dict[str, Any]], sources: list[tuple[str, str]]) -> str:
    text = "Shift of the data from the running statistics, layer by layer, first layer left."
    for prefix, label in sources:
        known = [layer for layer in layers if _numbers([layer.get(f"{prefix}shift")])]
        if known:
            worst = max(known, key=lambda layer: layer[f"{prefix}shift"])
            text += f" Largest for the {label}: {worst[f'{prefix}shift']:.2g} sd at {worst['name'] or 'the model'}."
    return text


def _across(index: int, count: int, width: int) -> float:
    return _LEFT + (index + 0.5) * (width - _LEFT - _RIGHT) / max(count, 1)


def _panel(layers: list[dict[str, Any]], sources: list[tuple[str, str]], panel: _Panel, top: float, width: int) -> str:
    drawn = [
        (index, order, prefix, label, numbers)
        for order, (prefix, label) in enumerate(sources)
        for index, layer in enumerate(layers)
        if (numbers := _numbers(layer.get(f"{prefix}{panel.column}_quantiles")))
    ]
    reach = panel.reach(max((abs(value) for *_, numbers in drawn for value in numbers), default=0.0))

    def up(value: float) -> float:
        return top + _PANEL / 2 * (1 - max(-1.0, min(1.0, value / reach)))

    parts = [f'<text class="title" x="0" y="{top - 9}">{panel.title}</text>']
    taken: list[float] = []
    for value in (0.0, reach, -reach, panel.limit, -panel.limit):
        y = up(value)
        if abs(value) != reach:
            style = "limit" if value else "zero"
            parts.append(f'<line class="{style}" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if all(abs(y - other) >= _APART for other in taken):
            taken.append(y)
            parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}">{panel.say(value)}</text>')
    wide = min(16.0, 0.7 * (width - _LEFT - _RIGHT) / len(layers)) / len(sources)
    for index, order, prefix, label, (low, lower, middle, upper, high) in drawn:
        layer = layers[index]
        x = _across(index, len(layers), width) + (order - (len(sources) - 1) / 2) * wide
        far = abs(layer.get(f"{prefix}{panel.column}") or 0.0) > panel.limit
        told = (
            f"{layer['name'] or '(model)'} ({label}): median {panel.say(middle)}, "
            f"90% of channels {panel.say(low)} to {panel.say(high)}"
        )
        parts.append(
            f'<g class="{label}{" far" if far else ""}"><title>{escape(told)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"/>'
            f'<rect x="{x - wide / 2 + 0.5:.1f}" width="{max(wide - 1, 0.8):.1f}" y="{up(upper):.1f}" '
            f'height="{max(up(lower) - up(upper), 1):.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{up(middle):.1f}" r="{min(2.6, wide / 2 + 0.4):.1f}"/></g>'
        )
    return "".join(parts)


def _names(layers: list[dict[str, Any]], top: float, width: int) -> str:
    every = -(-len(layers) * _SLOT // (width - _LEFT - _RIGHT)) if layers else 1
    parts = []
    for index, layer in enumerate(layers):
        if index % every:
            continue
        x, name = _across(index, len(layers), width), layer["name"] or "(model)"
        shown = name if len(name) <= _LONGEST else f"{name[:9]}…{name[-8:]}"
        parts.append(
            f'<text class="name" transform="translate({x + 4:.1f},{top + 12}) rotate(-62)">'
            f"<title>{escape(name)}</title>{escape(shown)}</text>"
        )
    return "".join(parts)


def cause_bars(document: dict[str, Any], *, width: int = WIDE) -> str:
    """Draw each fix's before and after with the interval of what it recovers, and all together; "" without causes."""
    rows = [(f"{number}. {cause['code']}", cause) for number, cause in enumerate(document["causes"], 1)]
    if document["together"] is not None and len(rows) > 1:
        rows.append(("all", document["together"]))
    rows = [(label, row) for label, row in rows if _numbers([row[k] for k in ("before", "after", "low", "high")])]
    if not rows:
        return ""
    metric = document["metric"]
    accuracy = metric["unit"] == "points"
    sign = 1 if metric["higher_is_better"] else -1
    ends = [end for _, row in rows for end in _ends(row, sign)]
    low, high = min(ends), max(ends)
    if accuracy:  # whole tenths around what happens, of 0 to 1
        low, high = max(0.0, math.floor(10 * low - 0.5) / 10), min(1.0, math.ceil(10 * high + 0.5) / 10)
    left, right = 96, 70
    height = _ROW * len(rows) + _ROW // 3

    def along(value: float) -> float:
        return left + (width - left - right) * (max(low, min(high, value)) - low) / ((high - low) or 1.0)

    def say(value: float) -> str:
        return f"{100 * value:.1f}%" if accuracy else f"{value:.3g}"

    told = "; ".join(f"{label}: {say(row['before'])} to {say(row['after'])}" for label, row in rows)
    summary = escape(f"What each fix brings, {metric['name']} before and after. {told}")
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{summary}">']
    for number, (label, row) in enumerate(rows):
        y = 22 + _ROW * number
        start, end, first, last = (along(value) for value in _ends(row, sign))
        parts.append(
            f'<text class="label" x="0" y="{y + 4}">{escape(label)}</text>'
            f'<line class="interval" x1="{first:.1f}" x2="{last:.1f}" y1="{y}" y2="{y}"/>'
            f'<line class="way" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="before" cx="{start:.1f}" cy="{y}" r="5"/><circle class="after" cx="{end:.1f}" cy="{y}" r="6"/>'
            f'<text class="value" x="{max(start, end, first, last) + 10:.1f}" y="{y + 4}">→ {say(row["after"])}</text>'
        )
    return "".join([*parts, "</svg>"])


def _ends(row: dict[str, Any], sign: int) -> tuple[float, float, float, float]:
    """Return where a row starts and ends, and the ends of its interval, in the metric's own values."""
    before = row["before"]
    return before, row["after"], before + sign * row["low"], before + sign * row["high"]
