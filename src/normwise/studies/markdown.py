"""The book as a page of Markdown, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from normwise.reporting import picture, style
from normwise.studies.run import Result, read_folder, read_manifest
from normwise.studies.study import Study
from normwise.studies.table import READING, borne_out, command, image, reasons, rows, tally

_COLUMNS = ("quantity", "claim", "theory", "rival", "measured", "off", "finite size", "verdict")


def studies_page(folder: Path, studies: Sequence[Study], images: str) -> str:
    """Return the finished studies of a folder as a Markdown page; `images` is where its pictures lie, seen from it."""
    results, manifest = read_folder(folder, studies), read_manifest(folder)
    lines = [
        "# Studies",
        "",
        "Written by `python docs/generate.py DIR`, never by hand, from the results of",
        f"`normwise study run --all --size {manifest['size']} --seed {manifest['seed']} --output DIR`. "
        "[The same as a page with sliders](book.html).",
    ]
    for paragraph in READING:
        lines += ["", paragraph]
    lines += ["", "| study | what became of the claim |", "|---|---|"]
    for result in results:
        study = result.study
        lines.append(_cells(f"[{study.title}](#{_anchor(study.title)})", study.outcome))
    for part, of_part in groupby(results, key=lambda result: result.study.heading.value[0]):
        lines += ["", f"## {part}"]
        for result in of_part:
            lines += _section(result, images, manifest)
    return "\n".join(lines) + "\n"


def _section(result: Result, images: str, manifest: Mapping[str, Any]) -> list[str]:
    study = result.study
    lines = ["", f"### {study.title}", "", f"*{study.heading.value[1]}*", ""]
    with style.look():
        figures = study.figures(result.measurement)
        lines += [f"![{picture.alt_text(made)}]({images}/{image(study.name, name)})" for name, made in figures.items()]
    lines += ["", f"**The claim.** {study.claim}", "", f"**Theory.** {study.theory}", ""]
    lines += [f"**Measured on.** {study.setting}", ""]
    lines += [_cells(*_COLUMNS), "|" + "---|" * len(_COLUMNS)]
    for row in rows(result.comparisons):
        measured = row.measured + (f", idealised {row.idealised}" if row.idealised else "")
        verdict = row.verdict + (f" ({row.doubt})" if row.doubt else "")
        lines.append(
            _cells(row.quantity, row.claim, row.theory, row.rival, measured, row.off, row.finite_size, verdict)
        )
    for number, reason in reasons(result.comparisons).items():
        lines += ["", f"({number}) {reason}."]
    for absent in result.measurement.missing:
        lines += ["", f"**Not measured.** {absent}."]
    if seen := study.seen(result.measurement):
        lines += ["", f"**Seen besides.** {seen}"]
    found = ", ".join(f"{found}: {count}" for found, count, _ in tally(result))
    lines += ["", f"**The verdict.** {study.outcome} {found.capitalize()}. {borne_out(result)}"]
    lines += ["", f"**What to do.** {study.advice}", "", "```sh", command(study.name, manifest), "```"]
    return lines


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _anchor(title: str) -> str:
    """Return what a heading is linked by."""
    return "".join(number for number in title.lower().replace(" ", "-") if number.isalnum() or number == "-")
