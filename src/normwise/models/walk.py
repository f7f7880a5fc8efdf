"""The only walker over a user's model: finds normalization layers by what they hold and do, never by exact type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from normwise.errors import ModelError
from normwise.layers import GraphInstanceNorm
from normwise.layers.base import RunningNorm

# Names under which ports of other frameworks keep running mean and variance.
_STATISTICS = (("running_mean", "running_var"), ("moving_mean", "moving_variance"), ("moving_mean", "moving_var"))
_AFFINE = (("weight", "bias"), ("gamma", "beta"))
_PER_SAMPLE = (nn.modules.instancenorm._InstanceNorm, GraphInstanceNorm)


@dataclass(frozen=True, eq=False)
class NormLayer:
    """A batch-normalizing module and what is known of it. `name` is its first name in `named_modules()`."""

    name: str
    module: nn.Module
    statistics: tuple[str, str] | None
    affine: tuple[str, str] | None

    @property
    def running_mean(self) -> Tensor | None:
        """Running mean `(c,)`, or None where no statistics are tracked."""
        return None if self.statistics is None else _flat(getattr(self.module, self.statistics[0]))

    @property
    def running_var(self) -> Tensor | None:
        """Running variance `(c,)`, or None."""
        return None if self.statistics is None else _flat(getattr(self.module, self.statistics[1]))

    @property
    def weight(self) -> Tensor | None:
        """The affine's scale (parameter or buffer), or None."""
        return None if self.affine is None else getattr(self.module, self.affine[0], None)

    @property
    def bias(self) -> Tensor | None:
        """The affine's shift, or None."""
        return None if self.affine is None else getattr(self.module, self.affine[1], None)

    @property
    def eps(self) -> float | None:
        """The number added to the variance, where the module tells it."""
        eps = getattr(self.module, "eps", None)
        return None if eps is None else float(eps)

    @property
    def working_eps(self) -> float:
        """The module's eps, or torch's default where it tells none."""
        return 1e-5 if self.eps is None else self.eps

    @property
    def momentum(self) -> float | None:
        """The weight of a new batch; None for the cumulative average or where the module has none."""
        momentum = getattr(self.module, "momentum", None)
        return None if momentum is None else float(momentum)

    @property
    def updates(self) -> int | None:
        """How often the statistics were updated, where that is counted."""
        counter = getattr(self.module, "num_batches_tracked", None)
        return None if counter is None else int(counter)

    @property
    def channels(self) -> int | None:
        """Number of channels."""
        table = self.running_mean if self.running_mean is not None else self.weight
        return int(getattr(self.module, "num_features", 0)) or None if table is None else table.shape[-1]

    @property
    def per_sample(self) -> bool:
        """Whether its batch statistics are each sample's own (instance normalization)."""
        return isinstance(self.module, _PER_SAMPLE)

    @property
    def learns_statistics(self) -> bool:
        """Whether `train()` and a forward pass would change the running statistics."""
        if self.statistics is None or stays_in_eval(self.module):
            return False
        policy = getattr(self.module, "policy", None)
        if policy is not None:
            return bool(policy.update)
        return (hasattr(self.module, "momentum") or self.updates is not None) and self.momentum != 0.0


def stays_in_eval(module: nn.Module) -> bool:
    """Return whether a freeze keeps this module in evaluation mode through `train()`."""
    return "train" in vars(module)


def norm_layers(model: nn.Module) -> list[NormLayer]:
    """Return every batch-normalizing layer once, in the order of `named_modules()`; raise `ModelError` for a lazy one."""
    exported = isinstance(model, torch.fx.GraphModule) and stays_in_eval(model)  # torch.export takes train() away
    if isinstance(model, torch.jit.ScriptModule) or exported:
        raise ModelError(f"model: expected an eager module, got {type(model).__name__}; use the one it was made from")
    found = []
    for name, module in model.named_modules():
        statistics = next((pair for pair in _STATISTICS if _has_tables(module, pair)), None)
        untracked = isinstance(module, nn.modules.batchnorm._BatchNorm) or (
            getattr(module, "track_running_stats", None) is False and hasattr(module, "num_features")
        )
        if statistics is None and (not untracked or isinstance(module, _PER_SAMPLE)):
            continue
        if statistics is not None and is_lazy(getattr(module, statistics[0])):
            raise ModelError(
                f"model: layer '{name}' is lazy and has no shape yet; run one batch through the model first"
            )
        affine = next((pair for pair in _AFFINE if _channel_vector(module, pair[0])), None)
        found.append(NormLayer(name, module, statistics, affine))
    return found


def grouped_layers(model: nn.Module) -> list[NormLayer]:
    """Return our own layers that keep statistics by group (domain, step), which `norm_layers` leaves out.

    Their tables are `(g, c)`; `running_mean` and `running_var` of the result are flat.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, RunningNorm)]
    tables = ("running_mean", "running_var")
    return [NormLayer(n, m, tables, None) for n, m in found if m.groups is not None and m.running_mean is not None]


def norms_and(model: nn.Module, whole: Callable[[nn.Module], bool]) -> list[NormLayer]:
    """Return what `norm_layers` returns and the modules that `whole` names, each as one layer with all that is in it.

    Of a layer that only `whole` names, statistics and affine are unknown here: None.
    """
    found = {id(layer.module): layer for layer in norm_layers(model)}
    inside: set[int] = set()
    layers = []
    for name, module in model.named_modules():
        if id(module) in inside:
            continue
        if whole(module):
            inside.update(id(inner) for inner in module.modules())
            layers.append(found.get(id(module), NormLayer(name, module, None, None)))
        elif id(module) in found:
            layers.append(found[id(module)])
    return layers


def core(module: nn.Module) -> nn.Module:
    """Return the norm that PyG's `BatchNorm` and our `GraphBatchNorm` wrap as `module`; of all others themselves."""
    inner = module._modules.get("module")
    return inner if inner is not None and hasattr(module, "allow_single_element") else module


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every name under which a module is reachable."""
    return [name for name, other in model.named_modules(remove_duplicate=False) if other is module]


def require_norm_layers(model: nn.Module) -> list[NormLayer]:
    """Return the layers with running statistics; raise `ModelError` if there is none."""
    layers = [layer for layer in norm_layers(model) if layer.statistics is not None] + grouped_layers(model)
    if not layers:
        raise ModelError(
            f"model: expected layers with running statistics, found none in {type(model).__name__}; "
            "nothing to recalibrate or freeze"
        )
    return layers


def _has_tables(module: nn.Module, names: tuple[str, str]) -> bool:
    tables = [module._buffers.get(name, module._parameters.get(name)) for name in names]
    return all(isinstance(table, Tensor) and (is_lazy(table) or _is_vector(table)) for table in tables)


def is_lazy(table: Tensor) -> bool:
    """Return whether a parameter or buffer has no shape yet."""
    return isinstance(table, (nn.UninitializedBuffer, nn.UninitializedParameter))


def _is_vector(table: Tensor) -> bool:
    """Return whether there is one value a channel, in whatever shape it broadcasts from: `(c,)`, `(1, c, 1, 1)`."""
    return table.ndim > 0 and table.numel() == max(table.shape)


def _flat(table: Tensor) -> Tensor:
    return table if table.ndim == 1 else table.view(-1)


def _channel_vector(module: nn.Module, name: str) -> bool:
    table = module._parameters.get(name, module._buffers.get(name))
    return isinstance(table, Tensor) and not is_lazy(table) and table.ndim == 1


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
