"""The report as one self-contained page: no network, light and dark, phone and desk."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from normwise.reporting.charts import cause_bars, depth_map
from normwise.reporting.document import amount, answer, gain, grouped, subject


def render(document: dict[str, Any]) -> str:
    """Return a report document as an HTML page."""
    environment = Environment(
        loader=PackageLoader("normwise.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.get_template("report.html").render(
        document=document,
        answer=answer(document),
        subject=subject(document),
        groups=grouped(document),
        bars=Markup(cause_bars(document)),
        depth=Markup(depth_map(document["layers"])),
        amount=lambda value: amount(document, value),
        gain=lambda row: gain(document, row),
    )


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_number(item) for item in value)
    return "-" if value is None else str(value)
