"""Gradient accumulation with the batch normalization of the whole batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwise.core.moments import Moments
from normwise.errors import DataError, ModelError
from normwise.models.batch import describe, read_batches
from normwise.models.lineage import leaves_of
from normwise.models.pooled import Use
from normwise.models.pooling import Pooling, Reached, pooling
from normwise.models.preserve import Snapshot, preserved_random_state
from normwise.models.task import Task
from normwise.models.walk import norm_layers


def accumulate(model: nn.Module, micro_batches: Iterable[Any], *, task: Task | None = None) -> Tensor:
    r"""Do what `loss.backward()` on ONE batch of all micro-batches does, with the activations of one at a time.

    .. math:: \frac{\partial L}{\partial \theta} = \sum_i \frac{\partial}{\partial \theta} \Big( L_i + \sum_k
       \Big\langle \frac{\partial L}{\partial s_k}, s_k(x_k^i) \Big\rangle \Big)

    with :math:`L_i` at fixed statistics and :math:`s_k` the mean and variance of norm k over all micro-batches: first
    each :math:`s_k` is measured, then the gradient by each is found, then both are used. Equal to the whole batch's up
    to rounding: `parameter.grad` (added to), running statistics and their counters (one step), and the loss returned,
    the mean over all samples, detached. Nothing is approximate.

    It costs passes, not memory. With F and B a forward and a backward pass over all micro-batches, K uses of batch
    statistics in a forward pass and D of them behind each other with something to learn below (D <= K), it is about

        K/2 F  (the statistics: pass k ends at norm k)  +  D (F + B/2)  (their gradients)  +  F + B

    instead of F + B. Memory: one micro-batch's activations, and a copy of the weights, and two of the gradients.

    micro_batches: any iterable, read once and kept; sizes may differ, samples count equally. task: as everywhere; its
    loss gives one value a sample (`reduction="none"`). The model trains or not as its modes say: norms in evaluation
    mode or frozen, and norms within a sample (layer, group, instance), are left to themselves.

    Random numbers: each micro-batch draws the same ones in all its passes, so that dropout is that of a whole batch with
    those masks. Other buffers, spectral norm's say: every pass starts from their present values, and they end as the
    last micro-batch leaves them, after one forward pass. On an exception nothing has changed: gradients of the model,
    buffers, modes, random states. Hooks on parameters see the gradient of each micro-batch.

    Our own layers are pooled as they group, by channel, domain or step. What else has batch statistics of its own
    without torch's `batch_norm` and without running statistics is not recognised.

    Raises: `DataError` for micro-batches that do not run or without a loss; `ShapeError` for one value a channel in all;
    `ModelError` naming the layer for what cannot be pooled: SyncBatchNorm, GhostBatchNorm, look-alikes with arithmetic
    of their own, a wrapper for several devices, activation checkpointing, gradients taken inside the forward pass,
    micro-batches that use different norms, a model that gives another loss when it is run again.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    >>> x, y = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    >>> accumulate(model, zip(x.split(2), y.split(2))).shape, int(model[1].num_batches_tracked)
    (torch.Size([]), 1)

    Reference: Ioffe and Szegedy 2015, "Batch Normalization", section 3, whose gradients through mean and variance are
    sums over the batch and can be taken in parts.
    """
    batches = list(read_batches(micro_batches, argument="micro_batches"))
    with preserved_random_state(), pooling(model) as pool, ExitStack() as undo:
        snapshot = Snapshot(model)
        undo.callback(snapshot.restore)
        loss, gradients = _Step(model, batches, task or Task(), pool, snapshot).run()
        undo.pop_all()  # all went well: the model stays as the last pass has left it
    for use in pool.uses:
        if use.follow is not None:
            use.follow(use.moments.detach())
    for leaf, gradient in gradients.items():
        leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
    _draw_seeds(len(batches))  # as the step has done, so that the next one draws others
    return loss


class _Step:
    """The passes of one accumulation, every one of them from the same state of the model."""

    def __init__(self, model: nn.Module, batches: list[Any], task: Task, pool: Pooling, snapshot: Snapshot) -> None:
        self._model, self._batches, self._task, self._pool, self._snapshot = model, batches, task, pool, snapshot
        self._seeds = _draw_seeds(len(batches))
        self._losses: dict[int, Tensor] = {}
        self._lineage: list[tuple[set[int], bool] | None] = []

    def run(self) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """Return the mean loss, and its gradient by each leaf."""
        uses, sweeps = self._scout()
        for place, use in enumerate(uses):
            use.settle([self._measure(index, place) for index in range(len(self._batches))])
        for places in sweeps:
            found = self._sum_gradients([table for place in places for table in uses[place].tables])
            for place in places:
                mean, m2 = (found.get(table, torch.zeros_like(table)) for table in uses[place].tables)
                uses[place].gradient = mean, m2
        totals = self._sum_gradients()
        self._refuse_others()
        samples = sum(len(losses) for losses in self._losses.values())
        loss = torch.stack([losses.sum() for losses in self._losses.values()]).sum() / samples
        return loss, {leaf: total / samples for leaf, total in totals.items()}

    def _scout(self) -> tuple[list[Use], list[list[int]]]:
        """Run one micro-batch by its own statistics; return the uses, and which gradients to find in which sweep."""
        self._forward(0, scout=True)
        self._refuse_others()
        uses, lineage = self._pool.uses, self._pool.lineage
        self._lineage = [lineage.of(place) for place in range(len(uses))]
        for use, learns in zip(uses, lineage.learns, strict=True):
            use.learns = learns
        return uses, lineage.sweeps()

    def _measure(self, index: int, place: int) -> Moments:
        """Return the moments of one micro-batch at a use; the statistics of those before are known."""
        try:
            self._forward(index, stop=place)
        except Reached as reached:
            return reached.moments
        raise self._pool.differs(self._pool.uses[place].name)

    def _sum_gradients(self, tables: list[Tensor] | None = None) -> dict[Tensor, Tensor]:
        """Return the gradients of the summed loss by some tables of statistics, or by all leaves but these tables."""
        totals: dict[Tensor, Tensor] = {}
        for index in range(len(self._batches)):
            for leaf, gradient in self._differentiate(index, tables):
                totals[leaf] = gradient if leaf not in totals else totals[leaf] + gradient
        return totals

    def _differentiate(self, index: int, tables: list[Tensor] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield tables, or other leaves, and their gradients from one micro-batch."""
        losses = self._forward(index)
        self._refuse_differences(index, losses)
        leaves = tables or leaves_of(losses, apart=[table for use in self._pool.uses for table in use.tables])
        found = self._pool.differentiate(losses.sum(), leaves)
        yield from ((leaf, gradient) for leaf, gradient in zip(leaves, found, strict=True) if gradient is not None)

    def _forward(self, index: int, *, scout: bool = False, stop: int | None = None) -> Tensor:
        """Return the loss of each sample of a micro-batch; raise `Reached` at the use `stop`."""
        self._snapshot.restore()
        _seed(self._seeds[index])
        batch = self._batches[index]
        with torch.set_grad_enabled(stop is None), self._pool.one_pass(scout=scout, stop=stop):
            losses = self._task.losses(self._model, self._task.run(self._model, batch), batch)
        if losses is None or losses.ndim != 1:
            got = "none" if losses is None else f"shape {tuple(losses.shape)}"
            raise DataError(
                f"micro_batches: expected a loss for each sample, (n,), got {got} for {describe(batch)}; pass batches with "
                'labels, or a Task with such a loss (torch\'s have it with reduction="none")'
            )
        if stop is None and not losses.requires_grad:
            raise ModelError(
                "model: expected parameters that the loss depends on and that require a gradient, got none"
            )
        return losses

    def _refuse_others(self) -> None:
        """Raise `ModelError` if the pass has changed running statistics, which norms that are met leave to the end."""
        for layer in norm_layers(self._model):
            for name in layer.statistics or ():
                if self._snapshot.changed(getattr(layer.module, name)):
                    raise ModelError(
                        f"model: layer '{layer.name}' normalises by arithmetic of its own, {type(layer.module).__name__}, "
                        "and cannot be pooled; convert it, or freeze it"
                    )

    def _refuse_differences(self, index: int, losses: Tensor) -> None:
        """Raise `ModelError` if a micro-batch has gone another way than before."""
        for place, use in enumerate(self._pool.uses):
            if self._pool.lineage.of(place) != self._lineage[place]:
                raise self._pool.differs(use.name)
        losses = losses.detach()
        before = self._losses.setdefault(index, losses)
        tolerance = torch.finfo(losses.dtype).eps ** 0.5
        if not torch.allclose(losses, before, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ModelError(
                f"model: expected the same loss whenever micro-batch {index} is run, got {before.mean():.6g} and then "
                f"{losses.mean():.6g}; draw random numbers from the default generators of torch, numpy or random, which "
                "are seeded anew, and keep state in buffers or attributes, which are put back"
            )


def _draw_seeds(count: int) -> list[int]:
    return torch.randint(2**32, (count,)).tolist()


def _seed(seed: int) -> None:
    """Seed every generator that models draw from by default."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)
