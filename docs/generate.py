"""Writes the pages that come from the code: `python docs/generate.py [BENCH.json ...] [FOLDER OF STUDIES]`.

With documents of `normwise bench --json`, one a number of threads, the table of layers in benchmarks.md is written too;
with a folder of `normwise study run --output`, studies.md.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from normwise.audit.report import rule_documents
from normwise.reporting.bench import FLOOR, OURS, conditions, spread

PAGE = Path(__file__).parent / "rules.md"
STUDIES = Path(__file__).parent / "studies.md"
IMAGES = Path(__file__).parent / "images"
BENCHMARKS = Path(__file__).parent / "benchmarks.md"
MARKS = ("<!-- layers, by docs/generate.py -->", "<!-- end of layers -->")
_SECTIONS = (
    ("what", "What"),
    ("why", "Why"),
    ("measured", "How it is measured"),
    ("known_problems", "Known problems"),
    ("fix", "Fix"),
)
_EXACT = {True: " The fix is exact: outputs stay the same.", False: " The fix changes outputs.", None: ""}


def rules_page() -> str:
    """Return the page of all rules."""
    documents = rule_documents()
    lines = [
        "# Rules",
        "",
        "Written by `python docs/generate.py` from the rules' own texts; `normwise rule CODE` prints one in a terminal.",
        "The severity is the usual one; a rule's text says where it differs.",
        "",
        "| code | name | severity | finds |",
        "|---|---|---|---|",
    ]
    for rule in documents:
        anchor = f"{rule['code']}-{rule['name']}".lower()
        lines.append(f"| [{rule['code']}](#{anchor}) | {rule['name']} | {rule['severity']} | {_cell(rule['title'])} |")
    for rule in documents:
        lines += ["", f"## {rule['code']} {rule['name']}", "", f"{rule['title']}. Severity: {rule['severity']}."]
        for key, heading in _SECTIONS:
            lines += ["", f"**{heading}.** {_flat(rule[key])}{_EXACT[rule['exact']] if key == 'fix' else ''}"]
    return "\n".join(lines) + "\n"


def layers_section(documents: list[dict[str, Any]]) -> str:
    """Return what documents of the benchmark of the same cases say, as Markdown: a table, and the targets missed."""
    first, threads = documents[0], [document["threads"] for document in documents]
    timings = [f"{count} thread{'s' if count > 1 else ''} | floor" for count in threads]
    lines = [f"- {_flat(conditions(document))}." for document in documents]
    lines += [
        "",
        f"| case | over | ms | {' | '.join(timings)} | saved | asked for | others, {timings[0].split(' |')[0]} |",
    ]
    lines += ["|---|---|--:|" + "--:|--:|" * len(documents) + "--:|---|---|"]
    for number, case in enumerate(first["cases"]):
        same = [_contenders(document["cases"][number]) for document in documents]
        ours, baseline = same[0][OURS], case["baseline"]
        cells = [f"{case['family']} {case['title']}", baseline, f"{same[0][baseline]['total_ms']:.3g}"]
        for contenders in same:
            cells += [spread(contenders[OURS]["total"]), f"{contenders[FLOOR]['total']['median']:.2f}"]
        others = [
            f"{name} {one['total']['median']:.2f}"
            for name, one in same[0].items()
            if name not in (OURS, FLOOR, baseline)
        ]
        cells += [f"{ours['saved']:.1f}", "; ".join(map(_asked, case["targets"])), "; ".join(others)]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", *_missed(documents)]
    return "\n".join(lines)


def _contenders(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in case["contenders"]}


def _asked(target: dict[str, Any]) -> str:
    return f"{target['limit']:.2f}" + (f" of {target['against']}" if target["against"].startswith("PyG") else "")


def _missed(documents: list[dict[str, Any]]) -> list[str]:
    """Return a line for each target missed, with the floor beside it."""
    lines = []
    for document in documents:
        threads = f"{document['threads']} thread{'s' if document['threads'] > 1 else ''}"
        for case in document["cases"]:
            floor = _contenders(case)[FLOOR]["total"]["median"]
            for target in case["targets"]:
                if target["met"] is False:
                    name = f"{case['family']} {case['title']}, {threads}"
                    lines.append(f"- {name}: {spread(target['ratio'])}, asked for {_asked(target)}; floor {floor:.2f}.")
    return ["Missed:", "", *lines] if lines else ["All targets are met."]


def write_layers(paths: list[Path]) -> None:
    """Put the section between its marks."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    before, _, rest = BENCHMARKS.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    text = f"{before}{MARKS[0]}\n\n{layers_section(documents)}\n\n{MARKS[1]}{after}"
    BENCHMARKS.write_text(text, encoding="utf-8")


def write_studies(folder: Path) -> None:
    """Write the page of the studies that `normwise study run` finished in a folder; bring their pictures and book here."""
    from normwise.studies.book import PAGE as BOOK
    from normwise.studies.markdown import studies_page
    from normwise.studies.study import all_studies
    from normwise.studies.table import image

    studies = all_studies()
    STUDIES.write_text(studies_page(folder, studies, IMAGES.name), encoding="utf-8")
    for study in studies:
        for old in IMAGES.glob(image(study.name, "*")):
            old.unlink()
        for picture in folder.glob(image(study.name, "*")):
            shutil.copyfile(picture, IMAGES / picture.name)
    shutil.copyfile(folder / BOOK, STUDIES.with_name(BOOK))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(rules_page(), encoding="utf-8")
    given = [Path(name) for name in sys.argv[1:]]
    for folder in (path for path in given if path.is_dir()):
        write_studies(folder)
    documents = [path for path in given if not path.is_dir()]
    if documents:
        write_layers(documents)
