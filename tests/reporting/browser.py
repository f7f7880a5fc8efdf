"""A page, read by a parser and in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PROBE = """<script>
addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentWindow, page = inside.document.documentElement;
  document.title = JSON.stringify(({asked})(inside, page));
}});
</script>"""
_SIZES = """(inside, page) => [page.scrollWidth, page.clientWidth, inside.performance.getEntriesByType("resource").length,
  inside.document.querySelectorAll("svg").length, inside.document.scripts.length]"""


class Page(HTMLParser):
    """What a page holds: its tags, its attributes, its words, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def opened(page: str, folder: Path, width: int, asked: str = _SIZES) -> Any:
    """Open a page in a frame of that width in Chromium; return what a function of its window and root element gives.

    Without one: width needed, width there, things loaded, pictures, scripts.
    """
    if _CHROMIUM is None:
        pytest.skip("lacks Chromium, the browser in which the page is measured: install the package `chromium`")
    (folder / "page.html").write_text(page, encoding="utf-8")
    frame = (
        f'<iframe src="page.html" width="{width}" height="900" style="border:0"></iframe>{_PROBE.format(asked=asked)}'
    )
    (folder / "frame.html").write_text(f"<!doctype html><title>no answer</title>{frame}", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += ["--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000"]
    address = (folder / "frame.html").as_uri()
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(
        [_CHROMIUM, *options, "--dump-dom", address], capture_output=True, text=True, timeout=120, env=environment
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr[-500:]
    return json.loads(unescape(title[1]))
