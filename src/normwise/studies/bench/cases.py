"""The cases of the benchmark: every family of layers against torch's own, the usual way, and peers.

A case is a line in `CASES`. The functions before it make its contenders at a shape, the baseline first.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normwise import layers
from normwise.errors import one_of
from normwise.studies.bench import rivals as usual
from normwise.studies.bench.contenders import OURS, Absent, Case, Contender, Target
from normwise.studies.bench.rivals import native

DOMAINS, CLASSES, SPLITS = 4, 10, 8
Shape = tuple[int, ...]
Ways = Iterator[Contender | Absent]


# --- data and modules


def _values(shape: Shape, *, seed: int = 0, last: bool = False) -> Tensor:
    """Return numbers with a mean of 0.5 and a standard deviation of 2; channels last in memory if asked for."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5
    return values.contiguous(memory_format=torch.channels_last) if last else values


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


def _ids(samples: int, count: int) -> Tensor:
    return torch.randint(0, count, (samples,), generator=torch.Generator().manual_seed(2))


def _ready(module: nn.Module) -> nn.Module:
    """Return the module in training, with parameters that differ between channels: the same ones for the same shape."""
    for name, parameter in module.named_parameters():
        low, high = (-1.0, 1.0) if name.endswith("bias") else (0.5, 1.5)
        parameter.data.copy_(torch.linspace(low, high, parameter.numel()).view_as(parameter))
    return module.train()


def _yardstick(x: Tensor, dy: Tensor) -> Contender:
    """Return torch's batch normalization of the same tensor, which computes something else."""
    module = native(tuple(x.shape))
    return Contender(f"nn.{type(module).__name__}", _ready(module), (x,), dy, equal=False)


# --- families


def plain(shape: Shape, *, last: bool = False) -> Ways:
    """Batch normalization."""
    x, dy = _leaf(_values(shape, last=last)), _values(shape, seed=1, last=last)
    module = native(shape)
    yield Contender(f"nn.{type(module).__name__}", _ready(module), (x,), dy)
    yield Contender(OURS, _ready(layers.BatchNorm(shape[1])), (x,), dy)
    yield Contender("var_mean, autograd", _ready(usual.Composite(shape[1])), (x,), dy)


def activated(shape: Shape, activation: Callable[..., nn.Module] = nn.ReLU, *, residual: bool = False) -> Ways:
    """Batch normalization, an addition if there is a residual, and an activation."""
    inputs = tuple(_leaf(_values(shape, seed=seed)) for seed in ((0, 3) if residual else (0,)))
    dy, name = _values(shape, seed=1), "BN, add, act" if residual else "BN, act"
    yield Contender(f"{name} apart", _ready(usual.Apart(native(shape), activation())), inputs, dy)
    yield Contender(OURS, _ready(layers.BatchNormAct(shape[1], activation())), inputs, dy)
    in_place = usual.Apart(native(shape), activation(inplace=True), in_place=True)
    yield Contender(f"{name} in place", _ready(in_place), inputs, dy)


def masked(shape: Shape) -> Ways:
    """Batches of which 62% are valid; the baseline gets the same values without padding."""
    n, channels, positions = shape
    order = torch.randperm(n, generator=torch.Generator().manual_seed(4))
    lengths = torch.linspace(positions / 4, positions, n).round().long()[order]
    mask = torch.arange(positions) < lengths.unsqueeze(1)
    x, dy = (_values(shape, seed=seed) * mask.unsqueeze(1) for seed in (0, 1))
    dense, dense_dy = (values.transpose(1, 2)[mask].t().unsqueeze(0).contiguous() for values in (x, dy))
    x, valid = _leaf(x), partial(_valid, mask)
    yield Contender("nn.BatchNorm1d unpadded", _ready(nn.BatchNorm1d(channels)), (_leaf(dense),), dense_dy)
    yield Contender(OURS, _ready(layers.MaskedBatchNorm(channels)), (x,), dy, (lengths,), valid)
    yield Contender("nn.BatchNorm1d padded", _ready(nn.BatchNorm1d(channels)), (x,), dy, (), valid, equal=False)
    yield Contender("pack, BN, unpack", _ready(usual.Packed(channels)), (x,), dy, (mask,), valid)
    yield Contender("masked sums, autograd", _ready(usual.MaskedComposite(channels)), (x,), dy, (mask,), valid)


def _valid(mask: Tensor, values: Tensor) -> Tensor:
    return values.transpose(1, 2)[mask].t().unsqueeze(0)


def graphs(shape: Shape, norm: str = "GraphNorm", *, count: int = 32, shuffled: bool = False, **options: Any) -> Ways:
    """Nodes of graphs of unequal sizes, one graph after the other or shuffled."""
    n, channels = shape
    count = min(count, n // 8)
    ends = (torch.linspace(0, 1, count + 1) ** 1.5 * n).round().long()
    index = torch.repeat_interleave(torch.arange(count), ends.diff())
    index = index[torch.randperm(n, generator=torch.Generator().manual_seed(5))] if shuffled else index
    x, dy, side = _leaf(_values(shape)), _values(shape, seed=1), (index, count)
    yield _yardstick(x, dy)
    ours = {"InstanceNorm": "GraphInstanceNorm", "LayerNorm": "GraphLayerNorm"}.get(norm, norm)
    arguments = () if norm == "PairNorm" else (channels,)
    yield Contender(OURS, _ready(getattr(layers, ours)(*arguments, **options)), (x,), dy, side)
    yield from _pyg(norm, lambda peer: Contender(f"PyG {norm}", _ready(peer(*arguments, **options)), (x,), dy, side))


def nodes(shape: Shape) -> Ways:
    """Nodes of all graphs together."""
    x, dy = _leaf(_values(shape)), _values(shape, seed=1)
    yield Contender("nn.BatchNorm1d", _ready(native(shape)), (x,), dy)
    yield Contender(OURS, _ready(layers.GraphBatchNorm(shape[1])), (x,), dy)
    yield from _pyg("BatchNorm", lambda peer: Contender("PyG BatchNorm", _ready(peer(shape[1])), (x,), dy))


def _pyg(norm: str, make: Callable[[Any], Contender]) -> Ways:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own uses of what torch deprecates
            module = importlib.import_module("torch_geometric.nn")
    except ImportError:
        yield Absent(f"PyG {norm}", "torch-geometric")
    else:
        yield make(getattr(module, norm))


def domains(shape: Shape) -> Ways:
    """Four domains mixed in a batch."""
    x, dy, side = _leaf(_values(shape)), _values(shape, seed=1), (_ids(shape[0], DOMAINS),)
    yield _yardstick(x, dy)
    yield Contender(OURS, _ready(layers.DomainBatchNorm(shape[1], DOMAINS)), (x,), dy, side)
    yield Contender("mask loop", _ready(usual.MaskLoop(shape, DOMAINS)), (x,), dy, side)


def conditions(shape: Shape) -> Ways:
    """Weight and bias by class, ten classes."""
    x, dy, side = _leaf(_values(shape)), _values(shape, seed=1), (_ids(shape[0], CLASSES),)
    yield _yardstick(x, dy)
    yield Contender(OURS, _ready(layers.ConditionalBatchNorm(shape[1], CLASSES)), (x,), dy, side)
    yield Contender("BN, then modulation", _ready(usual.Modulated(shape, CLASSES)), (x,), dy, side)


def steps(shape: Shape) -> Ways:
    """Statistics by step."""
    _, channels, length = shape
    x, dy = _leaf(_values(shape)), _values(shape, seed=1)
    yield _yardstick(x, dy)
    yield Contender(OURS, _ready(layers.TimewiseBatchNorm(channels, length)), (x,), dy)
    yield Contender("channels x steps in one BN", _ready(usual.Columns(channels, length)), (x,), dy)
    yield Contender("module per step", _ready(usual.Steps(channels, length)), (x,), dy)


def parts(shape: Shape) -> Ways:
    """Statistics by part of the batch, eight parts."""
    x, dy = _leaf(_values(shape)), _values(shape, seed=1)
    yield _yardstick(x, dy)
    yield Contender(OURS, _ready(layers.GhostBatchNorm(shape[1], SPLITS)), (x,), dy)
    yield Contender("chunk loop", _ready(usual.Chunks(shape, SPLITS)), (x,), dy)


def renorm(shape: Shape) -> Ways:
    """Batch renormalization."""
    x, dy = _leaf(_values(shape)), _values(shape, seed=1)
    yield _yardstick(x, dy)
    yield Contender(OURS, _ready(layers.BatchRenorm(shape[1])), (x,), dy)
    yield Contender("var_mean, autograd", _ready(usual.RenormComposite(shape[1])), (x,), dy)


def across(shape: Shape) -> Ways:
    """Statistics over channels; the baseline gets the same values with channels on the last axis."""
    x, dy = _values(shape), _values(shape, seed=1)
    last, last_dy = (values.movedim(1, -1).contiguous() for values in (x, dy))
    x = _leaf(x)
    yield Contender("nn.LayerNorm, axis moved", _ready(nn.LayerNorm(shape[1])), (_leaf(last),), last_dy, view=_first)
    yield Contender(OURS, _ready(layers.AcrossChannelNorm(shape[1])), (x,), dy)
    yield Contender("var_mean, autograd", _ready(usual.AcrossComposite(shape[1])), (x,), dy)


def _first(values: Tensor) -> Tensor:
    return values.movedim(-1, 1)


PYG = Target(0.2, "PyG GraphNorm")
CASES = (
    Case("batch", "", (64, 64, 56, 56), plain, (Target(0.65),)),
    Case("batch", "", (32, 256, 14, 14), plain, (Target(0.65),)),
    Case("batch", "", (32, 128, 512), plain, (Target(0.65),)),
    Case("batch", "", (128, 512, 7, 7), plain, (Target(0.85),)),
    Case("batch", "channels-last", (64, 64, 56, 56), partial(plain, last=True), (Target(1.0),)),
    Case("batch", "channels-last", (128, 512, 7, 7), partial(plain, last=True), (Target(1.0),)),
    Case("batch", "rows", (65536, 128), plain, (Target(1.0),)),
    Case("batch", "small", (8, 32, 16, 16), plain, (Target(1.15),)),
    Case("batch", "small rows", (256, 128), plain, (Target(1.15),)),
    Case("act", "residual, ReLU", (64, 64, 56, 56), partial(activated, residual=True), (Target(0.6),)),
    Case("act", "residual, ReLU", (32, 256, 14, 14), partial(activated, residual=True), (Target(0.6),)),
    Case("act", "ReLU", (32, 256, 14, 14), activated),
    Case("act", "SiLU", (32, 256, 14, 14), partial(activated, activation=nn.SiLU)),
    Case("masked", "62% valid", (32, 128, 512), masked, (Target(1.1),)),
    Case("graph", "GraphNorm, 4 graphs", (65536, 128), partial(graphs, count=4), (Target(1.0), PYG)),
    Case("graph", "GraphNorm, 32 graphs", (65536, 128), partial(graphs, count=32), (Target(1.0), PYG)),
    Case("graph", "GraphNorm, 256 graphs", (65536, 128), partial(graphs, count=256), (Target(1.0), PYG)),
    Case("graph", "GraphNorm, 32 graphs shuffled", (65536, 128), partial(graphs, shuffled=True)),
    Case("graph", "InstanceNorm, 32 graphs", (16384, 128), partial(graphs, norm="InstanceNorm", affine=True)),
    Case("graph", "LayerNorm, 32 graphs", (16384, 128), partial(graphs, norm="LayerNorm")),
    Case("graph", "PairNorm, 32 graphs", (16384, 128), partial(graphs, norm="PairNorm")),
    Case("graph", "BatchNorm", (16384, 128), nodes),
    Case("domain", "4 mixed", (64, 128, 14, 14), domains, (Target(0.85),)),
    Case("domain", "4 mixed, rows", (16384, 128), domains),
    Case("domain", "4 mixed, small", (8, 32, 16, 16), domains),
    Case("conditional", "10 classes", (64, 128, 14, 14), conditions, (Target(0.85),)),
    Case("timewise", "128 steps", (64, 128, 128), steps, (Target(0.9),)),
    Case("ghost", "8 parts", (64, 128, 14, 14), parts, (Target(0.9),)),
    Case("renorm", "", (64, 128, 14, 14), renorm, (Target(0.8),)),
    Case("across", "", (64, 128, 14, 14), across),
)
FAMILIES = tuple(dict.fromkeys(case.family for case in CASES))


def cases_of(family: str | None) -> tuple[Case, ...]:
    """Return the cases of a family, or all; raise `UsageError` for another name."""
    if family is not None and family not in FAMILIES:
        raise one_of("family", family, FAMILIES)
    return tuple(case for case in CASES if family in (None, case.family))
