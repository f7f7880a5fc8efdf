"""PyTorch Geometric's norms become ours and come back: the same objects, the same outputs, told where they part."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
from tests.models.kinds import randomize, snapshot
from torch import Tensor, nn
from torch.nn.utils import parametrize

import normwise
from normwise.errors import ModelError
from normwise.layers import (
    BatchInfo,
    BatchNorm,
    GraphBatchNorm,
    GraphInstanceNorm,
    GraphLayerNorm,
    GraphNorm,
    MaskedBatchNorm,
    PairNorm,
)
from normwise.models.convert import ConversionWarning, convert

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own uses of what torch deprecates
    pyg = pytest.importorskip("torch_geometric.nn", reason="lacks torch_geometric")

CHANNELS, NODES = 5, 30
ONE_NODE, EPS_OF_LAYERS, EPS_OF_PAIRS = "graphs of fewer than two", "where it is given no batch", "adds eps outside"
# PyG's layer, ours, and what is told of where they part.
NORMS = {
    "BatchNorm": (pyg.BatchNorm, GraphBatchNorm, None),
    "BatchNorm for one node too": (partial(pyg.BatchNorm, allow_single_element=True), GraphBatchNorm, None),
    "BatchNorm without tables": (
        partial(pyg.BatchNorm, affine=False, track_running_stats=False), GraphBatchNorm, None,
    ),
    "GraphNorm": (partial(pyg.GraphNorm, eps=1e-3), GraphNorm, None),
    "InstanceNorm": (pyg.InstanceNorm, GraphInstanceNorm, None),
    "InstanceNorm with tables": (
        partial(pyg.InstanceNorm, momentum=0.3, affine=True, track_running_stats=True), GraphInstanceNorm, ONE_NODE,
    ),
    "LayerNorm": (partial(pyg.LayerNorm, affine=False), GraphLayerNorm, EPS_OF_LAYERS),
    "LayerNorm of nodes": (partial(pyg.LayerNorm, mode="node"), GraphLayerNorm, None),
    "PairNorm": (lambda channels: pyg.PairNorm(2.0), PairNorm, None),
    "PairNorm of nodes": (lambda channels: pyg.PairNorm(3.0, scale_individually=True), PairNorm, EPS_OF_PAIRS),
}  # fmt: skip


class Net(nn.Module):
    """A linear map of nodes, a norm that is told which graph they are of, another."""

    def __init__(self, create) -> None:
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(3, CHANNELS), nn.Linear(CHANNELS, CHANNELS)])
        self.norms = nn.ModuleList([create(CHANNELS), create(CHANNELS)])

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        for linear, norm in zip(self.maps, self.norms, strict=True):
            x = linear(x)
            x = norm(x) if isinstance(norm, (pyg.BatchNorm, GraphBatchNorm)) else norm(x, batch)
        return x


def graphs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(NODES, 3, generator=draw, dtype=torch.float64), torch.arange(NODES) % 4


def converted(model: nn.Module, to, note: str | None, **options) -> nn.Module:
    """Convert, and check that the note is told, or nothing."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = convert(model, to, **options)
    assert [warning.category for warning in told] == [ConversionWarning] * (note is not None)
    assert all(note in str(warning.message) for warning in told)
    return model


@pytest.mark.parametrize("name", NORMS)
def test_theirs_become_ours_and_come_back_bit_for_bit(name):
    create, kind, note = NORMS[name]
    model, (x, batch) = randomize(Net(create)).double().train(), graphs()
    reference, tensors = copy.deepcopy(model), {k: id(t) for k, t in model.state_dict(keep_vars=True).items()}
    assert converted(model, "normwise", note) is model
    assert [type(norm) for norm in model.norms] == [kind, kind]
    assert {k: id(t) for k, t in model.state_dict(keep_vars=True).items()} == tensors
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if note == EPS_OF_PAIRS else {"rtol": 1e-10, "atol": 1e-10}
    twin = copy.deepcopy(reference)
    for mode in (False, True):
        for side in (model, twin):
            side.train(mode)
        torch.testing.assert_close(model(x, batch), twin(x, batch), **tolerance)
    model.load_state_dict(reference.state_dict())
    converted(model.train(), "torch", note)
    assert repr(model) == repr(reference)
    assert {k: id(t) for k, t in model.state_dict(keep_vars=True).items()} == tensors
    assert torch.equal(model(x, batch), reference(x, batch))
    assert snapshot(model) == snapshot(reference)


def test_running_statistics_follow_as_pygs_did():
    model, (x, batch) = Net(pyg.BatchNorm).double(), graphs()
    reference = copy.deepcopy(model)
    convert(model, "normwise")
    for seed in range(3):
        model(x * seed + seed, batch)
        reference(x * seed + seed, batch)
    torch.testing.assert_close(dict(model.state_dict()), dict(reference.state_dict()))


def test_a_class_takes_in_the_variance_between_batches_and_says_so():
    model = Net(pyg.BatchNorm)
    converted(model, GraphBatchNorm, "2 layers ('norms.0', ...): the running variance now takes in the variance")
    converted(model, "torch", "the running variance no longer takes in the variance between batches")
    assert type(model.norms[0]) is pyg.BatchNorm


def test_a_class_takes_its_own_kind_and_batch_norms_and_leaves_the_rest():
    model = nn.ModuleList([pyg.GraphNorm(3), pyg.LayerNorm(3), nn.LayerNorm(3), nn.InstanceNorm1d(3)])
    theirs = list(model)
    converted(model, GraphNorm, None)
    assert isinstance(model[0], GraphNorm)
    assert list(model)[1:] == theirs[1:]
    assert convert(model, GraphNorm)[0] is model[0]
    with pytest.raises(ModelError, match="expected normalization layers, found none"):
        convert(nn.ModuleList(theirs[1:]), GraphNorm)


def test_pygs_batch_norm_becomes_graph_norm_as_a_whole():
    norm, (x, batch) = randomize(pyg.BatchNorm(3)).double(), graphs()
    with pytest.warns(ConversionWarning):
        new = convert(nn.ModuleList([norm]), GraphNorm)[0]
    assert isinstance(new, GraphNorm)
    assert new.weight is norm.module.weight
    expected = GraphNorm(3).double()
    expected.weight, expected.bias = norm.module.weight, norm.module.bias
    with BatchInfo(graph=batch):
        torch.testing.assert_close(new(x), expected(x, batch))


def test_other_targets_look_inside_pygs_batch_norm():
    norm, (x, _) = randomize(pyg.BatchNorm(3)).double().eval(), graphs()
    expected = norm(x)
    for to in (BatchNorm, "masked", "torch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConversionWarning)
            assert convert(norm, to) is norm
        if to is BatchNorm:
            assert convert(norm, "normwise") is norm  # ours is inside already
        with BatchInfo(mask=torch.ones(NODES, dtype=torch.bool)):
            torch.testing.assert_close(norm(x), expected)
    assert type(norm.module) is nn.BatchNorm1d


def test_ours_of_graphs_become_plain_layers():
    norm, (x, _) = randomize(GraphBatchNorm(3)).double().eval(), graphs()
    with pytest.warns(ConversionWarning, match="no longer takes in the variance between batches"):
        new = convert(nn.ModuleList([norm]), MaskedBatchNorm)[0]
    torch.testing.assert_close(new.eval()(x, mask=torch.ones(NODES, dtype=torch.bool)), norm(x))
    with pytest.warns(ConversionWarning, match="lengths and masks are ignored"):
        assert type(convert(nn.ModuleList([new]), "torch")[0]) is nn.BatchNorm1d


@pytest.mark.parametrize("name", ["BatchNorm", "GraphNorm", "InstanceNorm with tables"])
def test_hooks_and_freezes_go_along(name):
    create, _, note = NORMS[name]
    model, (x, batch), calls = Net(create).double(), graphs(), []
    handles = [model.norms[0].register_forward_hook(lambda *_: calls.append("norm"))]
    if name == "BatchNorm":
        handles.append(model.norms[0].module.register_forward_hook(lambda *_: calls.append("inside")))
        normwise.freeze(model, affine=True)
    state = snapshot(model)
    converted(model, "normwise", note)
    model.train()(x, batch)
    assert calls == (["inside", "norm"] if name == "BatchNorm" else ["norm"])
    assert (snapshot(model) == state) is (name != "InstanceNorm with tables")
    for handle in handles:
        handle.remove()
    if name == "BatchNorm":
        normwise.unfreeze(model)
        assert model.norms[0].module.weight.requires_grad
        model.train()(x, batch)
        assert snapshot(model) != state
    converted(model, "torch", note)
    model(x, batch)
    assert len(calls) == len(handles)


def test_ours_frozen_are_not_thawed_on_the_way_back():
    model = normwise.freeze(convert(Net(pyg.BatchNorm), "normwise"))
    with pytest.raises(ModelError, match="frozen in a way torch's layers cannot be"):
        convert(model, "torch")


class Louder(pyg.GraphNorm):
    """A subclass that does more."""

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        return 2 * super().forward(x, batch, batch_size)


class Wider(pyg.GraphNorm):
    """A subclass that holds more."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain = nn.Parameter(torch.ones(channels))


class Broken(pyg.GraphNorm):
    """A subclass that cannot be tried."""

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        raise RuntimeError("needs more than nodes")


class Trains(pyg.GraphNorm):
    """A subclass that does more in training."""

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        return super().forward(x, batch, batch_size) * (2 if self.training else 1)


class Same(pyg.GraphNorm):
    """A subclass that does the same."""


def test_subclasses_that_do_more_are_refused_and_others_not():
    fixed = pyg.GraphNorm(3)
    parametrize.register_parametrization(fixed, "weight", nn.Identity())
    for norm in (Louder(3), Wider(3), Broken(3), Trains(3), fixed):
        with pytest.raises(ModelError, match=r"layer '0' \(\w+\) does more than the class it is of"):
            convert(nn.ModuleList([norm]), "normwise")
    assert isinstance(convert(nn.ModuleList([Same(3)]), "normwise")[0], GraphNorm)


def test_buffers_outside_the_state_dict_stay_outside():
    norm = pyg.BatchNorm(3)
    norm.module._non_persistent_buffers_set.add("running_mean")
    for to in ("normwise", "torch"):
        norm = convert(norm, to)
        assert "module.running_mean" not in norm.state_dict()
        assert "module.running_var" in norm.state_dict()


def test_a_converted_model_is_copied_and_pickled_and_still_knows_where_it_came_from():
    model = convert(Net(pyg.GraphNorm), "normwise")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(convert(again, "torch").norms[0]) is pyg.GraphNorm


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_a_network_of_pygs_runs_and_learns_unchanged(name, training):
    """PyG's own model, whose norms are given the batch where their signature asks for it."""
    create, kind, note = NORMS[name]
    model, (x, batch) = randomize(pyg.GCN(3, CHANNELS, 3, norm=create(CHANNELS))).double().train(training), graphs()
    reference, edges = copy.deepcopy(model), torch.stack([torch.arange(NODES - 1), torch.arange(1, NODES)])
    converted(model, "normwise", note)
    assert sum(isinstance(module, kind) for module in model.modules()) == 2
    results = []
    for network in (model, reference):
        leaf = x.clone().requires_grad_()
        y = network(leaf, edges, batch=batch, batch_size=4)
        y.square().sum().backward()
        results.append([y, leaf.grad, *(parameter.grad for parameter in network.parameters())])
    tolerance = 1e-2 if note == EPS_OF_PAIRS else 1e-9  # nodes near the mean of their graph feel eps
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)
    if note != ONE_NODE:  # PyG's instance norm counts no batches
        torch.testing.assert_close(dict(model.named_buffers()), dict(reference.named_buffers()))
    reference.load_state_dict(model.state_dict())
    outputs = [network.eval()(x, edges, batch=batch, batch_size=4) for network in (model, reference)]
    torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
