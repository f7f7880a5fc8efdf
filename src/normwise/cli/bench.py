"""`normwise bench`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from normwise.cli.output import write_text
from normwise.errors import UsageError
from normwise.reporting import bench as words
from normwise.reporting.document import to_json

_FULL, _QUICK = (7.0, 5), (0.8, 3)  # seconds a case, and the fewest rounds
_WIDTH = 120  # of the table where there is no terminal


def bench(
    family: Annotated[str | None, typer.Argument(help="batch, graph, masked, ...; all if left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON to stdout, and nothing else")] = False,
    threads: Annotated[int, typer.Option(help="1 is measured in CPU time, more in wall time")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="fewer rounds: under a minute for everything")] = False,
) -> None:
    """Time every layer against torch's own, the usual way to do the same, and installed peers, beside the memory floor."""
    from normwise.studies.bench.cases import cases_of
    from normwise.studies.bench.timing import compare, fix_allocator

    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    cases, (seconds, least) = cases_of(family), _QUICK if quick else _FULL
    with _bar(len(cases)) as tell:
        document = compare(cases, threads=threads, seconds=seconds, least=least, allocator=fix_allocator(), tell=tell)
    if as_json:
        write_text(to_json(document), None)
        return
    console = Console(highlight=False)
    _print(document, console if console.is_terminal else Console(highlight=False, width=_WIDTH))


@contextmanager
def _bar(count: int) -> Generator[Callable[[int, str], None]]:
    """Show which case is being measured, on a terminal; quiet in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _number, _title: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda number, title: bar.update(task, completed=number, description=title)


def _print(document: dict[str, Any], console: Console) -> None:
    console.print(words.conditions(document), style="dim", markup=False)
    table = Table(*words.HEADINGS, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for case in document["cases"]:
        table.add_row(f"[bold]{case['family']} {case['title']}[/bold]")
        for name, *cells in words.rows(case):
            table.add_row(f"  {name}", *map(escape, cells))
    console.print(table)
    for line in (words.HOW_TO_READ, *words.absent(document)):
        console.print(line, style="dim", markup=False)
