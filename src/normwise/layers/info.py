"""`BatchInfo`: what a layer deep inside a model must know of the batch, without plumbing."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from normwise.core.grouping import canonical_mask, check_side
from normwise.errors import DataError, ShapeError

_SEQUENCE_DIMENSIONS = 3


class _Active(threading.local):  # not a ContextVar: `torch.compile` cannot read one
    infos: tuple[BatchInfo, ...] = ()


_active = _Active()


@dataclass(frozen=True, eq=False)
class BatchInfo:
    """Side information of one batch; as a context manager, layers called inside find it.

    lengths: `(n,)` valid positions. mask: `(n, l)`, True where valid. domain: `(n,)` ids. condition: `(n,)` ids or
    `(n, e)` embeddings. graph: `(nodes,)` graph id of each node. edges: `(2, edges)` node indices.
    Contexts nest; each is local to its thread, and is to be left before an async task awaits.

    Activation checkpointing calls layers again during the backward pass. They update no statistics then, and need the
    same information: pass `context_fn=BatchInfo.checkpoint` to `torch.utils.checkpoint.checkpoint`. With
    `use_reentrant=True`, which takes none, let the `with` block span the backward pass.

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
        infos = _active.infos
        return infos[-1] if infos else BatchInfo()

    @staticmethod
    def checkpoint() -> tuple[AbstractContextManager[None], AbstractContextManager[BatchInfo]]:
        """Return contexts for a forward pass under checkpointing and its recomputation, which finds what is active now.

        For `torch.utils.checkpoint.checkpoint(..., use_reentrant=False, context_fn=BatchInfo.checkpoint)`.
        """
        return nullcontext(), BatchInfo.current()

    def __enter__(self) -> BatchInfo:
        """Make this the active information."""
        _active.infos = (*_active.infos, self)
        return self

    def __exit__(self, *exception: object) -> None:
        """Return to the one before."""
        _active.infos = _active.infos[:-1]


def required(name: str, given: Tensor | None) -> Tensor:
    """Return what was given, or else this field of the active `BatchInfo`; raise `DataError` if there is neither."""
    found = getattr(BatchInfo.current(), name) if given is None else given
    if found is None:
        raise missing(name)
    return found


def missing(name: str) -> DataError:
    """Return the error for side information that is nowhere."""
    return DataError(
        f"{name} must be given, got None; pass it as the second argument of the layer, or run the model inside "
        f"`with BatchInfo({name}=...)` (under activation checkpointing: see BatchInfo)"
    )


def padding(x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Return lengths and `(n, l)` mask of x as given, or else those of the active `BatchInfo`: its mask, if it has both."""
    if lengths is None and mask is None:
        info = BatchInfo.current()
        lengths, mask = (info.lengths, None) if info.mask is None else (None, info.mask)
    for name, given in (("lengths", lengths), ("mask", mask)):
        if given is not None:
            check_side(name, given)
    if lengths is not None and x.ndim != _SEQUENCE_DIMENSIONS:
        raise ShapeError(f"lengths need x (n, c, l), got {tuple(x.shape)}; pass a mask (n, *) of its positions instead")
    return lengths, None if mask is None else canonical_mask(mask, x)
