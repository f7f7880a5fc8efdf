"""A small figure to try things on."""

from __future__ import annotations

from normwise.reporting import style


def drawn(labels: tuple[str, ...] = ("theory", "measured"), **options):
    with style.look():
        made, axes = style.figure("A title", "x", "y", **options)
        for label in labels:
            style.curve(axes, [1, 10], [1.0, 2.0], label)
    return made, axes


def names(axes):
    return [text for text in axes.texts if text.get_label() == "direct-label"]
