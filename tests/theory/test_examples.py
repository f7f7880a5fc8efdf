"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from normwise import theory

MODULES = ["normwise.theory", *(f"normwise.theory.{module.name}" for module in pkgutil.iter_modules(theory.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_file(name):
    outcome = doctest.testmod(importlib.import_module(name), report=True)
    assert outcome.failed == 0


def test_the_table_lists_every_file():
    for name in MODULES[1:]:
        file = name.rpartition(".")[2]
        assert file == "number" or f"| {file} |" in theory.__doc__
