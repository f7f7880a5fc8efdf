"""The page's pictures, as inline SVG: coloured by the page's own variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

_WIDTH, _LEFT, _RIGHT = 720, 64, 44
_PANEL, _GAP, _TOP = 170, 46, 26
_SHIFT, _RATIO = 0.5, 2.0
_MOST_LABELS = 12
_LEAST = {"shift": 1.0, "log_ratio": math.log(3.0)}


def depth_map(layers: list[dict[str, Any]]) -> str:
    """Draw batch against running statistics through the depth of the net, for the data and the target; "" without any."""
    sources = [
        (prefix, label)
        for prefix, label in (("", "data"), ("target_", "target"))
        if any(layer.get(f"{prefix}shift_quantiles") for layer in layers)
    ]
    if not sources:
        return ""
    height = _TOP + 2 * _PANEL + _GAP + 96
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Shift of the data from the running statistics, '
        f'layer by layer, first layer left">'
    ]
    panels = (
        ("shift", "shift of the mean, in running standard deviations", (-_SHIFT, 0.0, _SHIFT), lambda v: f"{v:.2g}"),
        ("log_ratio", "variance of the data over the running one", (-math.log(_RATIO), 0.0, math.log(_RATIO)),
         lambda v: f"{math.exp(v):.3g}x"),
    )  # fmt: skip
    for number, (column, title, lines, tick) in enumerate(panels):
        top = _TOP + number * (_PANEL + _GAP)
        parts.append(_panel(layers, sources, column, title, lines, tick, top))
    parts.append(_names(layers, _TOP + 2 * _PANEL + _GAP))
    return "".join([*parts, "</svg>"])


def _across(index: int, count: int) -> float:
    return _LEFT + (index + 0.5) * (_WIDTH - _LEFT - _RIGHT) / max(count, 1)


def _panel(
    layers: list[dict[str, Any]],
    sources: list[tuple[str, str]],
    column: str,
    title: str,
    lines: tuple[float, float, float],
    tick: Callable[[float], str],
    top: float,
) -> str:
    values = [
        abs(v) for layer in layers for prefix, _ in sources for v in layer.get(f"{prefix}{column}_quantiles") or ()
    ]
    reach = max(_LEAST[column], 1.05 * min(max(values, default=1.0), 12.0))

    def up(value: float) -> float:
        return top + _PANEL / 2 * (1 - max(-1.0, min(1.0, value / reach)))

    parts = [f'<text class="title" x="{_LEFT}" y="{top - 9}">{title}</text>']
    for value in lines:
        style = "zero" if value == 0 else "limit"
        parts.append(
            f'<line class="{style}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>'
        )
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{up(value) + 4:.1f}">{tick(value)}</text>')
    for value in (-reach, reach):
        if up(0) - up(abs(lines[2])) < _PANEL / 2 - 14:
            parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{up(value) + 4:.1f}">{tick(value)}</text>')
    width = min(16.0, 0.7 * (_WIDTH - _LEFT - _RIGHT) / max(len(layers), 1)) / len(sources)
    for order, (prefix, label) in enumerate(sources):
        for index, layer in enumerate(layers):
            quantiles = layer.get(f"{prefix}{column}_quantiles")
            if not quantiles:
                continue
            x = _across(index, len(layers)) + (order - (len(sources) - 1) / 2) * width
            low, lower, middle, upper, high = quantiles
            far = max(abs(layer.get(f"{prefix}{column}") or 0.0), 0.0) > lines[2]
            told = f"{layer['name']} ({label}): median {tick(middle)}, 90% of channels {tick(low)} to {tick(high)}"
            parts.append(
                f'<g class="{label}{" far" if far else ""}"><title>{escape(told)}</title>'
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"/>'
                f'<rect x="{x - width / 2 + 0.5:.1f}" width="{max(width - 1, 1):.1f}" y="{up(upper):.1f}" '
                f'height="{max(up(lower) - up(upper), 1):.1f}"/>'
                f'<circle cx="{x:.1f}" cy="{up(middle):.1f}" r="{min(2.6, width / 2 + 0.6):.1f}"/></g>'
            )
    return "".join(parts)


def _names(layers: list[dict[str, Any]], top: float) -> str:
    every = -(-len(layers) // _MOST_LABELS)
    parts = []
    for index, layer in enumerate(layers):
        if index % every:
            continue
        x, name = _across(index, len(layers)), layer["name"] or "(model)"
        shown = name if len(name) <= 16 else f"..{name[-14:]}"
        parts.append(f'<text class="name" transform="translate({x:.1f},{top + 10}) rotate(50)">{escape(shown)}</text>')
    return "".join(parts)


def cause_bars(document: dict[str, Any]) -> str:
    """Draw each fix's before and after with the interval of what it recovers, and all together; "" without causes."""
    rows = [(f"{number}. {c['code']}", c) for number, c in enumerate(document["causes"], 1)]
    if not rows:
        return ""
    if document["together"] is not None and len(rows) > 1:
        rows.append(("all", document["together"]))
    better_up = document["metric"]["higher_is_better"]
    accuracy = document["metric"]["unit"] == "points"
    sign = 1 if better_up else -1
    ends = [
        e
        for _, r in rows
        for e in (r["before"], r["after"], r["before"] + sign * r["low"], r["before"] + sign * r["high"])
    ]
    low, high = (0.0, 1.0) if accuracy else (min(0.0, *ends), max(ends) * 1.05 or 1.0)
    height = 34 * len(rows) + 34

    def along(value: float) -> float:
        return 90 + (_WIDTH - 90 - 90) * (max(low, min(high, value)) - low) / ((high - low) or 1.0)

    def say(value: float) -> str:
        return f"{100 * value:.1f}%" if accuracy else f"{value:.3g}"

    metric = document["metric"]["name"]
    told = f"What each fix brings: {metric} before and after"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{told}">']
    for number, (label, row) in enumerate(rows):
        y = 22 + 34 * number
        start, end = along(row["before"]), along(row["after"])
        first, last = (along(row["before"] + sign * row[key]) for key in ("low", "high"))
        parts.append(
            f'<text class="label" x="0" y="{y + 4}">{escape(label)}</text>'
            f'<line class="way" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>'
            f'<line class="interval" x1="{first:.1f}" x2="{last:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="before" cx="{start:.1f}" cy="{y}" r="5"/><circle class="after" cx="{end:.1f}" cy="{y}" r="6"/>'
            f'<text class="value" x="{max(start, end, first, last) + 12:.1f}" y="{y + 4}">{say(row["after"])}</text>'
        )
        if number == 0:
            parts.append(
                f'<text class="value" x="{min(start, end) - 10:.1f}" y="{y + 4}" text-anchor="end">{say(row["before"])}</text>'
            )
    parts.append(
        f'<text class="tick left" x="90" y="{height - 4}">{metric}, before (ring) and after (dot); bar: 95% interval</text>'
    )
    return "".join([*parts, "</svg>"])
