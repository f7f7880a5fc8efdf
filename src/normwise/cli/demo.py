"""`normwise demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from normwise.cli.output import check_format, check_output, log, progress, write_text
from normwise.reporting import files, html, terminal
from normwise.reporting.document import to_json


def demo(
    output_format: Annotated[str, typer.Option("--format", help="text or json")] = "text",
    output: Annotated[Path | None, typer.Option(help="folder for the HTML reports")] = None,
    seed: Annotated[int, typer.Option(help="another seed gives the same story")] = 0,
) -> None:
    """Train a small ResNet on real digits, let happen what happens to people, find it, mend it."""
    from normwise.studies.demo import run_demo

    check_format(output_format, None, ("text", "json"))
    folder = output or Path("normwise-demo")
    check_output(folder / "demo.json")
    with progress("demo") as tell:
        situations = run_demo(seed=seed, tell=tell)
    document = demo_document(situations, seed)
    for number, situation in enumerate(document["situations"], 1):
        files.write_atomically(
            folder / f"{number}-{situation['name'].replace(' ', '-')}.html", html.render(situation["report"])
        )
    if output_format == "json":
        files.write_atomically(folder / "demo.json", to_json(document))
        write_text(to_json(document), None)
    else:
        console = Console(highlight=False)
        for number, situation in enumerate(document["situations"], 1):
            console.rule(f"[bold]{number}. {situation['name']}")
            console.print(situation["story"], markup=False)
            terminal.render(situation["report"], console)
            before, after = situation["accuracy"]["before"], situation["accuracy"]["after"]
            for line in situation["applied"]:
                console.print(f"applied: {line}", markup=False)
            console.print(f"[bold]test accuracy {before:.1%} -> {after:.1%}[/bold]\n")
    log(f"reports: {folder}")


def demo_document(situations: list[Any], seed: int) -> dict[str, Any]:
    """Return everything the demo found, plain: by situation, and all causes and findings together."""
    told = []
    for situation in situations:
        report = situation.report.to_dict()
        report["model"]["name"] = f"DigitNet, {situation.name}"
        accuracy = {"before": situation.before, "after": situation.after}
        told.append(
            {
                "name": situation.name,
                "story": situation.story,
                "accuracy": accuracy,
                "applied": situation.applied,
                "report": report,
            }
        )
    together = {
        part: [{"situation": one["name"], **row} for one in told for row in one["report"][part]]
        for part in ("causes", "findings")
    }
    return {"schema": "normwise-demo/1", "seed": seed, "situations": told, **together}
