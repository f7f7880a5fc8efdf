"""The composite that second derivatives and `torch.compile` go through, and how exact the reference kernels are."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conformance import shapes_unchecked

from normwise.core.grouping import Cells, Channelwise, Ghost, Indexed, Prefix, Steps
from normwise.core.kernels import Backend, current_backend, reference, use_backend
from normwise.core.normalize import normalize
from normwise.core.standardise import Standardise
from normwise.errors import NormwiseError, ShapeError

LENGTHS = torch.tensor([3, 1, 2, 3])
GROUPINGS = {
    "channelwise": Channelwise(),
    "index": Indexed(torch.tensor([2, 0, 2, 0]), 4),
    "ghost": Ghost(2),
    "prefix": Prefix(lengths=LENGTHS),
    "steps": Steps(),
    "ragged": Steps(lengths=LENGTHS),
}


@pytest.mark.parametrize("name", ["prefix", "ragged"])
@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_junk_in_the_padding_does_not_reach_second_derivatives(name, junk):
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    padding = (torch.arange(3) >= LENGTHS.unsqueeze(1)).unsqueeze(1).expand_as(x)
    results = []
    for filler in (0.0, junk):
        leaf = x.masked_fill(padding, filler).requires_grad_()
        weight, bias = torch.tensor([[0.5, 2.0], [1.0, -1.0]], dtype=torch.float64).requires_grad_().unbind()
        y = normalize(leaf, GROUPINGS[name].cells(leaf), Standardise(0.1), weight, bias)[0]
        first = torch.autograd.grad(y.pow(3).sum(), (leaf, weight, bias), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), (leaf, weight))
        results.append([*first, *second])
    for clean, spoiled in zip(*results, strict=True):
        assert torch.equal(clean, spoiled)
        assert spoiled.isfinite().all()


def compile_all():
    """Compile the pipeline without a graph break for every grouping, and compare."""
    for name, grouping in GROUPINGS.items():
        torch.manual_seed(0)
        torch._dynamo.reset()
        x = torch.randn(4, 2, 3, dtype=torch.float64)
        cells = grouping.cells(x)
        run = partial(run_pipeline, cells=cells)
        results = []
        for function in (run, torch.compile(run, backend="aot_eager", fullgraph=True)):
            leaf, weight = x.clone().requires_grad_(), torch.tensor([0.5, 2.0], dtype=torch.float64).requires_grad_()
            y = function(leaf, weight)
            y.pow(3).sum().backward()
            results.append((y.detach(), leaf.grad, weight.grad))
        for ours, expected in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, expected, msg=lambda text, name=name: f"{name}: {text}")


def run_pipeline(x, weight, cells):
    return normalize(x, cells, Standardise(0.1), weight, None)[0]


def test_every_grouping_compiles_to_one_graph():
    """In a process of its own: the annotation checks of this one cannot be traced."""
    folder = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(folder.parent), *sys.path])}
    command = [sys.executable, "-c", "import test_composite; test_composite.compile_all()"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_an_offset_costs_the_output_and_the_gradient_nothing(offset):
    """Ten float32 roundings of the result's own size, whatever the offset of x."""
    x, upstream = torch.randn(32, 3, 40) * 2 + offset, torch.randn(32, 3, 40)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype, copy=True).requires_grad_()
        y = normalize(leaf, Cells(), Standardise())[0]
        y.backward(upstream.to(dtype))
        results.append((y.detach().double(), leaf.grad.double()))
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() <= 10 * 2**-24 * exact.abs().max()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0])
def test_apply_with_a_scale_of_nothing_gives_the_shift(scale):
    x, shift = torch.randn(4, 2, 3), torch.tensor([[3.0, -2.0]]).double()
    y = reference.apply(x, torch.full((1, 2), scale).double(), shift, Cells())
    torch.testing.assert_close(y, x * scale + shift.float().unsqueeze(-1))


@pytest.mark.parametrize(("samples", "splits", "sizes"), [(6, 3, [2, 2, 2]), (7, 3, [3, 3, 1]), (6, 4, [2, 2, 2])])
def test_ghost_splits_are_those_of_chunk(samples, splits, sizes):
    x = torch.zeros(samples, 1, 2)
    cells = Ghost(splits).cells(x)
    assert cells.sample.bincount(minlength=cells.count).tolist() == sizes
    assert [len(part) for part in x.chunk(splits)] == sizes


@pytest.mark.parametrize("lengths", [torch.ones(4), torch.ones(4, dtype=torch.bool), torch.ones(3, dtype=torch.long)])
def test_lengths_of_another_kind_are_refused(lengths):
    with shapes_unchecked(), pytest.raises(ShapeError, match="lengths must be 4 integers"):
        Prefix(lengths=lengths).cells(torch.zeros(4, 1, 2))


def test_a_backend_is_fixed_for_a_block_and_no_longer():
    x = torch.zeros(1)
    assert isinstance(current_backend(x), Backend)
    with pytest.raises(KeyError), use_backend("reference"), use_backend("native"):
        raise KeyError
    with pytest.raises(NormwiseError, match="got 'metal'"), use_backend("metal"):
        pass
