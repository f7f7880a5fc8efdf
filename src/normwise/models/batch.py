"""Batches of any form: nested tensors, their samples, and iterables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from normwise.errors import DataError


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors inside nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (t for item in value.values() for t in tensors_in(item))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (t for f in fields(value) for t in tensors_in(getattr(value, f.name)))
    elif isinstance(value, (tuple, list)):
        yield from (t for item in value for t in tensors_in(item))


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor inside nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(function, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: map_tensors(function, getattr(value, f.name)) for f in fields(value) if f.init}
        return replace(value, **changed)
    return value


def to_device(batch: Any, device: torch.device, *, copy: bool = False) -> Any:
    """Move every tensor of a batch."""
    return map_tensors(lambda tensor: tensor.to(device, copy=copy), batch)


def describe(batch: Any) -> str:
    """Say in a few words what a batch holds."""
    shapes = [f"{str(t.dtype).removeprefix('torch.')}{tuple(t.shape)}" for t in tensors_in(batch)]
    return ", ".join(shapes[:4]) if shapes else type(batch).__name__


def batch_size(batch: Any) -> int:
    """Return the number of samples: the first axis of the first tensor that has one."""
    for tensor in tensors_in(batch):
        if tensor.ndim:
            return tensor.shape[0]
    raise DataError(f"data: expected batches that hold tensors, got {type(batch).__name__}; check the loader")


def divisible(batch: Any) -> bool:
    """Return whether samples can be taken out: every tensor has the batch's first axis, and none stands in an inner list."""
    n = batch_size(batch)
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    lists = any(isinstance(part, list) for part in parts) and isinstance(batch, (tuple, list))
    return not lists and all(tensor.ndim and tensor.shape[0] == n for tensor in tensors_in(batch))


def take_samples(batch: Any, index: slice | Tensor) -> Any:
    """Return some samples of a batch: every tensor whose first axis is the batch's."""
    n = batch_size(batch)
    return map_tensors(lambda t: t[index] if t.ndim and t.shape[0] == n else t, batch)


def read_batches(data: Iterable[Any], *, argument: str = "data", max_batches: int | None = None) -> Iterator[Any]:
    """Yield at most `max_batches` batches; raise `DataError` for what is no iterable of batches, or empty."""
    if isinstance(data, (Tensor, str, bytes, Mapping)) or not hasattr(data, "__iter__"):
        raise DataError(
            f"{argument}: expected an iterable of batches, such as a DataLoader or a list, got {type(data).__name__}; "
            f"wrap a single batch in a list"
        )
    if max_batches is not None and max_batches < 1:
        raise DataError(f"max_batches must be at least 1, got {max_batches}")
    count = 0
    for batch in data:
        if batch_size(batch) == 0:
            continue
        yield batch
        count += 1
        if count == max_batches:
            return
    if not count:
        raise DataError(f"{argument}: expected at least one batch with a sample, got none; check the loader's length")


def join_batches(first: Any, second: Any) -> Any | None:
    """Return two batches as one, or None where their forms differ (padded lengths, other keys, no common first axis)."""
    return _joined(first, second) if divisible(first) and divisible(second) else None


def _joined(first: Any, second: Any) -> Any | None:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        fits = first.ndim and first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
        return torch.cat([first, second]) if fits and first.device == second.device else None
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        items = {key: _joined(first[key], second[key]) for key in first}
        return None if any(item is None for item in items.values()) else items
    if isinstance(first, (tuple, list)) and type(first) is type(second) and len(first) == len(second):
        parts = [_joined(a, b) for a, b in zip(first, second, strict=True)]
        if any(part is None for part in parts):
            return None
        whole: Any = type(first)
        return whole(*parts) if hasattr(first, "_fields") else whole(parts)
    return None
