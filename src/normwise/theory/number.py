"""What the formulas take and give: a float, or an array that broadcasts."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Number = Any  # a float or an array: floats give floats, arrays broadcast, and a checker cannot say which
