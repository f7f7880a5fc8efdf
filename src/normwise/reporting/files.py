"""Writing files all or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from normwise.errors import UsageError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write through a temporary file in the same folder, then rename; raise `UsageError` if that cannot be done."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt as well
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise UsageError(f"output: cannot write '{path}' ({reason}); choose another path") from error
