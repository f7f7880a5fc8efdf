"""Reading, randomising and comparing a layer's parameters and buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from conformance.case import Side, State


def randomise(layer: nn.Module) -> nn.Module:
    """Give every table a value that could not be there by default."""
    with torch.no_grad():
        for name, table in (*layer.named_parameters(), *layer.named_buffers()):
            if not table.is_floating_point():
                table.random_(1, 9)
            elif name.endswith(("weight", "scale")):
                table.uniform_(0.5, 1.5)
            elif name.endswith("var"):
                table.uniform_(0.5, 2.0)
            else:
                table.normal_()
    return layer


def state_of(layer: nn.Module) -> State:
    """Read all parameters and buffers of a layer."""
    named = (*layer.named_parameters(), *layer.named_buffers())
    return {name: table.detach().double().cpu().numpy().copy() for name, table in named}


def buffers(layer: nn.Module) -> dict[str, Tensor]:
    """Copy a layer's buffers."""
    return {name: value.clone() for name, value in layer.named_buffers()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of buffers are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def forward_fresh(layer: nn.Module, side: Side, x: Tensor, *parameters: Tensor) -> Tensor:
    """Run a copy of the layer, so that one call's buffers are not the next one's."""
    names = [name for name, _ in layer.named_parameters()]
    return functional_call(copy.deepcopy(layer), dict(zip(names, parameters, strict=True)), (x, *side))


def leaves_of(layer: nn.Module) -> list[Tensor]:
    """Copy a layer's parameters, to differentiate by."""
    return [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
