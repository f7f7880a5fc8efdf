"""Numbers along an axis and names beside it, for matplotlib's pictures and for those drawn in the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_PLAIN = (1e-3, 1e5)  # what is written with all its digits
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def numbers(low: float, high: float) -> Callable[[float], str]:
    """Return how the numbers of a logarithmic axis are said, all alike: 0.01, 1, 1000; or 10⁻⁴, 1, 2×10⁶.

    >>> print(numbers(0.01, 1000)(0.01), numbers(1, 1e7)(2000), numbers(1e-4, 1)(1e-4))
    0.01 2×10³ 10⁻⁴
    """
    return "{:g}".format if _PLAIN[0] <= low and high <= _PLAIN[1] else _power


def _power(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    times, ten = value / 10**power, f"10{str(power).translate(_RAISED)}"
    if abs(times - 1) < 1e-6:
        return "1" if power == 0 else ten
    return f"{times:g}" if power == 0 else f"{times:g}×{ten}"


def apart(wanted: Sequence[float], sizes: Sequence[float], top: float) -> list[float]:
    """Return ascending places near the `wanted` ascending ones, at which things of these sizes do not overlap.

    The highest is at most at `top`; where they are crowded, they are pushed up first, then down.
    """
    places = list(wanted)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + (sizes[i] + sizes[i - 1]) / 2)
    for i in reversed(range(len(places))):
        over = top if i == len(places) - 1 else places[i + 1] - (sizes[i] + sizes[i + 1]) / 2
        places[i] = min(places[i], over)
    return places
