"""`normwise study`: list the studies, run them, write their book."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from normwise.cli.interrupt import interruptible
from normwise.cli.output import log
from normwise.errors import UsageError

if TYPE_CHECKING:
    from normwise.studies.run import Result

app = typer.Typer(
    help=(
        "Hold the claims about batch normalization against theory and measurement. A prediction agrees within three "
        "standard errors (Student's factor for few replicates) and a stated finite-size term. A claim holds where it "
        "agrees with the measurement; it holds only under idealisation where it agrees with a measurement under its own "
        "assumptions alone; it is undecided where the measurement cannot tell it from another theory; else it does not "
        "hold. Where the claim gives no number, only theory is judged; a number that is exact by construction is an "
        "identity, and no evidence for the claim."
    ),
    no_args_is_help=True,
)


@app.command("list")
def list_studies() -> None:
    """List every study, in the book's order."""
    from normwise.studies.study import all_studies

    table = Table("study", "what it is about", box=None, header_style="bold")
    for study in all_studies():
        table.add_row(study.name, study.title)
    Console(highlight=False).print(table)


@app.command("run")
def run(
    name: Annotated[str | None, typer.Argument(help="a study's name; or --all")] = None,
    every: Annotated[bool, typer.Option("--all", help="run every study")] = False,
    output: Annotated[Path, typer.Option(help="folder for results, figures and the book")] = Path("normwise-studies"),
    size: Annotated[
        str, typer.Option(help="tiny (seconds), quick (half a minute a study) or full (minutes)")
    ] = "quick",
    seed: Annotated[int, typer.Option(help="of all random numbers, 0 or more")] = 0,
) -> None:
    """Run one study or all, and write the book of what the folder holds.

    What is finished in the folder is kept, so an interrupted run goes on where it was. Exit code 0: theory agrees
    with every measurement; 1: somewhere it does not, or the measurement is too rough to tell; 2: bad usage; 130:
    interrupted.
    A study that lacks optional data is left out, and the book says what to install; if none is left, that is an error.
    """
    with interruptible("finished studies are kept: run the same command to go on"):
        sound = _run(name, every, output, size, seed)
    if not sound:
        raise typer.Exit(1)


def _run(name: str | None, every: bool, output: Path, size: str, seed: int) -> bool:
    from normwise.reporting import style
    from normwise.studies.book import write_book
    from normwise.studies.estimate import DOUBT
    from normwise.studies.run import Missing, Result, run_studies
    from normwise.studies.study import all_studies, find_study

    if (name is None) != every:
        raise UsageError("study: expected the name of one study or --all, got " + ("both" if every else "neither"))
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, got {seed}")
    known = all_studies()
    chosen = known if name is None else [find_study(name)]
    with style.look():
        pass  # refuse before the work, not after it, where figures cannot be drawn
    with _bar(len(chosen)) as progress:
        outcomes = run_studies(chosen, output, size=size, seed=seed, progress=progress, tell=log)
    missing = [outcome for outcome in outcomes if isinstance(outcome, Missing)]
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    if not results:
        raise UsageError(missing[0].reason)
    page = write_book(output, known, missing)
    for result in results:
        _print(result)
    log(f"book: {page}")
    judged = [comparison for result in results for comparison in result.comparisons]
    if failed := [comparison for comparison in judged if not comparison.sound]:
        log(
            f"{len(failed)} of {len(judged)} quantities not borne out; one right prediction in {1 / DOUBT:.0f} fails by "
            "chance: another --seed tells"
        )
    return not failed


@contextmanager
def _bar(count: int) -> Generator[Callable[[str, float], None]]:
    """Show how much is done, on a terminal; quiet in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _name, _share: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(name: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"{len(tasks) + 1} of {count}: {name}", total=1.0)  # type: ignore[assignment]
            bar.update(tasks[name], completed=share)  # type: ignore[arg-type]

        yield show


def _print(result: Result) -> None:
    from normwise.studies.table import rows

    console = Console(highlight=False)
    console.print(f"\n[bold]{result.study.name}[/bold]: {result.study.title}")
    table = Table("quantity", "claim", "theory", "measured", "off", "verdict", box=None, header_style="bold")
    for row in rows(result.comparisons):
        doubt = f" ({row.doubt})" if row.doubt else ""
        table.add_row(row.quantity, row.claim, row.theory + doubt, row.measured, row.off, row.verdict)
    console.print(table, markup=False)
    console.print(f"The verdict: {result.study.outcome}", markup=False)
    console.print(f"What to do: {result.study.advice}", markup=False)
