"""Where things go: results to stdout or a file, progress and words to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from normwise.errors import UsageError, one_of
from normwise.reporting import files, html, markdown, sarif, terminal
from normwise.reporting.document import to_json

FORMATS = ("text", "json", "sarif", "html", "markdown")


def log(message: str) -> None:
    """Say something on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)


@contextmanager
def progress(title: str) -> Generator[Callable[[str], None]]:
    """Show what is going on, on a terminal; quiet in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title)
        yield lambda word: bar.update(task, description=f"{title}: {word}", advance=1)


def check_format(chosen: str, output: Path | None, allowed: tuple[str, ...] = FORMATS) -> None:
    """Refuse an unknown format, and a page for the terminal."""
    if chosen not in allowed:
        raise one_of("format", chosen, allowed)
    if chosen == "html" and output is None:
        raise UsageError("format: html needs a file; add --output report.html")


def check_output(path: Path | None, suffix: str = "") -> None:
    """Refuse a file that surely cannot be written, or has another suffix: before the work, not after it."""
    if path is None:
        return
    if suffix and path.suffix != suffix:
        raise UsageError(f"output: expected a path that ends in {suffix}, got '{path}'; rename it")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"'{folder}' is no folder"
    elif suffix and folder != path.parent:
        reason = f"there is no folder '{path.parent}'"
    elif not os.access(folder, os.W_OK):
        reason = f"'{folder}' is read-only"
    else:
        return
    raise UsageError(f"output: cannot write '{path}' ({reason}); choose another path")


@contextmanager
def quiet_stdout() -> Generator[None]:
    """Send to stderr what a user's code prints: stdout is for results."""
    with redirect_stdout(sys.stderr):
        yield


def write_report(document: dict[str, Any], chosen: str, output: Path | None, rules: list[dict[str, Any]]) -> None:
    """Write a report document in a format to a file, or to stdout."""
    if chosen == "text" and output is None:
        terminal.render(document, Console(highlight=False))
        return
    if chosen == "text":
        page = io.StringIO()
        terminal.render(document, Console(width=120, file=page))
        text = page.getvalue()
    elif chosen == "json":
        text = to_json(document)
    elif chosen == "sarif":
        text = to_json(sarif.render(document, rules))
    else:
        text = html.render(document) if chosen == "html" else markdown.render(document)
    write_text(text, output)


def write_text(text: str, output: Path | None) -> None:
    """Write to a file, all or nothing, or to stdout."""
    if output is None:
        sys.stdout.write(text.rstrip("\n") + "\n")
    else:
        files.write_atomically(output, text)
        log(f"written: {output}")
