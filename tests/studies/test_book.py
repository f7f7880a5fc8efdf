"""The book: one page in the source's order, in a real browser; and the same as Markdown."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from reporting.browser import Page, opened
from studies.coins import coin

from normwise.reporting import slider
from normwise.studies import study as registry
from normwise.studies.book import write_book
from normwise.studies.estimate import told
from normwise.studies.markdown import studies_page
from normwise.studies.run import Missing, Result, read_folder, run_studies
from normwise.studies.study import Heading

ROOT = Path(__file__).parents[2]
STUDIES = [
    coin("first", claim=0.9),
    coin("poor", heading=Heading.SEQUENCES, lacks="scanpy"),
    coin("second", heading=Heading.GRAPHS, theory=0.3),
    coin("unrun", heading=Heading.PRIVACY),
]
_MOVED = """(inside, page) => {
  const box = inside.document.querySelector(".slider"), input = box.querySelector("input");
  const seen = () => ({
    told: box.querySelector("output").textContent,
    paths: [...box.querySelectorAll(".wide .curve")].map(curve => curve.getAttribute("d")),
    narrow: [...box.querySelectorAll(".narrow .name")].map(name => +name.getAttribute("y")),
  });
  const moves = [seen()];
  for (const place of [input.max, input.min]) {
    input.value = place;
    input.dispatchEvent(new inside.Event("input", {bubbles: true}));
    moves.push(seen());
  }
  return moves;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two finished studies, one that lacks its data, one that nobody ran."""
    folder = tmp_path_factory.mktemp("studies")
    outcomes = run_studies(STUDIES[:3], folder, size="tiny", seed=4)
    write_book(folder, STUDIES, [outcome for outcome in outcomes if isinstance(outcome, Missing)])
    return folder


@pytest.fixture
def page(folder) -> str:
    return (folder / "book.html").read_text(encoding="utf-8")


def test_figures_lie_beside_the_results(folder):
    names = {path.name for path in folder.iterdir()}
    beside = {f"{name}{end}" for name in ("first", "second") for end in (".json", "-heads.svg", "-heads.png")}
    assert names == {"studies.json", "book.html", *beside}
    assert (folder / "first-heads.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_is_whole_and_asks_nothing_of_the_network(page):
    read = Page(page)
    assert not read.open
    assert [tag for tag, _ in read.tags if tag in ("img", "iframe", "object", "embed", "audio", "video")] == []
    asked = [a[key] for _, a in read.tags for key in ("src", "href", "action", "srcset", "xlink:href") if key in a]
    assert all(one == "data:," or one.startswith("#") for one in asked)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert all(one.startswith("#") for one in re.findall(r"url\(([^)]*)\)", page))
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {one[1:] for one in asked if one.startswith("#")} <= set(ids)


def test_pictures_say_what_they_show_and_follow_light_and_dark(page):
    pictures = [a for tag, a in Page(page).tags if tag == "svg" and "x" not in a]
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert "var(--ink)" in page.split("<main>")[1]
    assert not re.search(r"#[0-9a-f]{6}", page.split("<main>")[1])


def test_studies_come_in_the_order_given_under_the_source_headings(page):
    body = page.split("</nav>")[1]
    expected = []
    for study in STUDIES[:3]:
        part, heading = study.heading.value
        expected += [f"<h2>{part}</h2>"] if f"<h2>{part}</h2>" not in expected else []
        expected += [f"<h3>{heading}</h3>", f'<section id="{study.name}"']
    assert [body.index(word) for word in expected] == sorted(body.index(word) for word in expected)
    assert "unrun" not in page


def test_a_study_starts_with_its_picture_and_says_what_to_do(page, folder):
    (result,) = read_folder(folder, STUDIES[:1])
    section = page.split('<section id="first"')[1].split("</section>")[0]
    words = (
        'class="figures"',
        "A first is &lt;fair&gt;.",
        "Half of all flips.",
        "A fair random generator.",
        "<table>",
        "What was seen besides",
        f"Heads came up {told(result.measurement.series['heads'])} of the time.",
        "The first is as fair as it says.",
        "does not hold: 1",
        "Theory agrees with every measurement of the table.",
        "Flip the first.",
        "normwise study run first --size tiny --seed 4",
        'type="range"',
    )
    places = [section.index(word) for word in words]
    assert places == sorted(places)


def test_where_nothing_is_claimed_theory_alone_is_judged(page, folder):
    section = page.split('<section id="second"')[1].split("</section>")[0]
    assert "<span>theory disagrees</span>" in section
    assert '<span class="tag quiet">beyond the claim: 1</span>' in section
    assert ">does not hold" not in section


def test_a_theory_that_fails_is_told(page):
    section = page.split('<section id="second"')[1].split("</section>")[0]
    assert "disagrees" in section
    assert "Theory does not explain every measurement" in section


def test_a_study_that_lacks_its_data_says_what_to_install(page):
    section = page.split('<section id="poor"')[1].split("</section>")[0]
    assert "needs the package &#39;scanpy&#39;: pip install" in section
    assert "A poor is &lt;fair&gt;." in section
    assert "<table>" not in section


def test_what_became_of_every_claim_is_said_at_the_top(page):
    top = page.split("</nav>")[0]
    assert all(f"The {name} is as fair as it says." in top for name in ("first", "second"))
    assert "The poor is as fair" not in top


def test_a_part_that_lacks_its_data_says_what_to_install(tmp_path):
    partial = coin(partly=lambda: ("the edge needs the package 'scanpy': pip install it",))
    run_studies([partial], tmp_path, size="tiny")
    page = write_book(tmp_path, [partial]).read_text(encoding="utf-8")
    assert "<b>Not measured.</b> the edge needs the package &#39;scanpy&#39;: pip install it." in page
    assert "<table>" in page
    assert "**Not measured.** the edge needs" in studies_page(tmp_path, [partial], "images")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_fits_and_loads_nothing(page, tmp_path, width):
    needed, there, loaded, pictures, _ = opened(page, tmp_path, width)
    assert there == pytest.approx(width, abs=20)
    assert needed <= there
    assert loaded == 0
    assert pictures == 2 * (1 + 4)  # a figure; a slider for desks and one for phones, each with its panel


def test_a_slider_redraws_the_closed_form(page, folder, tmp_path):
    (result,) = (one for one in run_studies(STUDIES[:1], folder, size="tiny", seed=4) if isinstance(one, Result))
    drawn = slider.document(STUDIES[0].sliders(result.measurement)[0])["frames"]
    moves = opened(page, tmp_path, 1200, _MOVED)
    for place, seen in zip((1, 2, 0), moves, strict=True):
        assert seen["told"] == drawn[place]["told"]
        assert seen["paths"] == drawn[place]["paths"]
        assert seen["narrow"] == drawn[place]["names"]["narrow"]
    assert len({tuple(seen["paths"]) for seen in moves}) == 3


def test_a_book_is_written_again_when_more_is_finished(tmp_path):
    a, b = coin("a"), coin("b")
    for study in (a, b):
        run_studies([study], tmp_path, size="tiny")
        write_book(tmp_path, [a, b])
    assert "normwise study run a " in (tmp_path / "book.html").read_text(encoding="utf-8")


def test_the_documentation_takes_page_and_pictures_from_a_folder(folder, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(registry, "all_studies", lambda: STUDIES)
    monkeypatch.setattr(generate, "STUDIES", tmp_path / "studies.md")
    monkeypatch.setattr(generate, "IMAGES", tmp_path / "images")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/first-tails.png").write_text("a figure that is drawn no more")
    (tmp_path / "images/layers.png").write_text("not a study's")
    generate.write_studies(folder)
    text = (tmp_path / "studies.md").read_text(encoding="utf-8")
    assert text == studies_page(folder, STUDIES, "images")
    shown = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert shown == ["images/first-heads.png", "images/second-heads.png"]
    assert (tmp_path / "book.html").read_bytes() == (folder / "book.html").read_bytes()
    left = {f"images/{path.name}" for path in (tmp_path / "images").iterdir()}
    assert left == {*shown, "images/layers.png"}
