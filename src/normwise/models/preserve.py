"""Putting a user's model back bit for bit, whatever happened in between."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


@contextmanager
def preserved(model: nn.Module) -> Generator[None]:
    """Restore parameters, gradients, buffers, modes, requires_grad, hooks and random states on leaving, on errors too.

    The same tensor objects come back, with their values; costs one copy of the weights.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    tables = [(table, dict(table)) for module in modules for table in (module._parameters, module._buffers)]
    hooks = [(getattr(module, name), dict(getattr(module, name))) for module in modules for name in _HOOKS]
    tensors = {id(t): t for _, copy in tables for t in copy.values() if t is not None}
    values = {key: t.detach().clone() for key, t in tensors.items() if not _lazy(t)}
    needs = {key: t.requires_grad for key, t in tensors.items()}
    gradients = {key: (t.grad, None if t.grad is None else t.grad.clone()) for key, t in tensors.items() if t.is_leaf}
    with preserved_random_state():
        try:
            yield
        finally:
            for table, copy in [*tables, *hooks]:
                table.clear()
                table.update(copy)
            with torch.no_grad():
                for key, tensor in tensors.items():
                    if key in values:
                        _put_back(tensor, values[key])
            for key, tensor in tensors.items():
                if tensor.is_leaf:
                    tensor.requires_grad_(needs[key])
            for key, (gradient, value) in gradients.items():
                if gradient is not None and value is not None:
                    with torch.no_grad():
                        _put_back(gradient, value)
                tensors[key].grad = gradient
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


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
    if (tensor.shape, tensor.dtype, tensor.device) == (value.shape, value.dtype, value.device):
        tensor.copy_(value)
    else:
        tensor.data = value


def _lazy(tensor: Tensor) -> bool:
    return isinstance(tensor, (nn.UninitializedBuffer, nn.UninitializedParameter))
