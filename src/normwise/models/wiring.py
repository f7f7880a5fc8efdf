"""Who feeds whom: the convolution in front of each norm, what else reads its output, the dropout before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from normwise.models.flow import OURS, Flow, Step, flow_of_graph, flow_of_run
from normwise.models.walk import norm_layers


@dataclass(frozen=True)
class Feed:
    """What is known of one norm's surroundings.

    producer: the convolution or linear module, transposed ones included, whose output is exactly the norm's input;
    None for anything between them. sole: nothing else reads that output. calls, producer_calls: uses in one pass, of
    their tensors by others included. dropouts: modules with p > 0 upstream, no other norm between.
    functional: the norm is an operator inside a module that does more.
    """

    producer: str | None = None
    sole: bool = False
    calls: int = 0
    producer_calls: int = 0
    dropouts: tuple[str, ...] = ()
    functional: bool = False


@dataclass(frozen=True)
class Wiring:
    """The `Feed` of each norm by its name; an unknown name has an empty one.

    followers: of norms, by name, the module that alone reads the norm's output, and nothing else, where either is used
    once. joined: norms that take more than one tensor, such as a residual. known: False where nothing could be read.
    """

    feeds: dict[str, Feed] = field(default_factory=dict)
    followers: dict[str, str] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()
    known: bool = True

    def __getitem__(self, name: str) -> Feed:
        """Return what is known of the norm of that name."""
        return self.feeds.get(name, Feed())


def find_wiring(model: nn.Module, run: Callable[[], Any] | None = None, *, training: bool = False) -> Wiring:
    """Read the wiring from a symbolic trace, else from one call of `run`, else know nothing."""
    wiring = wiring_from_graph(model, training=training)
    if wiring is not None:
        return wiring
    return Wiring(known=False) if run is None else wiring_from_run(model, run, training=training)


def wiring_from_graph(model: nn.Module, *, training: bool = False) -> Wiring | None:
    """Read it from a symbolic trace, of evaluation or training; None where the model's Python code allows none."""
    flow = flow_of_graph(model, training=training)
    return None if flow is None else _read(model, flow)


def wiring_from_run(model: nn.Module, run: Callable[[], Any], *, training: bool = False) -> Wiring:
    """Read it from one call of `run`, which runs the model once, on tensors; the model is as before afterwards."""
    return _read(model, flow_of_run(model, run, training=training))


def _read(model: nn.Module, flow: Flow) -> Wiring:
    """Turn the steps of one pass into what is known of each norm."""
    modules = dict(model.named_modules())
    ours = [name for name, module in modules.items() if isinstance(module, OURS)]
    names = dict.fromkeys([*(layer.name for layer in norm_layers(model)), *ours])
    uses: dict[str, list[int]] = {}
    readers = [0] * len(flow.steps)
    for index, step in enumerate(flow.steps):
        for source in set(step.inputs):
            readers[source] += 1
        key = step.norm if step.norm is not None else step.module
        if key is not None:
            uses.setdefault(key, []).append(index)
    feeds, followers, joined = {}, {}, set[str]()
    for name in names:
        where = uses.get(name, [])
        feed = Feed(calls=(len(where) or flow.entered.get(name, 0)) + flow.outside.get(name, 0))
        if where:
            first = flow.steps[where[0]]
            producer = _producer(flow, modules, first)
            feed = Feed(
                producer=producer,
                sole=producer is not None and readers[first.inputs[0]] == 1,
                calls=feed.calls,
                producer_calls=0 if producer is None else len(uses[producer]) + flow.outside.get(producer, 0),
                dropouts=_dropouts(flow, modules, set(names), where[0]),
                functional=first.norm is not None,
            )
            follower = _follower(flow, uses, where[0], readers[where[0]]) if feed.calls == 1 else None
            if follower is not None:
                followers[name] = follower
            if any(len(flow.steps[index].inputs) > 1 for index in where):
                joined.add(name)
        feeds[name] = feed
    return Wiring(feeds, followers, frozenset(joined))


def _follower(flow: Flow, uses: dict[str, list[int]], index: int, readers: int) -> str | None:
    """Return the module that alone reads what a step produced, and nothing else, and is used for nothing else."""
    if flow.steps[index].norm is not None or readers != 1:
        return None
    reader = next(number for number, step in enumerate(flow.steps) if index in step.inputs)
    name, inputs = flow.steps[reader].module, flow.steps[reader].inputs
    alone = name is not None and len(inputs) == 1 and uses[name] == [reader] and not flow.outside.get(name, 0)
    return name if alone else None


def _producer(flow: Flow, modules: dict[str, nn.Module], step: Step) -> str | None:
    if len(step.inputs) != 1:
        return None
    source = flow.steps[step.inputs[0]].module
    return source if source is not None and isinstance(modules[source], (_ConvNd, nn.Linear)) else None


def _dropouts(flow: Flow, modules: dict[str, nn.Module], norms: set[str], start: int) -> tuple[str, ...]:
    """Return the active dropout modules upstream of a step, the nearest first, looking no further than other norms."""
    found: dict[str, None] = {}
    queue, seen = list(flow.steps[start].inputs), {start}
    while queue:
        index = queue.pop(0)
        if index in seen:
            continue
        seen.add(index)
        step = flow.steps[index]
        if step.norm in norms or step.module in norms:
            continue
        module = modules[step.module] if step.module is not None else None
        if step.module is not None and isinstance(module, _DropoutNd) and module.p > 0:
            found[step.module] = None
        queue.extend(step.inputs)
    return tuple(found)
