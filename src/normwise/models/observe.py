"""Running a model while watching, and if wanted replacing, the statistics each of its norms uses.

The model stays in evaluation mode throughout: dropout is untouched, nothing is updated, and a batch's own statistics
are used by handing them to the layer as if they were its running ones. Layers that call torch's `batch_norm` (whatever
class they live in, functional use included) are met at that call; look-alikes with arithmetic of their own are met at
the module's input, and their buffers filled for the length of the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from normwise.core.grouping import Cells, canonical
from normwise.core.kernels import reference
from normwise.core.moments import Moments
from normwise.layers.base import RunningNorm
from normwise.models.walk import NormLayer, grouped_layers, norm_layers

Statistics = tuple[Tensor, Tensor]  # mean and population variance, (c,); (g * c,) for one of our layers by group
_TORCH_ARGUMENTS = {
    functional.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
}


@dataclass(frozen=True, eq=False)
class NormCall:
    """One use of a norm in a forward pass: the layer, its input `(n, c, *)`, and its earlier uses in this pass.

    cells: what the values of x share, where the layer is ours and says so.
    """

    layer: NormLayer
    x: Tensor
    index: int
    cells: Cells | None = None

    def sample_moments(self) -> Moments:
        """Measure the input sample by sample, tables `(n, c)`, at valid positions only."""
        values = canonical(self.x.detach())
        mask = None if self.cells is None else self.cells.mask
        with torch.no_grad():
            if mask is None:
                return reference.reduce_samples(values)
            return reference.reduce(
                values, Cells(len(values), torch.arange(len(values), device=values.device), mask=mask)
            )

    def group_moments(self) -> Moments | None:
        """Measure a layer that keeps statistics by group (domain, step), tables `(g, c)`; None for any other."""
        module = self.layer.module
        if self.cells is None or not isinstance(module, RunningNorm) or module.groups is None:
            return None
        with torch.no_grad():
            first = module.summarise(reference.reduce(canonical(self.x.detach()), self.cells))
        absent = first.mean.new_zeros(module.groups - len(first.mean), module.num_features)
        return Moments.cat([first, Moments(absent[:, :1], absent, absent)])


Visit = Callable[[NormCall], Statistics | None]


@dataclass(eq=False)
class _Open:
    """A norm module being executed: whether its input was visited, and what its filled buffers held before.

    seen: what one of our own layers said of its values.
    """

    layer: NormLayer
    visited: bool = False
    before: Statistics | None = None
    seen: tuple[Tensor, Cells] | None = None

    def see(self, x: Tensor, cells: Cells) -> None:
        """Take what the layer says."""
        self.seen = x, cells


class BatchNormMode(TorchFunctionMode, ABC):
    """Abstract: meets every call of torch's `batch_norm`, in either spelling, and lets everything else through."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand calls of `batch_norm` to the method of that name."""
        kwargs = kwargs or {}
        names = _TORCH_ARGUMENTS.get(func)
        if names is None:
            return func(*args, **kwargs)
        return self.batch_norm(partial(func, *args, **kwargs), dict(zip(names, args, strict=False)) | kwargs)

    @abstractmethod
    def batch_norm(self, call: Callable[[], Tensor], given: dict[str, Any]) -> Tensor:
        """Return the result of a call whose arguments, by name, are `given`."""


class Watch(BatchNormMode):
    """Meets every use of a norm; `begin_pass` before each batch restarts the count of uses."""

    def __init__(self, visit: Visit, layers: list[NormLayer]) -> None:
        """Watch these layers."""
        super().__init__()
        self._visit = visit
        self._by_buffer = {id(layer.running_mean): layer for layer in layers if layer.running_mean is not None}
        self._uses: dict[int, int] = {}
        self._open: list[_Open] = []
        self._own_arithmetic: set[int] = set()
        self._busy = False

    def begin_pass(self) -> None:
        """Forget the uses counted so far."""
        self._uses.clear()

    def batch_norm(self, call: Callable[[], Tensor], given: dict[str, Any]) -> Tensor:
        """Use the statistics the visit returns, if any."""
        if self._busy:
            return call()
        layer = self._by_buffer.get(id(given.get("running_mean")))
        opened = self._open[-1] if self._open else None
        if layer is None and opened is not None and opened.layer.statistics is None:
            layer = opened.layer
        if layer is None or (opened is not None and opened.visited and opened.layer is layer):
            return call()
        for entry in self._open:
            entry.visited = entry.visited or entry.layer is layer
        statistics = self._ask(layer, given["input"])
        if statistics is None:
            return call()
        weight = given.get("weight")
        dtype = given["input"].dtype if weight is None else weight.dtype
        mean, variance = (table.to(dtype) for table in statistics)
        return functional.batch_norm(
            given["input"], mean, variance, weight, given.get("bias"), training=False, eps=given.get("eps", 1e-5)
        )

    def enter(self, layer: NormLayer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start a norm module; fill its buffers now if it is known to do its own arithmetic."""
        opened = _Open(layer)
        self._open.append(opened)
        if isinstance(module, RunningNorm):
            module.observer = opened.see
        elif id(module) in self._own_arithmetic:
            self._fill(opened, args, kwargs)

    def leave(
        self, layer: NormLayer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """End a norm module; one that turned out to do its own arithmetic is run once more with filled buffers."""
        opened = self._open[-1]
        if not opened.visited and layer.statistics is not None:
            self._own_arithmetic.add(id(module))
            self._fill(opened, args, kwargs)
            if opened.before is not None:
                output = module.forward(*args, **kwargs)
        self._close()
        return output

    def restore(self) -> None:
        """Put back what an exception left filled."""
        while self._open:
            self._close()

    def _close(self) -> None:
        opened = self._open.pop()
        if isinstance(opened.layer.module, RunningNorm):
            opened.layer.module.observer = None
        if opened.before is not None:
            _write(opened.layer, opened.before)

    def _fill(self, opened: _Open, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        opened.visited = True
        layer, x = opened.layer, args[0] if args else next(iter(kwargs.values()), None)
        x, cells = (x, None) if opened.seen is None else opened.seen
        if not isinstance(x, Tensor) or x.ndim <= 1 or (cells is None and x.shape[1] != layer.channels):
            return
        statistics = self._ask(layer, x, cells)
        if statistics is not None and layer.running_mean is not None and layer.running_var is not None:
            opened.before = (layer.running_mean.detach().clone(), layer.running_var.detach().clone())
            _write(layer, statistics)

    def _ask(self, layer: NormLayer, x: Tensor, cells: Cells | None = None) -> Statistics | None:
        index = self._uses.get(id(layer.module), 0)
        self._uses[id(layer.module)] = index + 1
        self._busy = True
        try:
            return self._visit(NormCall(layer, x, index, cells))
        finally:
            self._busy = False


@contextmanager
def observing(model: nn.Module, visit: Visit, *, grouped: bool = False) -> Generator[Watch]:
    """Put the model into evaluation mode and call `visit` at every use of a norm, those by group only if asked to.

    The statistics `visit` returns, if any, are used in place of the running ones. The caller preserves the model
    (`preserved`) and chooses grad mode.
    """
    model.eval()
    layers = [layer for layer in norm_layers(model) if not layer.per_sample]
    layers += grouped_layers(model) if grouped else []
    watch = Watch(visit, layers)
    with ExitStack() as stack:
        for layer in layers:
            before = layer.module.register_forward_pre_hook(partial(watch.enter, layer), with_kwargs=True)
            stack.callback(before.remove)
            after = layer.module.register_forward_hook(partial(watch.leave, layer), with_kwargs=True)
            stack.callback(after.remove)
        stack.callback(watch.restore)
        yield stack.enter_context(watch)


def _write(layer: NormLayer, statistics: Statistics) -> None:
    with torch.no_grad():
        if layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(statistics[0])
            layer.running_var.copy_(statistics[1])
