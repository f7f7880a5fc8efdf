"""What people pass that is not what a layer wants, or not in the usual way: a word in time, or the right answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conformance import dataclasses_as_written, shapes_unchecked
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode

from normwise import layers
from normwise.errors import ShapeError

PLAIN = [
    layers.BatchNorm,
    lambda c, **o: layers.BatchNormAct(c, torch.relu, **o),
    lambda c, **o: layers.GhostBatchNorm(c, 2, **o),
]


@pytest.fixture
def types_unchecked():
    """As outside of tests, where nobody else would refuse what is of the wrong type."""
    with shapes_unchecked():
        yield


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, "x"])
def test_what_is_no_tensor_is_refused_in_words(wrong):
    for layer in (layers.BatchNorm(3), layers.GraphNorm(3), layers.PairNorm()):
        with pytest.raises(ShapeError, match=r"x must be a tensor .* got (list|NoneType|str)"):
            layer(wrong)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("wrong", [2.5, "3", None])
def test_a_number_of_channels_is_an_integer(wrong):
    with pytest.raises(ShapeError, match="num_features must be an integer, got"):
        layers.BatchNorm(wrong)
    with pytest.raises(ShapeError, match="splits must be an integer, got"):
        layers.GhostBatchNorm(4, wrong)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("wrong", [math.nan, -1e-3, "small"])
def test_an_eps_is_a_number_that_is_not_negative(wrong):
    for make in (lambda: layers.BatchNorm(3, eps=wrong), lambda: layers.PairNorm(eps=wrong)):
        with pytest.raises(ShapeError, match="eps must be a number that is not negative"):
            make()


@pytest.mark.usefixtures("types_unchecked")
def test_bounds_of_a_correction_are_numbers():
    for bound in ("r_max", "d_max"):
        with pytest.raises(ShapeError, match=bound):
            layers.BatchRenorm(3, **{bound: math.nan})


@pytest.mark.usefixtures("types_unchecked")
def test_numpy_integers_are_integers():
    assert layers.BatchNorm(np.int64(3), eps=np.float32(1e-3))(torch.randn(4, 3)).shape == (4, 3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", PLAIN)
def test_an_eps_of_zero_is_exact_at_every_size(make, training):
    for shape in ((8, 3), (64, 16, 300)):
        layer, x = make(shape[1], eps=0.0).train(training), torch.randn(shape) + 2
        wide = make(shape[1], eps=0.0).double().train(training)
        torch.testing.assert_close(layer(x), wide(x.double()).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("types_unchecked")
def test_a_residual_of_a_wider_dtype_widens_the_sum():
    """As under autocast: a convolution gives bfloat16, the stream it is added to is float32."""
    for shape in ((4, 3, 5, 5), (64, 16, 300)):
        layer, x, residual = layers.BatchNormAct(shape[1], torch.relu), torch.randn(shape), torch.randn(shape)
        usual = nn.BatchNorm1d(shape[1])
        for narrow in (x.bfloat16(), x):
            wide = residual.to(torch.promote_types(torch.float32, narrow.dtype)).double()
            expected = torch.relu(usual(narrow.flatten(2)).view(shape) + wide)
            y = layer(narrow, wide)
            assert y.dtype == expected.dtype
            torch.testing.assert_close(y, expected, atol=1e-5 if narrow is x else 2e-2, rtol=1e-5)
    with pytest.raises(ShapeError, match="residual must be a tensor like x, got list"):
        layer(x, [1])


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", PLAIN)
def test_the_cumulative_average_compiles_whole(make):
    layer, x = make(4, momentum=None), torch.randn(16, 4, 5)
    eager = make(4, momentum=None)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with dataclasses_as_written():
        for _ in range(3):
            torch.testing.assert_close(compiled(x), eager(x))
    torch.testing.assert_close(layer.running_var, eager.running_var)


@pytest.mark.parametrize("shape", [(8, 4, 5), (64, 16, 300)])
def test_a_batch_of_gradients_goes_back_at_once(shape):
    layer = layers.DomainBatchNorm(shape[1], 2)
    x, domain = torch.randn(shape, requires_grad=True), torch.arange(shape[0]) % 2
    y, several = layer(x, domain), torch.randn(3, *shape)
    together = torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)[0]
    one_by_one = torch.stack([torch.autograd.grad(y, x, dy, retain_graph=True)[0] for dy in several])
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-4)


SIDED = {
    "masked": (lambda: layers.MaskedBatchNorm(16), lambda n: torch.full((n,), 7)),
    "timewise": (lambda: layers.TimewiseBatchNorm(16, 300), lambda n: torch.full((n,), 7)),
    "domain": (lambda: layers.DomainBatchNorm(16, 2), lambda n: torch.arange(n) % 2),
    "conditional": (lambda: layers.ConditionalBatchNorm(16, 2), lambda n: torch.arange(n) % 2),
    "ghost": (lambda: layers.GhostBatchNorm(16, 2), None),
}


@pytest.mark.parametrize("name", SIDED)
def test_shapes_can_be_inferred_without_numbers(name):
    make, side = SIDED[name]
    x = torch.empty(64, 16, 300)
    arguments = (x,) if side is None else (x, side(64))
    meta = make().to("meta")(*(a.to("meta") for a in arguments))
    assert meta.shape == x.shape
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = make()(*(mode.from_tensor(a) for a in arguments))
    assert isinstance(fake, FakeTensor)
    assert fake.shape == x.shape


def test_graphs_on_meta_are_counted_by_their_nodes():
    index = torch.empty(4, dtype=torch.long, device="meta")
    assert layers.GraphNorm(3).to("meta")(torch.empty(4, 3, device="meta"), index).shape == (4, 3)
