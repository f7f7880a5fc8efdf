"""`normwise rules` and `normwise rule CODE`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from normwise.cli.output import write_text
from normwise.errors import one_of

_SECTIONS = (
    ("what", "What"), ("why", "Why"), ("measured", "How it is measured"), ("known_problems", "Known problems"), ("fix", "Fix"),
)  # fmt: skip


def rules(output_format: Annotated[str, typer.Option("--format", help="text or json")] = "text") -> None:
    """List every rule."""
    from normwise.audit.report import rule_documents

    documents = rule_documents()
    if output_format == "json":
        write_text(json.dumps(documents, indent=2), None)
        return
    if output_format != "text":
        raise one_of("format", output_format, ("text", "json"))
    table = Table("code", "name", "severity", "finds", box=None, header_style="bold")
    for document in documents:
        table.add_row(document["code"], document["name"], document["severity"], document["what"])
    Console(highlight=False).print(table)


def rule(code: Annotated[str, typer.Argument(help="a code, such as NW201, or a name")]) -> None:
    """Explain one rule: what, why, how it is measured, known problems, the fix."""
    from normwise.audit.rule import find_rule

    found = find_rule(code)
    console = Console(highlight=False, width=min(Console().width, 100))
    console.print(f"[bold]{found.code} {found.name}[/bold] ({found.severity.value})\n{found.title}")
    for attribute, heading in _SECTIONS:
        console.print(f"\n[bold]{heading}[/bold]")
        console.print(getattr(found, attribute), markup=False)
    if found.exact is not None:
        console.print("The fix is exact." if found.exact else "The fix changes outputs.")
