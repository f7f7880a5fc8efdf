"""Wires the commands; turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from normwise import __version__
from normwise.cli import audit, bench, demo, fold, recalibrate, rules, study
from normwise.errors import NormwiseError

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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit code 0 clean, 1 findings, 2 bad usage or input."""
    try:
        code = app(arguments, standalone_mode=False)
    except NormwiseError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except click.exceptions.Abort:
        sys.exit(130)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    sys.stderr.write(f"normwise: error: {' '.join(message.split())}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
