"""Shared fixtures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

if not torch.cuda.is_available():  # before triton is imported: it decides then whether kernels are compiled
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile("normwise", deadline=None)  # no timed assertions
settings.load_profile("normwise")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent))
# Shapes in annotations are checked in tests, and only there; before the first import of what they annotate. Compilers
# take functions as they are written, so theirs are left alone.
pytest.register_assert_rewrite("conformance")
COMPILED = ("compiled", "cuda", "triton_plan", "triton_tables", "triton_walks")
CORE = ROOT / "src" / "normwise" / "core"
CHECKED = [
    ".".join(("normwise", *path.relative_to(CORE.parent).with_suffix("").parts))
    for path in CORE.rglob("*.py")
    if not {*path.parts, path.stem}.intersection(COMPILED) and path.stem != "__init__"
]
install_import_hook([*CHECKED, "normwise.layers"], "annotations.check")


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    """Tests run side by side: one thread each, and the same random numbers each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _machine_code_gets_what_it_was_compiled_for():
    """A call by address checks no types: here each does."""
    from normwise.core.kernels.compiled import team

    address = team.address

    def checked(function, kind, values, arguments):
        place = address(function, kind, values, arguments)
        signature = team.addresses[function, kind, values.dtype][1]
        assert team.types_of(arguments) == signature, f"{function.__name__} of kind '{kind}' takes two sets of types"
        return place

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "address", checked)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A source of random numbers of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def data_packages() -> Path:
    """The folder of packages that bring pretrained models, on the import path."""
    folder = Path(os.environ.get("NORMWISE_DATA", ROOT / ".data"))
    if not (folder / "ccexam").exists():
        pytest.skip("lacks the model packages: `make .data/stamp` installs them, NORMWISE_DATA names their folder")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder
