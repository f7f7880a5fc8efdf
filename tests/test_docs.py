"""The pages are true: generated ones are up to date, links lead somewhere, and their code runs."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from reporting.browser import Page, opened
from torch import nn

import normwise
from normwise import layers
from normwise.audit.report import rule_documents
from normwise.errors import UsageError
from normwise.studies.study import all_studies

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = [ROOT / "README.md", ROOT / "docs/quickstart.md"]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SLIDERS = """(inside, page) => [...inside.document.querySelectorAll(".slider")].map(box => {
  const input = box.querySelector("input"), name = box.id;
  const seen = () => box.querySelector("output").textContent
    + [...box.querySelectorAll(".curve")].map(curve => curve.getAttribute("d"));
  const all = [];
  for (let place = 0; place <= +input.max; place++) {
    input.value = place;
    input.dispatchEvent(new inside.Event("input", {bubbles: true}));
    all.push(seen());
  }
  return [name, +input.max + 1, new Set(all).size];
})"""
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _generator(name: str = "generate"):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
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


@pytest.mark.parametrize("page", ["studies.md", "book.html"])
def test_pages_of_the_studies_say_what_the_studies_say(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    words = text if page.endswith("md") else "".join(Page(text).words)
    for study in all_studies():
        for said in (study.title, study.claim, study.theory, study.setting, study.outcome, study.advice):
            assert said in words, f"{page}: {study.name} says something else; run `python docs/generate.py DIR`"


def test_every_slider_of_the_book_moves(tmp_path):
    book = (ROOT / "docs/book.html").read_text(encoding="utf-8")
    moved = opened(book, tmp_path, 1200, _SLIDERS)
    assert {name.partition("-slider-")[0] for name, _, _ in moved} == {study.name for study in all_studies()}
    assert all(places == different for _, places, different in moved)


@pytest.mark.parametrize("width", [320, 1200])
def test_the_book_fits_and_loads_nothing(tmp_path, width):
    needed, there, loaded, pictures, _ = opened((ROOT / "docs/book.html").read_text(encoding="utf-8"), tmp_path, width)
    assert needed <= there
    assert loaded == 0
    assert pictures > len(all_studies())


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


def test_python_of_the_page_of_layers_runs_and_is_right():
    names = _run(ROOT / "docs/layers.md")
    assert names["difference"] < 1e-6
    assert names["left_over"] == 0
    assert names["level"].abs().max() < 1e-5
    assert names["gap"] < 1e-5


@pytest.mark.filterwarnings("ignore::normwise.models.convert.ConversionWarning")
def test_python_of_the_page_of_conversion_runs():
    model = _run(ROOT / "docs/convert.md")["model"]
    assert [type(module).__name__ for module in model] == ["Conv2d", "DomainBatchNorm", "ReLU", "Conv2d", "GroupNorm"]


def test_every_layer_has_its_place_on_the_page_and_among_what_convert_makes():
    page, conversion = ((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("layers", "convert"))
    choice, states = page.split("##")[0], page.split("## State dicts")[1]
    for name in (name for name in layers.__all__ if "Norm" in name):
        assert f"`{name}`" in choice, f"layers.md: the table does not choose {name}"
        assert f"`{name}`" in states, f"layers.md: nothing on the state dict of {name}"
        assert f"`{name}`" in conversion or name == "BatchNormAct", f"convert.md: nothing on {name}"
    with pytest.raises(UsageError) as told:
        normwise.convert(nn.BatchNorm1d(2), "no such name")
    for name in re.findall(r"'([a-z-]+)'", str(told.value)):
        assert f'"{name}"' in conversion, f"convert.md: nothing on {name!r}"


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
