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


@contextmanager
def preserved(model: nn.Module) -> Generator[None]:
    """Restore parameters, gradients, buffers, modes, requires_grad, hooks, attributes and random states, on errors too.

    The same tensor objects come back, with their values; costs one copy of the weights.
    """
    modules = list(model.modules())
    attributes = [(vars(module), dict(vars(module))) for module in modules]  # modes and whatever forward keeps
    tables = [(t, dict(t)) for module in modules for t in (module._parameters, module._buffers)]
    children = [(module._modules, dict(module._modules)) for module in modules]
    hooks = [(getattr(module, name), dict(getattr(module, name))) for module in modules for name in _HOOKS]
    tensors = {id(t): t for _, copy in tables for t in copy.values() if t is not None}
    values = {key: t.detach().clone() for key, t in tensors.items() if not is_lazy(t)}
    needs = {key: t.requires_grad for key, t in tensors.items()}
    gradients = {key: (t.grad, None if t.grad is None else t.grad.clone()) for key, t in tensors.items() if t.is_leaf}
    with preserved_random_state():
        try:
            yield
        finally:
            for table, copy in [*attributes, *tables, *children, *hooks]:
                table.clear()
                table.update(copy)
            with torch.no_grad():
                for key, tensor in tensors.items():
                    if key in values:
                        _put_back(tensor, values[key])
            for key, tensor in tensors.items():
                if tensor.is_leaf and tensor.requires_grad != needs[key]:
                    tensor.requires_grad_(needs[key])
            for key, (gradient, value) in gradients.items():
                if gradient is not None and value is not None:
                    with torch.no_grad():
                        _put_back(gradient, value)
                tensors[key].grad = gradient


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
