"""The pages are true: generated ones are up to date, links lead somewhere, and their code runs."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from normwise.audit.report import rule_documents

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = [ROOT / "README.md", ROOT / "docs/quickstart.md"]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rules_page_is_up_to_date():
    generator = _generator()
    assert generator.PAGE.read_text(encoding="utf-8") == generator.rules_page(), "run `python docs/generate.py`"


def test_readme_lists_every_rule_and_no_other():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (NW\d+) \| (\S+) \|", text, re.MULTILINE))
    assert listed == {rule["code"]: rule["name"] for rule in rule_documents()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: no heading for {target}"


def _run(page: Path) -> dict:
    blocks = _PYTHON.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page.name} has no Python"
    names: dict = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    return names


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_python_of_a_page_runs_and_repairs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = _run(page)
    assert names["before"] < 0.5
    assert names["after"] > 0.95


def test_images_are_small():
    images = sorted((ROOT / "docs/images").glob("*"))
    assert images
    for image in images:
        assert image.stat().st_size <= 200_000, f"{image.name}: {image.stat().st_size} bytes"


def test_report_page_names_every_top_level_key_of_the_schema():
    schema = json.loads((ROOT / "docs/report-schema.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    plain = {"schema", "version", "model", "data", "target"}
    missing = [key for key in schema["properties"] if key not in plain and f"`{key}" not in page]
    assert not missing
