"""Folded models compute the same; what cannot be folded stays and says why."""

import copy

import pytest
import torch
from tests.models.kinds import (
    CHANNELS,
    NORMS,
    EpslessFrozen,
    HiddenAct,
    NormAct,
    OwnsConv,
    images,
    net,
    randomize,
    snapshot,
)
from tests.models.test_wiring import Branches, Branching, Net, ReadsTheWeight, ReturnsDataclass, SharedConv, SharedNorm
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from normwise.errors import ModelError
from normwise.layers import BatchNorm, Source, StatisticsPolicy
from normwise.models.fold import fold, fold_plan
from normwise.models.walk import norm_layers

C = CHANNELS
PRODUCERS = {
    "conv": nn.Conv2d(C, C, 3),
    "no-bias": nn.Conv2d(C, C, 3, bias=False),
    "strided": nn.Conv2d(C, C, 3, stride=2, dilation=2),
    "zero-padded": nn.Conv2d(C, C, 3, padding=1),
    "reflected": nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(C, C, 5, padding=2, padding_mode="circular"),
    "same": nn.Conv2d(C, C, 3, padding="same"),
    "grouped": nn.Conv2d(C, C, 1, groups=3),
    "depthwise": nn.Conv2d(C, C, 3, groups=C),
    "transposed": nn.ConvTranspose2d(C, C, 3, stride=2, output_padding=1),
    "transposed-grouped": nn.ConvTranspose2d(C, C, 2, groups=2, bias=False),
}


def agree(model: nn.Module, folded: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(folded(x), copy.deepcopy(model).eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PRODUCERS)
def test_every_kind_of_convolution_folds(kind):
    model = randomize(nn.Sequential(copy.deepcopy(PRODUCERS[kind]), nn.BatchNorm2d(C), nn.ReLU())).train()
    bits = snapshot(model)
    folded = fold(model, example=images())
    agree(model, folded, images())
    assert norm_layers(folded) == []
    assert isinstance(folded[1], nn.Identity)
    assert not folded.training
    assert snapshot(model) == bits
    assert model.training


@pytest.mark.parametrize(
    ("producer", "norm", "shape"),
    [
        (nn.Linear(4, 3), nn.BatchNorm1d(3), (5, 4)),
        (nn.Conv1d(4, 3, 3), nn.BatchNorm1d(3), (5, 4, 9)),
        (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 4, 4, 4)),
        (nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (2, 4, 5)),
    ],
)
def test_other_ranks_fold(producer, norm, shape):
    model, x = randomize(nn.Sequential(producer, norm)), torch.randn(shape)
    agree(model, fold(model), x)


@pytest.mark.parametrize("norm", [*NORMS.values(), EpslessFrozen])
def test_every_kind_of_norm_folds(norm):
    model = net(norm(C))
    folded = fold(model)
    agree(model, folded, images())
    assert len(norm_layers(folded)) == 0


def test_a_fused_activation_is_kept():
    model = net(NormAct(C))
    folded = fold(model)
    agree(model, folded, images())
    assert isinstance(folded[1], nn.ReLU)


def test_double_precision_and_gradients_flags_are_kept():
    model = net(nn.BatchNorm2d(C)).double()
    model[0].weight.requires_grad_(False)
    folded = fold(model)
    assert folded[0].weight.dtype == folded[0].bias.dtype == torch.float64
    assert not folded[0].weight.requires_grad
    with torch.no_grad():
        x = images().double()
        torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)


def test_a_tiny_variance_is_folded_with_the_eps_it_has():
    model = net(nn.BatchNorm2d(C, eps=1e-3))
    model[1].running_var.fill_(1e-7)
    agree(model, fold(model), images())


class OneNorm(nn.Module):
    """Adds a pair that folds, so that the refusal of the other shows in the plan and not as an error."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.inner = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)), inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.stem(x))


class HookedConv(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, args, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class StandardizedConv(nn.Conv2d):
    """A scale of the weight has no effect on its output."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return nn.functional.conv2d(x, weight, self.bias)


REFUSALS = {
    "shared-norm": (SharedNorm(), "used 2 times in one pass"),
    "shared-conv": (SharedConv(), "'inner.conv' is used 2 times"),
    "weight-read": (ReadsTheWeight(), "'inner.conv' is used 2 times"),
    "branches": (Branches(), "output of 'inner.conv' is used elsewhere"),
    "hooked": (HookedConv(), "'inner.conv' has hooks"),
    "functional": (nn.Sequential(OwnsConv(C)), "called inside a module that does more"),
    "hidden-activation": (nn.Sequential(nn.Conv2d(C, C, 1), HiddenAct(C)), "differs from the real one by"),
    "standardized": (nn.Sequential(StandardizedConv(C, C, 3), nn.BatchNorm2d(C)), "differs from the real one by"),
    "untracked": (
        nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C, track_running_stats=False)),
        "no running statistics",
    ),
    "batch-in-eval": (
        nn.Sequential(nn.Conv2d(C, C, 1), BatchNorm(C, policy=StatisticsPolicy(evaluation=Source.BATCH))),
        "batch statistics in evaluation",
    ),
    "parametrized": (
        nn.Sequential(parametrizations.weight_norm(nn.Conv2d(C, C, 1)), nn.BatchNorm2d(C)),
        "parametrized",
    ),
    "norm-first": (
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(C), nn.Conv2d(C, C, 3, padding=1)),
        "not the output of a convolution",
    ),
    "identity-between": (
        nn.Sequential(nn.Conv2d(C, C, 1), nn.Identity(), nn.BatchNorm2d(C)),
        "not the output of a convolution",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_cannot_be_folded_stays_and_says_why(kind):
    inner, reason = REFUSALS[kind]
    model = OneNorm(randomize(copy.deepcopy(inner), seed=3)).eval()
    stem, *others = fold_plan(model)
    assert (stem.producer, stem.refusal) == ("stem.0", None)
    assert [reason in other.refusal for other in others] == [True]
    folded = fold(model, example=images())
    agree(model, folded, images())
    assert [layer.name for layer in norm_layers(folded)] == [other.norm for other in others]


def test_nothing_to_fold_is_an_error_with_reasons():
    with pytest.raises(ModelError, match=r"nothing to fold in SharedNorm: 'bn': it is used 2 times"):
        fold(SharedNorm())
    with pytest.raises(ModelError, match="expected normalization layers, found none in Linear"):
        fold(nn.Linear(2, 2))


def test_a_model_with_control_flow_needs_an_example():
    model = randomize(Branching())
    with pytest.raises(ModelError, match="cannot be traced; pass example="):
        fold(model)
    agree(model, fold(model, example=images()), images())


def test_a_dataclass_that_returns_the_convolution_refuses():
    with pytest.raises(ModelError, match="used elsewhere"):
        fold(ReturnsDataclass(), example=images())


class Sneaky(Branching):
    """Keeps the convolution's output where no tracer looks, so that only the outputs can tell."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x if x.sum() > 0 else -x)
        return self.bn(y) + torch.from_numpy(y.detach().numpy().copy())


def test_the_whole_model_is_compared_on_the_example():
    model = randomize(Sneaky())
    with pytest.raises(ModelError, match=r"used elsewhere|folding changed the outputs by"):
        fold(model, example=images())


class Transposed(nn.Module):
    """The linear layer's features are not the norm's channels, though there are as many."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.fc(x))


def test_a_norm_over_another_axis_is_caught_on_the_example():
    model = randomize(Transposed())
    with pytest.raises(ModelError, match=r"folding changed the outputs by .* first at layer 'bn'"):
        fold(model, example=torch.randn(5, 3, 4))
    agree(model, fold(model, example=torch.randn(5, 4)), torch.randn(5, 4))


class Aliased(Net):
    def __init__(self) -> None:
        super().__init__()
        self.alias = self.bn

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(self.conv(x))


def test_a_norm_with_two_names_is_replaced_under_both():
    model = randomize(Aliased()).eval()
    folded = fold(model)
    assert folded.alias is folded.bn
    assert isinstance(folded.bn, nn.Identity)
    agree(model, folded, images())
