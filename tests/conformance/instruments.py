"""Taking the tests' checks of annotations off, where a user's program has none."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from contextlib import contextmanager

import jaxtyping
import pytest


@contextmanager
def shapes_unchecked():
    """As in a user's program: no test instrument looks at annotations, so that the package's own checks speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@contextmanager
def dataclasses_as_written():
    """Take the test instrument off the methods of dataclasses: `torch.compile` cannot trace it on objects it makes."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("normwise.core", "normwise.layers"))]
    classes = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    with pytest.MonkeyPatch.context() as patch:
        for kind in filter(dataclasses.is_dataclass, classes):
            for name, member in list(vars(kind).items()):
                if isinstance(member, property):
                    patch.setattr(kind, name, property(inspect.unwrap(member.fget)))
                elif inspect.isfunction(member):
                    patch.setattr(kind, name, inspect.unwrap(member))
        yield
