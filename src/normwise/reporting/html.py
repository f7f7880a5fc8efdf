"""The report as one self-contained page: no network, light and dark, phone and desk."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from normwise.reporting.charts import NARROW, WIDE, cause_bars, depth_map
from normwise.reporting.document import amount, answer, capital, gain, grouped, subject

_CELL, _COLUMNS = 24, 6  # characters of a value and number of columns that fit a table


def render(document: dict[str, Any]) -> str:
    """Return a report document as an HTML page."""
    environment = page_environment()
    environment.filters["number"] = _number
    environment.filters["capital"] = capital
    environment.filters["table"] = _table
    sizes = {"wide": WIDE, "narrow": NARROW}
    return environment.get_template("report.html").render(
        document=document,
        answer=answer(document),
        subject=subject(document),
        groups=grouped(document),
        bars={name: Markup(cause_bars(document, width=width)) for name, width in sizes.items()},
        depth={name: Markup(depth_map(document["layers"], width=width)) for name, width in sizes.items()},
        amount=lambda value: amount(document, value),
        gain=lambda row: gain(document, row),
    )


def page_environment() -> Environment:
    """Return where the pages' templates are: what is put into them stays text."""
    return Environment(
        loader=PackageLoader("normwise.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_number(item) for item in value)
    return "-" if value is None else str(value)


def _table(findings: list[dict[str, Any]]) -> list[str] | None:
    """Return the columns of findings whose evidence is one plain table, or None where each needs a place of its own."""
    columns = list(findings[0]["evidence"])
    plain = all(
        list(finding["evidence"]) == columns
        and not any(
            isinstance(value, (list, tuple, dict)) or len(str(value)) > _CELL for value in finding["evidence"].values()
        )
        for finding in findings
    )
    return columns if plain and 1 < len(findings) and len(columns) <= _COLUMNS else None
