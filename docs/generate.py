"""Writes the pages that come from the code: `python docs/generate.py`."""

from __future__ import annotations

from pathlib import Path

from normwise.audit.report import rule_documents

PAGE = Path(__file__).parent / "rules.md"
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


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(rules_page(), encoding="utf-8")
