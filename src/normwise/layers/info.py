"""`BatchInfo`: what a layer deep inside a model must know of the batch, without plumbing."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

_active: ContextVar[tuple[BatchInfo, ...]] = ContextVar("normwise_batch_info", default=())


@dataclass(frozen=True, eq=False)
class BatchInfo:
    """Side information of one batch; as a context manager, layers called inside find it.

    lengths: `(n,)` valid positions. mask: `(n, l)`, True where valid. domain, condition: `(n,)` ids.
    graph: `(nodes,)` graph id of each node. edges: `(2, edges)` node indices.
    Contexts nest; each is local to its thread or async task.

    >>> with BatchInfo(lengths=torch.tensor([3, 5])):
    ...     BatchInfo.current().lengths.tolist()
    [3, 5]
    """

    lengths: Tensor | None = None
    mask: Tensor | None = None
    domain: Tensor | None = None
    condition: Tensor | None = None
    graph: Tensor | None = None
    edges: Tensor | None = None

    @staticmethod
    def current() -> BatchInfo:
        """Return the innermost active information, or an empty one."""
        active = _active.get()
        return active[-1] if active else BatchInfo()

    def __enter__(self) -> BatchInfo:
        """Make this the active information."""
        _active.set((*_active.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        """Return to the one before."""
        _active.set(_active.get()[:-1])
