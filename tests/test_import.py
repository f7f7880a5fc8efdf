"""`import normwise` is light; its public names are there."""

from __future__ import annotations

import subprocess
import sys

import normwise

HEAVY = (
    "numba",
    "matplotlib",
    "triton",
    "sklearn",
    "typer",
    "rich",
    "jinja2",
    "flwr",
    "opacus",
    "anndata",
    "lightning",
)


def test_importing_loads_nothing_it_does_not_need():
    code = f"import normwise, sys; normwise.audit, normwise.layers.BatchNorm; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_resolves():
    for name in normwise.__all__:
        assert getattr(normwise, name) is not None
    assert set(normwise.__all__) == set(dir(normwise))


def test_audit_can_be_called_and_imported_from():
    from normwise.audit.rule import find_rule

    assert find_rule("NW201").code == "NW201"
    assert callable(normwise.audit)
    assert normwise.audit.__call__.__name__ == "audit"
