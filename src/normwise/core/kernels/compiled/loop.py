"""How a loop is compiled, and when it is compiled anew."""
# pyright: basic

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache

COMPILES = not config.DISABLE_JIT  # pyright: ignore[reportAttributeAccessIssue]
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
_DIGEST = hashlib.sha256(_SOURCES).hexdigest()


class _Cache(FunctionCache):
    """Machine code kept on disk for as long as no loop has changed.

    Numba's own cache looks at the file of a function only, and so keeps what was inlined into it from another file.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _DIGEST)


def loop(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, without the interpreter lock, and keep what was compiled on disk.

    Division by 0 gives infinity or NaN, as in torch; sums may be reordered, NaN and infinity are respected.
    """
    compiled: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract", "arcp"})(function)
    if COMPILES:
        with suppress(RuntimeError):  # nowhere to write to: it is compiled anew in every process
            compiled._cache = _Cache(function)
    return compiled
