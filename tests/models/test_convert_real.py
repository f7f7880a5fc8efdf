"""EfficientNet-Lite0 and the digit networks, which nobody here wrote, converted to layers that know of more."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch
from real import zoo
from torch import nn

from normwise.layers import BatchInfo, ConditionalBatchNorm, DomainBatchNorm, GhostBatchNorm, MaskedBatchNorm
from normwise.models.convert import ConversionWarning, convert
from normwise.models.walk import norm_layers

SIZE = 64  # pixels: Lite0 takes any; enough for what is compared here
TARGETS = {
    "domain": (partial(DomainBatchNorm, num_domains=4), DomainBatchNorm),
    "ghost": ("ghost", GhostBatchNorm),
    "condition": (partial(ConditionalBatchNorm, num_classes=4), ConditionalBatchNorm),
}


def quietly(model: nn.Module, to, **options) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return convert(model, to, **options)


@pytest.fixture(scope="module")
def lite0(data_packages):
    return zoo.lite0(data_packages)


@pytest.fixture(scope="module")
def photographs():
    return torch.cat([x for x, _ in zoo.photograph_crops(batch_size=4, batches=1)])[:, :, :SIZE, :SIZE]


@torch.no_grad()
@pytest.mark.parametrize("name", TARGETS)
def test_lite0_gives_the_same_outputs_and_comes_back(lite0, photographs, name):
    model, (to, kind) = copy.deepcopy(lite0), TARGETS[name]
    expected, state = model(photographs), {key: t.clone() for key, t in model.state_dict().items()}
    quietly(model, to)
    assert sum(isinstance(module, kind) for module in model.modules()) == 49
    with BatchInfo(domain=torch.tensor([0, 3, 1, 1]), condition=torch.tensor([2, 2, 0, 1])):
        y = model(photographs)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)  # 49 layers of float32 rounding
    assert torch.equal(y.argmax(1), expected.argmax(1))
    quietly(model, "torch")
    assert all(torch.equal(state[key], t) for key, t in model.state_dict().items())
    assert torch.equal(model(photographs), expected)


@torch.no_grad()
def test_lite0s_norms_at_one_resolution_take_a_mask(lite0, photographs):
    """A mask is of one size; the stem and the first block work at half the image's."""
    model, places, handles = copy.deepcopy(lite0), {}, []
    for layer in norm_layers(model):
        hook = partial(lambda name, module, args, y: places.update({name: y.shape[2:]}), layer.name)
        handles.append(layer.module.register_forward_hook(hook))
    expected = model(photographs)
    for handle in handles:
        handle.remove()
    half = [name for name, place in places.items() if tuple(place) == (SIZE // 2, SIZE // 2)]
    assert len(half) >= 3
    convert(model, "masked", where=half)
    assert sum(isinstance(module, MaskedBatchNorm) for module in model.modules()) == len(half)
    with BatchInfo(mask=torch.ones(4, SIZE // 2, SIZE // 2, dtype=torch.bool)):
        torch.testing.assert_close(model(photographs), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["usps", "svhn"])
@pytest.mark.parametrize("target", TARGETS)
def test_digit_networks_train_and_answer_the_same(data_packages, name, target):
    """In float64 and training mode too, where there is one domain, one part; the classes' statistics are shared."""
    model = zoo.MODELS[name](data_packages).double()
    x = torch.randn(8, *((1, 16, 16) if name == "usps" else (3, 32, 32)), generator=torch.Generator().manual_seed(0))
    reference, x = copy.deepcopy(model), x.double()
    quietly(model, partial(GhostBatchNorm, splits=1) if target == "ghost" else TARGETS[target][0])
    with BatchInfo(domain=torch.full((8,), 2), condition=torch.arange(8) % 4):
        for _ in range(2):
            for side in (model, reference):
                torch.manual_seed(0)  # dropout
                side.train()
            torch.manual_seed(0)
            y = model(x)
            torch.manual_seed(0)
            torch.testing.assert_close(y, reference(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.eval()(x), reference.eval()(x), rtol=1e-9, atol=1e-9)
