"""The audit: rules over one trace of a model, and the causes behind what they find.

The package is callable, so that `normwise.audit(model, data)` and `from normwise.audit.rule import ...` both work.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normwise.audit.run import audit as __call__  # noqa: F401


class _CallableModule(ModuleType):
    @property
    def __call__(self):
        from normwise.audit.run import audit

        return audit


sys.modules[__name__].__class__ = _CallableModule
