"""The norms of graphs against PyTorch Geometric's: equal where they mean the same, and exchangeable in a trained model."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn
from torch.nn import functional

from normwise.core import running
from normwise.layers import GraphBatchNorm, GraphInstanceNorm, GraphLayerNorm, GraphNorm, PairNorm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own uses of what torch deprecates
    pyg = pytest.importorskip("torch_geometric.nn", reason="lacks torch_geometric")

CHANNELS = 6
PAIRS = {
    "BatchNorm": (GraphBatchNorm, pyg.BatchNorm),
    "GraphNorm": (GraphNorm, pyg.GraphNorm),
    "InstanceNorm": (GraphInstanceNorm, pyg.InstanceNorm),
    "InstanceNorm with tables": (
        partial(GraphInstanceNorm, affine=True, track_running_stats=True),
        partial(pyg.InstanceNorm, affine=True, track_running_stats=True),
    ),
    "LayerNorm": (GraphLayerNorm, pyg.LayerNorm),
    "LayerNorm without affine": (partial(GraphLayerNorm, affine=False), partial(pyg.LayerNorm, affine=False)),
    "LayerNorm of nodes": (partial(GraphLayerNorm, mode="node"), partial(pyg.LayerNorm, mode="node")),
    "PairNorm": (lambda channels: PairNorm(2.0), lambda channels: pyg.PairNorm(2.0)),
}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and PyG's, in float64, with the same random tables, loaded through their state dicts."""
    ours, theirs = (create(CHANNELS).double() for create in PAIRS[name])
    for key, table in theirs.state_dict().items():
        if table.is_floating_point():
            table.uniform_(0.5, 1.5) if key.endswith("var") else table.normal_()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batches(name: str, nodes: int) -> list[tuple]:
    """Ways of saying which graph a node belongs to that mean the same to both."""
    if name == "BatchNorm":
        return [()]
    index = torch.randint(0, 3, (nodes,)) * 2
    batched = [(index,), (index, 5), (index, 9)]
    return batched if name.startswith("LayerNorm") and "nodes" not in name else [(), *batched]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_outputs_and_gradients_equal_pygs(name, training):
    ours, theirs = (layer.train(training) for layer in pair(name))
    for arguments in batches(name, 40):
        x, upstream = torch.randn(40, CHANNELS).double() * 3 + 2, torch.randn(40, CHANNELS).double()
        found = []
        for layer in (ours, theirs):
            leaf = x.clone().requires_grad_()
            layer.zero_grad()
            y = layer(leaf, *arguments)
            y.backward(upstream)
            found.append([y, leaf.grad, *(parameter.grad for parameter in layer.parameters())])
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["BatchNorm", "InstanceNorm with tables"])
def test_running_statistics_equal_pygs_where_they_mean_the_same(name):
    """Graphs of two nodes or more, without gaps; PyG's rule for the variance; PyG's InstanceNorm counts no batches."""
    ours, theirs = pair(name)
    if name == "BatchNorm":
        ours.module.update = running.exponential
    for step in range(5):
        x = torch.randn(40, CHANNELS).double() * (step + 1) + step
        arguments = () if name == "BatchNorm" or step == 0 else (torch.arange(40) % step,)
        torch.testing.assert_close(ours(x, *arguments), theirs(x, *arguments))
    for key, table in theirs.state_dict().items():
        if not key.endswith("tracked"):
            torch.testing.assert_close(ours.state_dict()[key], table)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_where_layer_norm_without_a_batch_differs_it_is_by_eps_outside_the_root():
    ours, theirs = pair("LayerNorm")
    x = torch.randn(40, CHANNELS).double() * 1e-2
    one_graph = torch.zeros(40, dtype=torch.long)
    torch.testing.assert_close(ours(x), theirs(x, one_graph))
    assert (ours(x) - theirs(x)).abs().max() > 1e-3


def test_where_pair_norm_of_nodes_differs_it_is_by_eps_outside_the_root():
    eps, x = 1e-5, torch.randn(40, CHANNELS).double()
    ours, theirs = (layer(scale_individually=True)(x) for layer in (PairNorm, pyg.PairNorm))
    distance = (x - x.mean(0)).norm(dim=1, keepdim=True)
    assert ((ours - theirs).abs() <= (eps / distance + eps / (2 * distance**2)) * ours.abs()).all()


def test_where_instance_norm_differs_it_is_that_graphs_without_a_variance_do_not_enter_the_buffers():
    ours, theirs = (create(CHANNELS) for create in PAIRS["InstanceNorm with tables"])
    x, batch = torch.randn(9, CHANNELS) + 4, torch.tensor([0, 0, 0, 0, 2, 2, 2, 2, 3])
    for layer in (ours, theirs):
        layer(x, batch)
    torch.testing.assert_close(ours.running_mean, 0.1 * (x[:4].mean(0) + x[4:8].mean(0)) / 2)
    torch.testing.assert_close(theirs.running_mean, 0.1 * (x[:4].mean(0) + x[4:8].mean(0) + x[8]) / 4)


# --- a model on real data


@pytest.fixture(scope="module")
def digits() -> dict[str, Tensor]:
    """Six graphs of 299 images each, every image linked to its ten nearest; half of the labels are for training."""
    images, labels = load_digits(return_X_y=True)
    edges, nodes = [], 299
    for graph in range(6):
        part = slice(graph * nodes, (graph + 1) * nodes)
        links = kneighbors_graph(images[part], 10).tocoo()
        edges.append(torch.stack([torch.from_numpy(end).long() + graph * nodes for end in (links.row, links.col)]))
    x = torch.from_numpy(images[: 6 * nodes]).float() / 16
    batch = torch.arange(6).repeat_interleave(nodes)
    known = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < 0.5
    return {
        "x": x, "edges": torch.cat(edges, 1), "batch": batch, "labels": torch.from_numpy(labels[: len(x)]), "known": known
    }  # fmt: skip


def network(norm: nn.Module) -> nn.Module:
    """PyG's own graph convolutional network, which passes the batch to the norms that take one."""
    return pyg.GCN(in_channels=64, hidden_channels=32, num_layers=3, out_channels=10, norm=norm)


def logits(model: nn.Module, digits: dict[str, Tensor]) -> Tensor:
    return model(digits["x"], digits["edges"], batch=digits["batch"], batch_size=6)


def fit(model: nn.Module, digits: dict[str, Tensor], steps: int) -> float:
    """Train all graphs at once; return the accuracy, in evaluation, on the images whose label was not given."""
    optimizer, known = torch.optim.Adam(model.parameters(), lr=0.02), digits["known"]
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(logits(model, digits)[known], digits["labels"][known]).backward()
        optimizer.step()
    return accuracy(model, digits)


@torch.no_grad()
def accuracy(model: nn.Module, digits: dict[str, Tensor]) -> float:
    right = logits(model.eval(), digits).argmax(1) == digits["labels"]
    return right[~digits["known"]].float().mean().item()


@pytest.mark.parametrize("name", PAIRS)
def test_a_trained_model_switches_to_our_norms_and_back(name, digits):
    ours, theirs = (network(create(32)) for create in PAIRS[name])
    reached = fit(theirs, digits, 40)
    assert reached > 0.85
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(logits(ours.eval(), digits), logits(theirs, digits), rtol=1e-5, atol=1e-5)
    assert accuracy(ours, digits) == reached
    further = fit(ours, digits, 10)
    assert further > reached - 0.03
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(logits(theirs.eval(), digits), logits(ours, digits), rtol=1e-5, atol=1e-5)
    assert accuracy(theirs, digits) == further


@pytest.mark.parametrize("name", PAIRS)
def test_a_model_trained_with_our_norms_from_the_start_is_as_good(name, digits):
    reached = []
    for create in PAIRS[name]:
        torch.manual_seed(0)
        reached.append(fit(network(create(32)), digits, 40))
    assert reached[0] > reached[1] - 0.02
