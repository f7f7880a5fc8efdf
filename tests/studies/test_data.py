"""Data that come inside packages: found, or named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwise.errors import MissingDataError, MissingExtraError
from normwise.studies.data import digits, packaged

_FILE = "sklearn/datasets/data/digits.csv.gz"


def test_digits_are_all_there_and_shuffled_by_the_seed():
    (x, y), (again, _), (other, labels) = digits(), digits(), digits(seed=1)
    assert x.shape == (1797, 1, 8, 8)
    assert (x.min(), x.max()) == (0, 1)
    assert (x == again).all()
    assert not (x == other).all()
    assert (y.bincount() == labels.bincount()).all()


def test_a_file_of_an_installed_package_is_found():
    assert packaged(_FILE, package="scikit-learn", purpose="digits").is_file()


def test_the_folder_of_data_packages_comes_first(tmp_path, monkeypatch):
    mine: Path = tmp_path / _FILE
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path))
    assert packaged(_FILE, package="scikit-learn", purpose="digits") == mine


def test_what_is_missing_is_named_with_its_package(monkeypatch):
    monkeypatch.delenv("NORMWISE_DATA", raising=False)
    with pytest.raises(MissingDataError, match=r"the Cora graph needs the data of the package 'graph-of-nowhere': pip"):
        packaged("graph_of_nowhere/cora.csv", package="graph-of-nowhere", purpose="the Cora graph")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"normwise\[studies\]"):
        digits()
