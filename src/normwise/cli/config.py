"""Options from `[tool.normwise]` in pyproject.toml, or from normwise.toml; the command line wins."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from normwise.errors import UsageError

_KEYS = {
    "data": str, "target": str, "task": str, "role": str, "select": list, "ignore": list, "fail-on": str,
    "max-batches": int, "attribution": bool,
}  # fmt: skip


def read_config(folder: Path | None = None) -> dict[str, Any]:
    """Return the options of this folder's configuration; raise `UsageError` for one that cannot be read or is unknown."""
    folder = folder or Path.cwd()
    for name, keys in (("normwise.toml", ()), ("pyproject.toml", ("tool", "normwise"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{name}: cannot be read: {error}") from error
        for key in keys:
            table = table.get(key, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise UsageError(f"{name}: expected a table [{'.'.join(keys)}], got {table!r}")
        if table:
            return _checked(table, name)
    return {}


def _checked(table: dict[str, Any], name: str) -> dict[str, Any]:
    for key, value in table.items():
        if key not in _KEYS:
            raise UsageError(f"{name}: unknown option {key!r}; known are {', '.join(sorted(_KEYS))}")
        kind = _KEYS[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(f"{name}: {key} must be a {kind.__name__}, got {value!r}")
        if kind is list and not all(isinstance(item, str) for item in value):
            raise UsageError(f"{name}: {key} must be a list of rule codes, got {value!r}")
    return table
