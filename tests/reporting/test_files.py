"""All or nothing on disk, and one clear line where it cannot be."""

from __future__ import annotations

import os
import stat

import pytest

from normwise.errors import UsageError
from normwise.reporting.files import write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    write_atomically(path, "néu")
    assert path.read_text(encoding="utf-8") == "néu"
    write_atomically(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    mask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "page.html", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o644


def test_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "page.html", "x")
    assert (tmp_path / "a" / "b" / "page.html").exists()


@pytest.mark.parametrize("name", ["folder", "file/inside"])
def test_a_path_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match=r"cannot write .*choose") as caught:
        write_atomically(tmp_path / name, "x")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_an_interrupt_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(*_names):
        raise KeyboardInterrupt

    (tmp_path / "page.html").write_text("old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "page.html", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"page.html": "old"}
