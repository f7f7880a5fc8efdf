"""Running a model batch by batch with statistics pooled over all of the batches.

Every use of a norm that normalises by batch statistics is met where it happens: our own layers at
`RunningNorm.normalise`, everything else at torch's `batch_norm`, functional use included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normwise.core.grouping import Cells, Channelwise, Grouping, canonical
from normwise.core.moments import Moments
from normwise.core.normalize import Activation
from normwise.core.passes import Coefficients
from normwise.core.standardise import Standardise
from normwise.errors import ModelError
from normwise.layers.base import RunningNorm
from normwise.layers.ghost import GhostBatchNorm
from normwise.layers.renorm import BatchRenorm
from normwise.models.lineage import Lineage
from normwise.models.observe import BatchNormMode
from normwise.models.pooled import Call, Use, follow_ours, follow_torch
from normwise.models.walk import norm_layers

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class Reached(BaseException):
    """Ends a pass at the use it was to measure; not an `Exception`, so that no model catches it."""

    def __init__(self, moments: Moments) -> None:
        """Carry the moments of this batch there."""
        super().__init__()
        self.moments = moments


class Pooling(BatchNormMode):
    """Meets every use of batch statistics in a pass. The first one is a scout: it finds the uses, by its own statistics."""

    def __init__(self, names: dict[int, str]) -> None:
        """Know the names of layers by the id of their running mean."""
        super().__init__()
        self.uses: list[Use] = []
        self.lineage = Lineage()
        self._names, self._stop, self._scouting, self._differentiating = names, None, False, False

    @contextmanager
    def one_pass(self, *, scout: bool = False, stop: int | None = None) -> Generator[None]:
        """Meet the uses of one pass; with `stop`, raise `Reached` at that use instead of normalising there."""
        self._stop, self._scouting, self.lineage = stop, scout, Lineage()
        with self:
            yield

    def differentiate(self, loss: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the gradients of a loss, with those through the pooled statistics as far as they are known."""
        self._differentiating = True
        try:
            return torch.autograd.grad(loss, leaves, allow_unused=True)
        finally:
            self._differentiating = False

    def batch_norm(self, call: Callable[[], Tensor], given: dict[str, Any]) -> Tensor:
        """Meet torch's operator."""
        if not given.get("training", False):
            return call()
        x, mean, variance = given["input"], given.get("running_mean"), given.get("running_var")
        follow = None
        if mean is not None and variance is not None:
            follow = partial(follow_torch, mean, variance, given.get("momentum", 0.1))
        name = self._names.get(id(mean), f"batch_norm of {x.shape[1]} channels")
        coefficients = Standardise(given.get("eps", 1e-5))
        parameters = given.get("weight"), given.get("bias")
        return self._meet(Call(name, canonical(x), Cells(), coefficients, parameters, follow)).view_as(x)

    def normalise(
        self,
        name: str,
        module: RunningNorm,
        x: Tensor,
        grouping: Grouping,
        coefficients: Coefficients,
        *parameters: Tensor | None,
        residual: Tensor | None = None,
        activation: Activation | None = None,
    ) -> Tensor:
        """Stand in for `RunningNorm.normalise`."""
        if not module.uses_batch_statistics():
            return RunningNorm.normalise(
                module, x, grouping, coefficients, *parameters, residual=residual, activation=activation
            )
        if self._scouting and isinstance(module, BatchRenorm) and any(use.name == name for use in self.uses):
            raise ModelError(
                f"model: layer '{name}' corrects towards running statistics and is used twice in a pass, which cannot be "
                "pooled; give each place a layer of its own"
            )
        values = canonical(x)
        call = Call(
            name, values, grouping.cells(values), coefficients, parameters,
            follow=partial(follow_ours, module) if module.updates_statistics() else None,
            by_group=module.groups is not None,
            residual=None if residual is None else canonical(residual), activation=activation,
        )  # fmt: skip
        return self._meet(call).view_as(x)

    def with_torch(self, name: str, module: RunningNorm, x: Tensor) -> Tensor:
        """Stand in for `RunningNorm.with_torch`."""
        if not module.uses_batch_statistics():
            return RunningNorm.with_torch(module, x)
        coefficients = Standardise(module.eps)
        return self.normalise(name, module, x, Channelwise(), coefficients, module.weight, module.bias)

    def differs(self, name: str) -> ModelError:
        """Return the error for batches that take different ways through the model."""
        return ModelError(
            f"model: every micro-batch must use the same norms in the same order, and some differ at layer '{name}'; "
            "what each would be pooled with is not defined"
        )

    def _meet(self, call: Call) -> Tensor:
        place = len(self.lineage.nodes)
        if self._scouting:
            if _checkpointed():
                raise ModelError(
                    f"model: layer '{call.name}' runs under activation checkpointing, which cannot be pooled; take it off "
                    "and use smaller micro-batches instead"
                )
            self.uses.append(Use(call.name, call.follow, call.measure()))
        if place >= len(self.uses) or self.uses[place].name != call.name:
            raise self.differs(call.name)
        if place == self._stop:
            raise Reached(call.measure())
        y = self.uses[place].normalise(call, lambda: self._differentiating)
        self.lineage.add(call.x, y)
        return y


@contextmanager
def pooling(model: nn.Module) -> Generator[Pooling]:
    """Prepare a model for passes under the pooling this yields; raise `ModelError` for what cannot be pooled.

    What is compiled runs as it is written inside the block (from torch 2.6), where norms can be met.
    """
    layers = [(layer, layer.running_mean) for layer in norm_layers(model)]
    modules = [(name or type(module).__name__, module) for name, module in model.named_modules()]
    for name, module in modules:
        _check(name, module)
    pool = Pooling({id(mean): layer.name or type(model).__name__ for layer, mean in layers if mean is not None})
    ours = [(name, module) for name, module in modules if isinstance(module, RunningNorm)]
    for name, module in ours:
        vars(module)["normalise"] = partial(pool.normalise, name, module)
        vars(module)["with_torch"] = partial(pool.with_torch, name, module)
    try:
        with _eagerly():
            yield pool
    finally:
        pool.lineage = Lineage()  # the graph of the last pass, which knows of the pool, would keep itself
        for _, module in ours:
            del vars(module)["normalise"], vars(module)["with_torch"]


def _check(name: str, module: nn.Module) -> None:
    """Raise `ModelError` for a module whose batch statistics, in its present mode, cannot be pooled."""
    if isinstance(module, _PARALLEL):
        raise ModelError(f"model: expected a model without {type(module).__name__}; pass what it wraps, model.module")
    if isinstance(module, nn.SyncBatchNorm) and module.training:
        raise ModelError(
            f"model: layer '{name}' is an nn.SyncBatchNorm, whose statistics over processes cannot be pooled over "
            "micro-batches; normwise.convert(model, 'normwise') gives layers whose can"
        )
    if not isinstance(module, RunningNorm):
        return
    if isinstance(module, GhostBatchNorm) and module.uses_batch_statistics():
        raise ModelError(
            f"model: layer '{name}' is a GhostBatchNorm, which normalises parts of a batch; it needs no pooling, call "
            "backward for each micro-batch"
        )
    if module.updates_statistics() and not module.uses_batch_statistics():
        raise ModelError(
            f"model: layer '{name}' tracks batch statistics without normalising by them, which cannot be pooled; freeze "
            "it, or give it the default policy"
        )


def _eagerly() -> AbstractContextManager[Any]:
    loaded = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


def _checkpointed() -> bool:
    """Return whether the caller runs inside `torch.utils.checkpoint`, which runs it again in the backward pass."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "torch.utils.checkpoint":
        frame = frame.f_back
    return frame is not None
