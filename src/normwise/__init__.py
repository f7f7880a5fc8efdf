"""normwise: deploy, adapt and troubleshoot batch normalization in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normwise import audit, layers
    from normwise.care.accumulate import accumulate
    from normwise.care.policy import freeze, unfreeze
    from normwise.care.recalibrate import recalibrate
    from normwise.errors import NormwiseError
    from normwise.layers.info import BatchInfo
    from normwise.models.convert import convert
    from normwise.models.fold import fold
    from normwise.models.task import Task

__version__ = "0.1.0"
_HOMES = {
    "accumulate": "normwise.care.accumulate",
    "freeze": "normwise.care.policy",
    "unfreeze": "normwise.care.policy",
    "recalibrate": "normwise.care.recalibrate",
    "NormwiseError": "normwise.errors",
    "BatchInfo": "normwise.layers.info",
    "convert": "normwise.models.convert",
    "fold": "normwise.models.fold",
    "Task": "normwise.models.task",
}
_PACKAGES = ("audit", "layers")  # `normwise.audit` is a package that can be called
__all__ = [
    "BatchInfo",
    "NormwiseError",
    "Task",
    "accumulate",
    "audit",
    "convert",
    "fold",
    "freeze",
    "layers",
    "recalibrate",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name in _PACKAGES:
        return importlib.import_module(f"normwise.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'normwise' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
