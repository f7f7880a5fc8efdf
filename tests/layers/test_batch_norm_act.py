"""`BatchNormAct` against the conformance suite, and against batch norm, addition and activation apart."""

from __future__ import annotations

import copy
from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, TOO_FEW_VALUES, LayerCase, LayerConformance, Refusal, shapes_unchecked
from torch import Tensor, nn
from torch.nn import functional

from normwise.core.kernels import use_backend
from normwise.errors import ShapeError
from normwise.layers import BatchNorm, BatchNormAct


def oracle(x, side, state, momentum):
    everything = np.zeros_like(x[:, :1], dtype=int)
    statistics = loops.measure(x, everything)
    y = loops.standardise(x, everything, loops.by_batch(statistics), loops.shared(state))
    return y, loops.updated(state, statistics, momentum)


class TestBatchNormAct(LayerConformance):
    case = LayerCase(
        create=partial(BatchNormAct, activation=nn.Identity()),
        oracle=oracle,
        refusals=(
            *BAD_INPUT,
            *TOO_FEW_VALUES,
            Refusal("residual must be like x", side=lambda x: (torch.ones(4, 3, 1, dtype=x.dtype),)),
            Refusal("residual must be like x", side=lambda x: (x.to("meta"),)),
        ),
    )


def shrink(x: Tensor) -> Tensor:
    """An activation the layer has never heard of."""
    return x.sign() * (x.abs() - 0.5).clamp_min(0)


ACTIVATIONS = {
    "relu": functional.relu,
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "SiLU in place": nn.SiLU(inplace=True),
    "GELU": nn.GELU(approximate="tanh"),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "tanh": torch.tanh,
    "PReLU": nn.PReLU(3),
    "one's own": shrink,
}


@pytest.mark.parametrize("backend", ["native", "reference", "cpu"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_three_operations(backend, name, with_residual, training):
    layer = BatchNormAct(3, copy.deepcopy(ACTIVATIONS[name]), dtype=torch.float64).train(training)
    layer.to(torch.float64)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    apart, activation = BatchNorm(3, dtype=torch.float64).train(training), copy.deepcopy(layer.activation)
    apart.load_state_dict({key: value for key, value in layer.state_dict().items() if "activation" not in key})
    x, residual = (torch.randn(5, 3, 4, dtype=torch.float64) for _ in range(2))
    leaves = [[t.clone().requires_grad_() for t in (x, residual)] for _ in range(2)]
    before = [t.clone() for pair in leaves for t in pair]
    with use_backend(backend):
        y = layer(leaves[0][0], leaves[0][1] if with_residual else None)
        expected = activation(apart(leaves[1][0]) + leaves[1][1] if with_residual else apart(leaves[1][0]))
        upstream = torch.randn_like(y)
        y.backward(upstream)
        expected.backward(upstream)
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(leaves[0][: 1 + with_residual], leaves[1], strict=False):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(layer.weight.grad, apart.weight.grad)
    torch.testing.assert_close(layer.bias.grad, apart.bias.grad)
    torch.testing.assert_close(layer.running_var, apart.running_var)
    if name == "PReLU":
        torch.testing.assert_close(layer.activation.weight.grad, activation.weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(before, [t for pair in leaves for t in pair], strict=True))


@pytest.mark.parametrize(
    ("activation", "with_residual", "kept"),
    [(nn.ReLU(), False, 1), (nn.ReLU(), True, 2), (nn.SiLU(), False, 1), (nn.SiLU(), True, 2)],
)
def test_what_is_saved_for_backward(activation, with_residual, kept):
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    x, residual = torch.randn(32, 4, 50, requires_grad=True), torch.randn(32, 4, 50)
    with use_backend("cpu"), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        BatchNormAct(4, activation)(x, residual if with_residual else None)
    assert sum(size >= x.numel() for size in sizes) == kept


@pytest.mark.parametrize(
    "residual",
    [torch.randn(4, 3, 5), torch.ones(4, 3, 4, dtype=torch.long), torch.randn(1, 3, 4)],
)
def test_a_residual_that_does_not_fit_is_refused_before_any_change(residual):
    layer = BatchNormAct(3, torch.relu)
    with shapes_unchecked(), pytest.raises(ShapeError, match="residual must be like x"):
        layer(torch.randn(4, 3, 4), residual)
    assert int(layer.num_batches_tracked) == 0


def test_an_activation_must_be_callable():
    with shapes_unchecked(), pytest.raises(ShapeError, match="activation must be a callable"):
        BatchNormAct(3, "relu")


def test_not_a_number_stays_one():
    x = torch.randn(40, 2, 300)
    x[0, 0, 0] = torch.nan
    for backend in ("native", "reference", "cpu"):
        with use_backend(backend):
            y = BatchNormAct(2, nn.ReLU())(x)
        assert y[:, 0].isnan().all()
        assert y[:, 1].isfinite().all()


def test_a_state_dict_of_torchs_loads_and_a_block_trains_under_autocast():
    layer = BatchNormAct(4, nn.ReLU(inplace=True))
    layer.load_state_dict(nn.BatchNorm2d(4).state_dict())
    convolution = nn.Conv2d(4, 4, 3, padding=1)
    x = torch.randn(3, 4, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = convolution(x)
        y = layer(h, h)
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.isfinite().all()
    assert repr(layer).startswith("BatchNormAct(\n  4, eps=1e-05")
    assert "activation=relu" in repr(BatchNormAct(4, torch.relu))
