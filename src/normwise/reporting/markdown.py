"""The report as Markdown, for a pull request or a summary page."""

from __future__ import annotations

from typing import Any

from normwise.reporting.document import amount, answer, gain, grouped, subject


def render(document: dict[str, Any]) -> str:
    """Return a report document as Markdown."""
    told = answer(document)
    lines = [f"# normwise: {_cell(told['headline'])}", "", _cell(subject(document)), "", _cell(told["detail"])]
    if told["command"]:
        lines += ["", "```sh", told["command"], "```"]
    if document["causes"]:
        metric = document["metric"]
        lines += ["", "## Causes", "", f"By {metric['name']} on {metric['samples']} held-back samples.", ""]
        lines += ["| | cause | before | after | recovers [95% interval] | fix |", "|---|---|---|---|---|---|"]
        for number, cause in enumerate(document["causes"], 1):
            before, after = (amount(document, cause[key]) for key in ("before", "after"))
            cells = (
                f"{'/'.join(cause['codes'])} {cause['title']}",
                before,
                after,
                gain(document, cause),
                cause["description"],
            )
            lines.append(f"| {number} | " + " | ".join(_cell(cell) for cell in cells) + " |")
        together = document["together"]
        if together is not None and len(document["causes"]) > 1:
            before, after = (amount(document, together[key]) for key in ("before", "after"))
            lines.append(f"| | all together | {before} | {after} | {_cell(gain(document, together))} | |")
    if document["findings"]:
        lines += ["", "## Findings", "", "| severity | rule | layers | finding |", "|---|---|---|---|"]
        for row in grouped(document):
            cells = (row["severity"], f"{row['code']} {row['name']}", row["where"], row["message"])
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += [""] + [f"> {_cell(note)}" for note in document["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Keep text from ending a cell or opening markup."""
    for character in ("\\", "|", "<", "*", "_", "`", "[", "#"):
        text = text.replace(character, f"\\{character}" if character != "<" else "&lt;")
    return " ".join(text.split())
