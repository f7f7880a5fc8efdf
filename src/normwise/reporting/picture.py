"""From a figure to a picture: SVG, PNG, SVG inside a page, and words for those who do not see it."""

from __future__ import annotations

import io
import re
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from normwise.reporting import style
from normwise.reporting.labels import apart, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VARIABLES = {
    style.INK: "ink",
    style.SOFT: "soft",
    style.LINE: "line",
    **{light: name for name, (light, _) in style.PALETTE.items()},
}
_FEW = 300  # ends of a logarithmic axis, one over the other, below which powers of ten are too few ticks
_SHORT = 8  # and below which twos and fives are too few
_MANY, _NEAR = 8, 1.3  # measurements along a logarithmic axis that can all be named, and how far apart
_APART = 1.15  # font sizes between two labels


def svg(drawn: Figure) -> str:
    """Return a figure as a standalone SVG, the same each time."""
    return _saved(drawn, "svg", metadata={"Date": None}).decode("utf-8")


def png(drawn: Figure) -> bytes:
    """Return a figure as a PNG on white."""
    return _saved(drawn, "png", facecolor="white", metadata={"Software": None})


def _saved(drawn: Figure, kind: str, **options: Any) -> bytes:
    with style.look():
        _tick(drawn)
        _spread(drawn)
        file = io.BytesIO()
        options = {"transparent": True, **options} if kind == "svg" else options
        drawn.savefig(file, format=kind, **options)
    return file.getvalue()


def inline(picture: str, name: str, words: str) -> str:
    """Return a standalone SVG as part of a page: it takes the page's colours, and its ids are its own.

    `name` tells the pictures of a page apart; `words` say to those who do not see it what it shows.
    """
    body = picture[picture.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', lambda found: f"{found[1]}{name}-", body)
    body = re.sub(r' (?:width|height)="[\d.]+pt"', "", body, count=2)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def alt_text(drawn: Figure) -> str:
    """Return in words what a figure shows: its title, what is on its axes, and the names in it."""
    sentences: list[str] = []
    for axes in drawn.axes:
        title, x = axes.get_title("left"), axes.get_xlabel()
        words = {text.get_label(): text.get_text() for text in axes.texts}
        names = [text.get_text() for text in axes.texts if text.get_label() != style.VERTICAL]
        over = f"{words[style.VERTICAL]} over {x}" if x and style.VERTICAL in words else words.get(style.VERTICAL, x)
        sentences += [one for one in (title, over, ", ".join(names)) if one]
    return " ".join(". ".join(sentences).split()) + "."


def _tick(drawn: Figure) -> None:
    """Give logarithmic axes numbers all alike: where the data are, if they are few, else round ones."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    for axes in drawn.axes:
        for axis, (low, high), data in (
            (axes.xaxis, axes.get_xlim(), _measured(axes)),
            (axes.yaxis, axes.get_ylim(), []),
        ):
            if axis.get_scale() != "log":
                continue
            say = numbers(low, high)
            axis.set_major_formatter(lambda value, _place, say=say: say(value))
            axis.set_minor_locator(NullLocator())
            if data:
                axis.set_major_locator(FixedLocator(data))
            elif low > 0 and high / low < _FEW:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > _SHORT else (1, 1.5, 2, 3, 4, 5, 7)))


def _measured(axes: Axes) -> list[float]:
    """Return where measurements stand along a panel; nothing where they are too many, or too near, to be all named."""
    from matplotlib.container import ErrorbarContainer

    dots = [container.lines[0] for container in axes.containers if isinstance(container, ErrorbarContainer)]
    places = sorted({x for line in dots for x in np.asarray(line.get_xdata(), dtype=float).tolist()})
    near = any(high < _NEAR * low for low, high in pairwise(places))
    return [] if near or len(places) > _MANY else places


def _spread(drawn: Figure) -> None:
    """Move the names of each panel apart, as little as keeps them legible and beside the panel."""
    drawn.draw_without_rendering()
    points_a_pixel = 72 / drawn.dpi
    for axes in drawn.axes:
        names: list[Any] = [text for text in axes.texts if text.get_label() == style.LABEL]
        if not names:
            continue
        box = axes.get_window_extent()
        wanted = [axes.transData.transform((1, name.xy[1]))[1] for name in names]
        wanted = [min(max(place, box.y0), box.y1) for place in wanted]
        heights = [name.get_text().count("\n") + 1 for name in names]
        size = _APART * style.SMALL / points_a_pixel
        order = sorted(range(len(names)), key=lambda i: wanted[i])
        places = apart([wanted[i] for i in order], [size * heights[i] for i in order], box.y1)
        for i, place in zip(order, places, strict=True):
            level = axes.transData.transform((1, names[i].xy[1]))[1]
            names[i].set_position((5, (place - level) * points_a_pixel))
