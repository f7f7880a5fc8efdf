"""The book: every finished study of a folder, in the source's order, as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from normwise import __version__
from normwise.reporting import picture, slider, style
from normwise.reporting.files import write_atomically
from normwise.reporting.html import page_environment
from normwise.studies.run import Missing, Result, read_folder, read_manifest
from normwise.studies.study import Study
from normwise.studies.table import READING, borne_out, command, image, reasons, rows, tally

PAGE = "book.html"


def write_book(folder: Path, studies: Sequence[Study], missing: Sequence[Missing] = ()) -> Path:
    """Draw the figures of every finished study of a folder beside its JSON, and write the page; return its path."""
    results = read_folder(folder, studies)
    pictures = {result.study.name: _drawn(result) for result in results}
    for study, of_study in pictures.items():
        for name, drawn in of_study.items():
            write_atomically(folder / f"{study}-{name}.svg", drawn.svg)
            write_atomically(folder / image(study, name), drawn.png)
    manifest = read_manifest(folder)
    shown = {one.study.name: one for one in (*missing, *results)}
    entries = [_entry(shown[study.name], pictures, manifest) for study in studies if study.name in shown]
    book = {
        "version": __version__,
        "size": manifest["size"],
        "seed": manifest["seed"],
        "reading": READING,
        "parts": _parts(entries),
    }
    template = page_environment().get_template("book.html")
    write_atomically(folder / PAGE, template.render(book=book, palette=style.PALETTE, tags=_tags))
    return folder / PAGE


@dataclass(frozen=True)
class _Picture:
    """A figure as it is written: as SVG and as PNG, and in words."""

    svg: str
    png: bytes
    words: str


def _drawn(result: Result) -> dict[str, _Picture]:
    with style.look():
        figures = result.study.figures(result.measurement)
        return {
            name: _Picture(picture.svg(made), picture.png(made), picture.alt_text(made))
            for name, made in figures.items()
        }


def _entry(
    shown: Result | Missing, pictures: Mapping[str, Mapping[str, _Picture]], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one study as the page needs it."""
    study = shown.study
    entry: dict[str, Any] = {
        "heading": study.heading,
        "name": study.name,
        "title": study.title,
        "claim": study.claim,
        "theory": study.theory,
        "setting": study.setting,
        "outcome": study.outcome,
        "advice": study.advice,
        "command": command(study.name, manifest),
        "missing": "",
        "tally": [],
    }
    if isinstance(shown, Missing):
        return {**entry, "missing": shown.reason}
    return {
        **entry,
        "pictures": [
            Markup(picture.inline(drawn.svg, f"{study.name}-{name}", drawn.words))
            for name, drawn in pictures[study.name].items()
        ],
        "rows": rows(shown.comparisons),
        "seen": study.seen(shown.measurement),
        "reasons": reasons(shown.comparisons),
        "absent": shown.measurement.missing,
        "tally": tally(shown),
        "borne_out": borne_out(shown),
        "sound": shown.sound,
        "seconds": round(shown.seconds),
        "sliders": [slider.document(one) for one in study.sliders(shown.measurement)],
    }


def _parts(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group entries, which come in the source's order, by its parts and headings."""
    return [
        {
            "title": part,
            "headings": [
                {"title": heading.value[1], "studies": list(members)}
                for heading, members in groupby(together, key=lambda entry: entry["heading"])
            ],
        }
        for part, together in groupby(entries, key=lambda entry: entry["heading"].value[0])
    ]


def _tags(entry: Mapping[str, Any]) -> Markup:
    """Return what was found in a study as small marks."""
    mark = Markup('<span class="tag {}">{}</span>')
    if entry["missing"]:
        return mark.format("quiet", "not run")
    return Markup("").join(mark.format(level, f"{found}: {count}") for found, count, level in entry["tally"])
