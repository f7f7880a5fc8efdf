"""The report in a terminal: the answer, the causes, the findings."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from normwise.reporting.document import amount, answer, gain, grouped, subject

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "clean": "green"}
_BAR = 20


def render(document: dict[str, Any], console: Console) -> None:
    """Print a report document."""
    console.print(escape(subject(document)), style="dim")
    told = answer(document)
    text = f"[bold]{escape(told['headline'])}[/bold]\n{escape(told['detail'])}"
    if told["command"]:
        text += f"\n\n[bold]>[/bold] {escape(told['command'])}"
    console.print(Panel(text, border_style=_STYLES[told["level"]], expand=False))
    if document["causes"]:
        console.print(_causes(document))
    if document["findings"]:
        console.print(_findings(document))
    for note in document["notes"]:
        console.print(f"note: {escape(note)}", style="dim")


def _causes(document: dict[str, Any]) -> Table:
    metric = document["metric"]
    title = f"causes, by {metric['name']} on {metric['samples']} held-back samples, now {amount(document, document['baseline'])}"
    table = Table("", "cause", "recovers [95% interval]", "", "fix", title=title, title_justify="left", box=None)
    most = max((cause["high"] or 0.0 for cause in document["causes"]), default=0.0) or 1.0
    for number, cause in enumerate(document["causes"], 1):
        filled = round(_BAR * max(cause["recovered"] or 0.0, 0.0) / most)
        name = f"{'/'.join(cause['codes'])} {cause['title']}"
        fewer = len(cause["minimal_layers"]) < len(cause["layers"])
        where = f" ({', '.join(cause['minimal_layers'][:3])} alone do it)" if fewer else ""
        table.add_row(
            str(number), escape(name + where), gain(document, cause), "█" * filled, escape(cause["description"])
        )
    together = document["together"]
    if together is not None and len(document["causes"]) > 1:
        table.add_row("", "all together", gain(document, together), "", f"-> {amount(document, together['after'])}")
    return table


def _findings(document: dict[str, Any]) -> Table:
    table = Table("", "rule", "layers", "finding", title="findings", title_justify="left", box=None)
    for row in grouped(document):
        severity = f"[{_STYLES[row['severity']]}]{row['severity']}[/]"
        table.add_row(severity, f"{row['code']} {row['name']}", escape(row["where"]), escape(row["message"]))
    return table
