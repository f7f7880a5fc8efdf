"""What happens in a forward pass, written down step by step, from a symbolic trace or from a real run.

A step is a leaf module, an operator or an input; modules that only arrange others are looked through.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from normwise.layers.affine import AffineNorm
from normwise.layers.graph_batch_norm import GraphBatchNorm
from normwise.layers.pair_norm import PairNorm
from normwise.models.batch import tensors_in
from normwise.models.preserve import preserved, preserved_random_state
from normwise.models.walk import norm_layers

# What a model's Python code raises when it is run on proxies instead of tensors.
_TRACE_ERRORS = (
    TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, AssertionError, KeyError, IndexError,
    NameError, RecursionError, ZeroDivisionError,
)  # fmt: skip
_GETTERS = frozenset(
    "size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex get_device "
    "element_size storage_offset __len__ __hash__ __repr__ __format__".split()
)
_VALUE_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})


OURS = (AffineNorm, GraphBatchNorm, PairNorm)  # which look at their input: no symbol passes through them


@dataclass
class Step:
    """One operation of a forward pass: the steps it reads, and the module or the functional norm it is."""

    inputs: list[int] = field(default_factory=list)
    module: str | None = None
    norm: str | None = None


@dataclass
class Flow:
    """The steps of one pass, in order; the uses of a module's own tensors from outside it; entries of modules."""

    steps: list[Step] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    entered: dict[str, int] = field(default_factory=dict)

    def add(self, step: Step) -> int:
        """Append a step and return its index."""
        self.steps.append(step)
        return len(self.steps) - 1


def flow_of_graph(model: nn.Module, *, training: bool = False) -> Flow | None:
    """Trace a copy of the model symbolically, in evaluation or training; None where its Python code does not allow it."""
    tracer = _Tracer()
    try:
        with preserved_random_state():
            traced = copy.deepcopy(model).train(training)
            graph = tracer.trace(traced, _fixed_arguments(traced))
    except _TRACE_ERRORS:
        return None
    return _flow_of_nodes(traced, graph, tracer.entered)


def flow_of_run(model: nn.Module, run: Callable[[], Any], *, training: bool = False) -> Flow:
    """Follow tensors through one call of `run`, which runs the model once; the model is as before afterwards."""
    watch = _Watch(model)
    with preserved(model), torch.no_grad():
        model.train(training)
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(watch.enter, name), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(watch.leave, name), always_call=True))
        try:
            with watch:
                run()
        finally:
            for handle in handles:
                handle.remove()
    return watch.flow


def _is_leaf(module: nn.Module) -> bool:
    """Return whether a module is one step: torch's own, ours, or the owner of tensors with no such module inside it."""
    if isinstance(module, OURS):
        return True
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential):
        return not isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.DataParallel))
    inside = (child for child in module.modules() if child is not module)
    return bool(_own_tensors(module)) and not any(_own_tensors(child) for child in inside)


def _own_tensors(module: nn.Module) -> list[Tensor]:
    return [t for table in (module._parameters, module._buffers) for t in table.values() if t is not None]


def _owners(model: nn.Module) -> dict[int, str]:
    """Map the id of every parameter and buffer of a leaf to the first one that holds it."""
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        for tensor in _own_tensors(module) if _is_leaf(module) else ():
            owners.setdefault(id(tensor), name)
    return owners


def _norms_by_buffer(model: nn.Module) -> dict[int, str]:
    return {id(layer.running_mean): layer.name for layer in norm_layers(model) if layer.running_mean is not None}


class _Tracer(fx.Tracer):
    """Stops at leaves and counts how often each module is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._names = {id(t): name for name, t in [*root.named_parameters(), *root.named_buffers()]}
        return super().trace(root, concrete_args)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Make every parameter and buffer that Python code touches a node, so that its readers are known."""
        name = self._names.get(id(attr_val))
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        self.entered[name] = self.entered.get(name, 0) + 1
        return super().call_module(m, forward, args, kwargs)


def _fixed_arguments(model: nn.Module) -> dict[str, Any] | None:
    """Return the simple defaults of forward's arguments, so that a trace takes the branches a plain call takes."""
    parameters = inspect.signature(model.forward).parameters.values()
    fixed = {p.name: p.default for p in parameters if p.default is None or isinstance(p.default, (bool, int, float))}
    return fixed or None


def _flow_of_nodes(traced: nn.Module, graph: fx.Graph, entered: dict[str, int]) -> Flow:
    flow, index_of = Flow(entered=entered), {}
    owners, norms = _owners(traced), _norms_by_buffer(traced)
    for node in graph.nodes:
        if node.op == "get_attr" or _node_reads_no_values(node):
            continue
        inputs = [index_of[source] for source in node.all_input_nodes if source in index_of]
        step = Step(inputs, module=node.target if node.op == "call_module" else None)
        held = [_attribute(traced, source.target) for source in node.all_input_nodes if source.op == "get_attr"]
        if node.target in (functional.batch_norm, torch.batch_norm):
            step.norm = next((norms[id(t)] for t in held if id(t) in norms), None)
        _count_outside(flow, step, {owners[id(t)] for t in held if id(t) in owners})
        index_of[node] = flow.add(step)
    return flow


def _node_reads_no_values(node: fx.Node) -> bool:
    if node.target is getattr:
        return node.args[1] not in _VALUE_PROPERTIES
    if node.op == "call_method":
        return node.target in _GETTERS
    return node.op == "call_function" and getattr(node.target, "__name__", "") in (*_GETTERS, "len")


def _count_outside(flow: Flow, step: Step, owners: Iterable[str]) -> None:
    """Note that an operation reads tensors that belong to modules, other than a norm reading its own."""
    for owner in owners:
        if owner not in (step.norm, step.module):
            flow.outside[owner] = flow.outside.get(owner, 0) + 1


def _attribute(root: nn.Module, path: Any) -> Any:
    value: Any = root
    for part in str(path).split("."):
        value = getattr(value, part)
    return value


class _Watch(TorchFunctionMode):
    """Writes down the steps of a real pass; tensors are known by identity and not kept alive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flow = Flow()
        self.origin = WeakTensorKeyDictionary()
        self.owners, self.held = _owners(model), {id(t) for m in model.modules() for t in _own_tensors(m)}
        self.leaves = {name for name, module in model.named_modules() if name and _is_leaf(module)}
        self.norms = _norms_by_buffer(model)
        self.inside: list[tuple[str, int]] = []

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not name and not self.inside:
            self.flow.steps.clear()
            self.flow.outside.clear()
            self.flow.entered.clear()
            self.origin.clear()
        if not self._in_leaf():
            self.flow.entered[name] = self.flow.entered.get(name, 0) + 1
        leaf = name in self.leaves and not self._in_leaf()
        step = self.flow.add(Step(self._sources((args, kwargs)), module=name)) if leaf else -1
        self.inside.append((name, step))

    def leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        _, step = self.inside.pop()
        if step >= 0:
            self._produce(step, output)
        elif not name:
            self.flow.add(Step(self._sources(output)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._in_leaf() or _reads_no_values(func):
            return result
        tensors = list(tensors_in((args, kwargs)))
        step = Step(self._sources(tensors))
        if func in (functional.batch_norm, torch.batch_norm):
            step.norm = next((self.norms[id(t)] for t in tensors if id(t) in self.norms), None)
        _count_outside(self.flow, step, {self.owners[id(t)] for t in tensors if id(t) in self.owners})
        changed = args[0] if getattr(func, "__name__", "") == "__setitem__" else result
        self._produce(self.flow.add(step), changed)
        return result

    def _in_leaf(self) -> bool:
        return any(step >= 0 for _, step in self.inside)

    def _sources(self, value: Any) -> list[int]:
        """Return the steps that made the tensors in `value`, in order; a tensor from outside is a step too."""
        return list(dict.fromkeys(self._source(tensor) for tensor in self._activations(value)))

    def _source(self, tensor: Tensor) -> int:
        if tensor not in self.origin:
            self.origin[tensor] = self.flow.add(Step())
        return self.origin[tensor]

    def _activations(self, value: Any) -> Iterator[Tensor]:
        return (tensor for tensor in tensors_in(value) if id(tensor) not in self.held)

    def _produce(self, step: int, value: Any) -> None:
        for tensor in self._activations(value):
            self.origin[tensor] = step


def _reads_no_values(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") not in _VALUE_PROPERTIES
    return name in _GETTERS
