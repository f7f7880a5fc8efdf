"""Putting a user's model back bit for bit, whatever happened in between."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from normwise.models.walk import is_lazy

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


class Snapshot:
    """Parameters, gradients, buffers, modes, requires_grad, hooks and attributes of a model, to be put back."""

    def __init__(self, model: nn.Module) -> None:
        """Take it: one copy of the weights, their gradients and the buffers."""
        modules = list(model.modules())
        attributes = [(vars(module), dict(vars(module))) for module in modules]  # modes and whatever forward keeps
        tables = [(t, dict(t)) for module in modules for t in (module._parameters, module._buffers)]
        children = [(module._modules, dict(module._modules)) for module in modules]
        hooks = [(getattr(module, name), dict(getattr(module, name))) for module in modules for name in _HOOKS]
        tensors = {id(t): t for _, copy in tables for t in copy.values() if t is not None}
        self._tables, self._tensors = [*attributes, *tables, *children, *hooks], tensors
        self._values = {key: t.detach().clone() for key, t in tensors.items() if not is_lazy(t)}
        self._needs = {key: t.requires_grad for key, t in tensors.items()}
        self._gradients = {
            key: (t.grad, None if t.grad is None else t.grad.clone()) for key, t in tensors.items() if t.is_leaf
        }

    def restore(self) -> None:
        """Put everything back, as often as wanted: the same tensor objects, with their values."""
        for table, copy in self._tables:
            table.clear()
            table.update(copy)
        with torch.no_grad():
            for key, tensor in self._tensors.items():
                if key in self._values:
                    _put_back(tensor, self._values[key])
        for key, tensor in self._tensors.items():
            if tensor.is_leaf and tensor.requires_grad != self._needs[key]:
                tensor.requires_grad_(self._needs[key])
        for key, (gradient, value) in self._gradients.items():
            if gradient is not None and value is not None:
                with torch.no_grad():
                    _put_back(gradient, value)
            self._tensors[key].grad = gradient

    def changed(self, tensor: Tensor) -> bool:
        """Return whether a parameter or buffer is no longer what it was, or has taken the place of another."""
        value = self._values.get(id(tensor))
        return value is None or not _same_bits(tensor, value)


@contextmanager
def preserved(model: nn.Module) -> Generator[None]:
    """Restore what a `Snapshot` holds, and the random states, on leaving, on errors too."""
    snapshot = Snapshot(model)
    with preserved_random_state():
        try:
            yield
        finally:
            snapshot.restore()


@contextmanager
def preserved_random_state() -> Generator[None]:
    """Restore the random states of torch (all devices in use), numpy and Python on leaving."""
    state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def _put_back(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor its old value, in place; its storage as well where it was moved to another dtype or device."""
    if (tensor.shape, tensor.dtype, tensor.device) != (value.shape, value.dtype, value.device):
        tensor.data = value
    elif not _same_bits(tensor, value):
        tensor.copy_(value)


def _same_bits(tensor: Tensor, value: Tensor) -> bool:
    """Compare bit for bit, -0.0 and NaN too: what is unchanged needs no write, and some tensors take none."""
    if not tensor.element_size() or tensor.is_complex() or tensor.is_quantized:
        return False
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return torch.equal(tensor.detach().contiguous().view(integer), value.contiguous().view(integer))
