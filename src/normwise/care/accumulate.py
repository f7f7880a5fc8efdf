"""Gradient accumulation with the batch normalization of the whole batch."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.core.moments import Moments
from normwise.errors import DataError, ModelError
from normwise.models.batch import read_batches
from normwise.models.pooling import Pooling, Reached, Wiring, leaves_of, pooling
from normwise.models.preserve import Snapshot, preserved_random_state
from normwise.models.task import Task
from normwise.models.walk import norm_layers


def accumulate(model: nn.Module, micro_batches: Iterable[Any], *, task: Task | None = None) -> Tensor:
    r"""Do to `parameter.grad` and the running statistics what ONE batch of all micro-batches would; return its loss.

    ...
    """
    batches = list(read_batches(micro_batches, argument="micro_batches"))
    with preserved_random_state(), pooling(model) as pool, ExitStack() as undo:
        step = _Step(model, batches, task or Task(), pool)
        undo.callback(step.snapshot.restore)
        gradients, loss = step.run()
        undo.pop_all()
    for use in pool.uses:
        if use.follow is not None:
            use.follow(use.moments.detach())
    for leaf, gradient in gradients.items():
        leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
    _draw_seeds(len(batches))  # as this step has done: the next one draws others
    return loss
