"""The book: every finished study of a folder, in the source's order, as one page, and as Markdown for the documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from normwise import __version__
from normwise.reporting import slider, style
from normwise.reporting.files import write_atomically
from normwise.reporting.html import page_environment
from normwise.studies.estimate import Estimate
from normwise.studies.run import MANIFEST, Missing, Result, read_folder
from normwise.studies.study import Comparison, Study, Verdict

PAGE = "book.html"
_BEYOND = "beyond the claim"  # said of numbers that only theory predicts
_IDENTITY = "identity"  # said of claimed numbers that are exact by construction
_ALONE = {True: "theory agrees", False: "theory disagrees"}
_LEVELS = {Verdict.HOLDS: "holds", Verdict.IDEALISED: "idealised", Verdict.FAILS: "fails"}


def write_book(folder: Path, studies: Sequence[Study], missing: Sequence[Missing] = ()) -> Path:
    """Draw the figures of every finished study of a folder beside its JSON, and write the page; return its path."""
    results = read_folder(folder, studies)
    pictures: dict[str, dict[str, str]] = {}
    for result in results:
        pictures[result.study.name] = {}
        for name, (picture, pixels) in _drawn(result).items():
            pictures[result.study.name][name] = picture
            write_atomically(folder / f"{result.study.name}-{name}.svg", picture)
            write_atomically(folder / image(result.study, name), pixels)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    shown = {one.study.name: one for one in (*missing, *results)}
    entries = [_entry(shown[study.name], pictures, manifest) for study in studies if study.name in shown]
    book = {"version": __version__, "size": manifest["size"], "seed": manifest["seed"], "parts": _parts(entries)}
    template = page_environment().get_template("book.html")
    write_atomically(folder / PAGE, template.render(book=book, palette=style.PALETTE, tags=_tags))
    return folder / PAGE


def _drawn(result: Result) -> dict[str, tuple[str, bytes]]:
    """Return each figure as SVG and as PNG."""
    with style.look():
        figures = result.study.figures(result.measurement)
        return {name: (style.svg(figure), style.png(figure)) for name, figure in figures.items()}


def _entry(
    shown: Result | Missing, pictures: Mapping[str, Mapping[str, str]], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one study as the page needs it."""
    study = shown.study
    entry: dict[str, Any] = {
        "heading": study.heading,
        "name": study.name,
        "title": study.title,
        "claim": study.claim,
        "theory": study.theory,
        "advice": study.advice,
        "command": command(study.name, manifest),
        "missing": "",
        "verdicts": {},
        "identities": 0,
        "beyond": 0,
    }
    if isinstance(shown, Missing):
        return {**entry, "missing": shown.reason}
    drawn = pictures[study.name]
    return {
        **entry,
        "pictures": [
            Markup(style.inline(picture, f"{study.name}-{name}", f"{study.title}: {name.replace('-', ' ')}"))
            for name, picture in drawn.items()
        ],
        "rows": [row(comparison) for comparison in shown.comparisons],
        "seen": study.seen(shown.measurement),
        "reasons": sorted({one.prediction.reason for one in shown.comparisons if one.prediction.reason}),
        "verdicts": tally(shown),
        "identities": identities(shown),
        "beyond": beyond(shown),
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


def command(name: str, manifest: Mapping[str, Any]) -> str:
    """Return what measures a study again."""
    return f"normwise study run {name} --size {manifest['size']} --seed {manifest['seed']} --output again"


def tally(result: Result) -> dict[Verdict, int]:
    """Return how often each verdict on a claimed number was found, the best first; those nobody found are left out."""
    found = [one.verdict for one in result.comparisons if one.prediction.claim is not None and not one.identity]
    return {verdict: found.count(verdict) for verdict in Verdict if verdict in found}


def identities(result: Result) -> int:
    """Return how many claimed numbers are exact by construction."""
    return sum(one.identity for one in result.comparisons)


def beyond(result: Result) -> int:
    """Return how many quantities theory predicts of which the claim says no number."""
    return sum(one.prediction.claim is None for one in result.comparisons)


def _tags(entry: Mapping[str, Any]) -> Markup:
    """Return a study's verdicts as small marks."""
    if entry["missing"]:
        return Markup('<span class="tag quiet">not run</span>')
    mark = Markup('<span class="tag {}">{}</span>')
    tags = [mark.format(_LEVELS[v], f"{v}: {count}") for v, count in entry["verdicts"].items()]
    if entry["identities"]:
        tags.append(mark.format("quiet", f"{_IDENTITY}: {entry['identities']}"))
    if entry["beyond"]:
        tags.append(mark.format("quiet", f"{_BEYOND}: {entry['beyond']}"))
    return Markup("").join(tags)


def row(comparison: Comparison) -> dict[str, Any]:
    """Return one comparison in words, rounded to what its error allows."""
    prediction, measured, ideal = comparison.prediction, comparison.measured, comparison.idealised
    places = _places(measured.error or abs(prediction.theory - prediction.other))
    return {
        "quantity": comparison.quantity,
        "claim": "-" if prediction.claim is None else f"{prediction.claim:.4g}",
        "theory": _said(prediction.theory, places),
        "measured": _interval(measured, places),
        "idealised": "" if ideal is None else _interval(ideal, _places(ideal.error or 1.0)),
        "finite_size": f"{prediction.finite_size:.2g}" if prediction.finite_size else "-",
        "verdict": _verdict(comparison),
        "level": "quiet" if comparison.identity else _LEVELS[comparison.verdict],
        "sound": comparison.sound,
        "doubt": "disagrees" if not comparison.agrees else "too rough to tell",
    }


def _verdict(comparison: Comparison) -> str:
    if comparison.identity:
        return _IDENTITY
    return str(comparison.verdict) if comparison.prediction.claim is not None else _ALONE[comparison.agrees]


def _places(error: float) -> int:
    """Return the decimal places that show two digits of an error."""
    return 3 if error <= 0 else max(0, min(6, 1 - math.floor(math.log10(error))))


def _said(value: float, places: int) -> str:
    return f"{value:.3g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-4 else f"{value:.{places}f}"


def _interval(estimate: Estimate, places: int) -> str:
    """Say a value with its 95% interval."""
    low, high = (estimate.value + sign * estimate.interval for sign in (-1, 1))
    return f"{_said(estimate.value, places)} [{_said(low, places)}, {_said(high, places)}]"


def studies_page(folder: Path, studies: Sequence[Study], images: str) -> str:
    """Return the finished studies of a folder as a Markdown page; `images` is where its pictures lie, seen from it."""
    results = read_folder(folder, studies)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    lines = [
        "# Studies",
        "",
        "Written by `python docs/generate.py DIR`, never by hand, from the results of",
        f"`normwise study run --all --size {manifest['size']} --seed {manifest['seed']} --output DIR`. Brackets and what follows "
        "± are 95% intervals.",
        "How a verdict comes about: `normwise study --help`.",
    ]
    for part, of_part in groupby(results, key=lambda result: result.study.heading.value[0]):
        lines += ["", f"## {part}"]
        for result in of_part:
            lines += _section(result, images)
    return "\n".join(lines) + "\n"


def _section(result: Result, images: str) -> list[str]:
    study = result.study
    manifest = {"size": result.size, "seed": result.seed}
    lines = ["", f"### {study.title}", "", f"*{study.heading.value[1]}*", ""]
    with style.look():
        names = list(study.figures(result.measurement))
    lines += [f"![{study.title}: {name.replace('-', ' ')}]({images}/{image(study, name)})" for name in names]
    lines += ["", f"**The claim.** {study.claim}", "", f"**Theory.** {study.theory}", ""]
    lines += ["| quantity | claim | theory | measured | finite size | verdict |", "|---|---|---|---|---|---|"]
    for comparison in result.comparisons:
        one = row(comparison)
        measured = one["measured"] + (f", idealised {one['idealised']}" if one["idealised"] else "")
        cells = (one["quantity"], one["claim"], one["theory"], measured, one["finite_size"], one["verdict"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if seen := study.seen(result.measurement):
        lines += ["", f"**Seen besides.** {seen}"]
    counts = {**tally(result), _IDENTITY: identities(result), _BEYOND: beyond(result)}
    told = [f"{verdict}: {count}" for verdict, count in counts.items() if count]
    sound = "Theory agrees with every measurement" if result.sound else "Theory does not explain every measurement"
    lines += ["", f"**The verdict.** {', '.join(told).capitalize()}. {sound}."]
    lines += ["", f"**What to do.** {study.advice}", "", "```sh", command(study.name, manifest), "```"]
    return lines


def image(study: Study, figure: str) -> str:
    """Return the file name of a study's figure, as it lies beside its results."""
    return f"{study.name}-{figure}.png"
