"""Wires the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from normwise import __version__
from normwise.cli import audit, bench, demo, fold, recalibrate, rules, study

app = typer.Typer(
    name="normwise",
    help="Deploy, adapt and troubleshoot batch normalization in PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    if version:
        sys.stdout.write(f"normwise {__version__}\n")
        raise typer.Exit


app.command("audit")(audit.audit)
app.command("rules")(rules.rules)
app.command("rule")(rules.rule)
app.command("recalibrate")(recalibrate.recalibrate)
app.command("fold")(fold.fold)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.add_typer(study.app, name="study")
