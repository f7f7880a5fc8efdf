"""A norm and the activation behind it become one `BatchNormAct` where that is proven, and two again."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import contextmanager

import pytest
import torch
from real import zoo
from tests.models.kinds import randomize, snapshot
from torch import Tensor, nn
from torch.nn import functional

import normwise
from normwise.errors import ModelError
from normwise.layers import BatchNorm, BatchNormAct, DomainBatchNorm
from normwise.models.convert import ConversionWarning, convert

NOBODY, UNTRACED = "no activation module that is known", "cannot be traced to see what follows it"
INPUTS = {"usps": (4, 1, 16, 16), "svhn": (4, 3, 32, 32)}


@contextmanager
def telling(*texts: str):
    """Expect these conversion warnings, in this order, and nothing else."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in told] == [ConversionWarning] * len(texts), [str(w.message) for w in told]
    for text, warning in zip(texts, told, strict=True):
        assert text in str(warning.message)


def net(*activations: nn.Module) -> nn.Module:
    """A convolution, a norm and an activation, as often as there are activations."""
    blocks = [(nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4, eps=1e-3), activation) for activation in activations]
    return randomize(nn.Sequential(*(layer for block in blocks for layer in block))).double().train()


def batch() -> Tensor:
    return torch.randn(5, 4, 6, dtype=torch.float64)


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """One step in training mode; outputs, the gradient of x, the parameters' gradients."""
    x = x.clone().requires_grad_()
    y = model.train()(x)
    model.zero_grad()
    (y * torch.linspace(-1, 2, y.numel()).view_as(y).to(y)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


ACTIVATIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.GELU("tanh"), nn.LeakyReLU(0.3), nn.Hardswish()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_a_pair_becomes_one_with_the_same_keys_and_objects_and_comes_back(activation):
    model, x = net(activation, nn.Tanh()), batch()
    reference, tensors = copy.deepcopy(model), {key: id(t) for key, t in model.state_dict(keep_vars=True).items()}
    with telling():
        assert convert(model, BatchNormAct) is model
    assert [type(layer) for layer in model] == [nn.Conv1d, BatchNormAct, nn.Identity] * 2
    assert {key: id(t) for key, t in model.state_dict(keep_vars=True).items()} == tensors
    for _ in range(2):
        torch.testing.assert_close(step(model, x), step(reference, x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.eval()(x), reference.eval()(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dict(model.named_buffers()), dict(reference.named_buffers()))
    assert convert(model, BatchNormAct)[1] is model[1]
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again.load_state_dict(reference.state_dict())
        with telling():
            convert(again, "torch")
        assert repr(again) == repr(reference)
        assert snapshot(again) == snapshot(reference)
        assert torch.equal(again(x), reference(x))


class Shared(nn.Module):
    """One activation behind two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.act = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.other(self.act(self.one(x))))


class Branch(nn.Module):
    """A norm that something else reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm1d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.act(y) + self.more(y)

    def more(self, y: Tensor) -> Tensor:
        return y


class BranchInTraining(Branch):
    """The same, in training only."""

    def more(self, y: Tensor) -> Tensor:
        return y if self.training else 0


class Returned(Branch):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x)
        return y, self.act(y)


class Added(Branch):
    """A residual comes before the activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x) + x)


class Functional(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(x))


class Untraceable(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x)) if x.sum() != 0 else x


class Louder(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU())
    model[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (Shared, NOBODY),
        (Branch, NOBODY),
        (BranchInTraining, NOBODY),
        (Returned, NOBODY),
        (Added, NOBODY),
        (Functional, NOBODY),
        (hooked, NOBODY),
        (Untraceable, UNTRACED),
        (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()), NOBODY),
        (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.PReLU()), NOBODY),
        (lambda: nn.Sequential(nn.BatchNorm1d(4), Louder()), NOBODY),
        (lambda: nn.Sequential(DomainBatchNorm(4, 2), nn.ReLU()), "it does more than BatchNorm"),
    ],
)
def test_what_is_not_proven_is_left_and_told(build, text):
    model = build()
    modules = list(model.modules())
    with telling(text):
        convert(model, BatchNormAct)
    assert list(model.modules()) == modules


def test_an_example_shows_what_a_trace_cannot():
    model, x = randomize(Untraceable()), torch.randn(6, 4)
    reference, before = copy.deepcopy(model), snapshot(model)
    with telling():
        convert(model, BatchNormAct, example=x)
    assert isinstance(model.norm, BatchNormAct)
    assert snapshot(model) == before
    torch.testing.assert_close(model.train()(x), reference.train()(x))


@pytest.mark.parametrize("name", INPUTS)
def test_digit_networks_that_nobody_here_wrote(data_packages, name):
    model = zoo.MODELS[name](data_packages).double()
    x, norms = torch.randn(INPUTS[name], dtype=torch.float64), {"usps": 2, "svhn": 6}[name]
    reference = copy.deepcopy(model)
    with telling():
        convert(model, BatchNormAct, example=x)
    assert sum(isinstance(module, BatchNormAct) for module in model.modules()) == norms
    for training in (True, False):
        outputs = []
        for side in (model, reference):
            torch.manual_seed(0)  # dropout
            outputs.append(side.train(training)(x))
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    with telling():
        convert(model, "torch")
    assert repr(model) == repr(reference)
    torch.testing.assert_close(model(x), reference(x), rtol=1e-9, atol=1e-9)


# --- taken apart


class WithResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 4, 1), BatchNormAct(4, torch.relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x), x)


def test_one_that_was_built_so_becomes_a_sequence():
    model, x = randomize(nn.Sequential(nn.Conv1d(4, 4, 1), BatchNormAct(4, functional.silu))).double(), batch()
    expected, weight = copy.deepcopy(model)(x), model[1].weight
    with telling("state dict keys get a '0.'"):
        convert(model, "torch")
    assert [type(layer) for layer in model[1]] == [nn.BatchNorm1d, nn.SiLU]
    assert model[1][0].weight is weight
    torch.testing.assert_close(model(x), expected)


def test_a_residual_an_unknown_function_a_freeze_and_hooks_are_refused():
    fused = convert(net(nn.ReLU()), BatchNormAct)
    fused[1].register_forward_hook(lambda *_: None)
    frozen = normwise.freeze(nn.Sequential(nn.Conv1d(4, 4, 1), BatchNormAct(4, torch.relu)))
    for model, text in (
        (WithResidual(), "is called with a residual, which no layer of torch's takes"),
        (nn.Sequential(nn.Conv1d(4, 4, 1), BatchNormAct(4, torch.abs)), "an activation that no module stands for"),
        (frozen, "call normwise.unfreeze"),
        (fused, "has hooks that see activated values"),
    ):
        modules = list(model.modules())
        with pytest.raises(ModelError, match=text):
            convert(model, "torch")
        assert list(model.modules()) == modules


@pytest.mark.parametrize("to", ["masked", "group", "frozen-affine", BatchNorm])
def test_other_targets_say_that_it_is_to_be_split_first(to):
    with pytest.raises(ModelError, match=r'fuses an activation, which would be lost; convert\(model, "torch"\) splits'):
        convert(nn.Sequential(nn.Conv1d(4, 4, 1), BatchNormAct(4, torch.relu)), to)


def test_a_residual_that_cannot_be_seen_is_told():
    class Hidden(WithResidual):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) if x.sum() != 0 else x

    model = Hidden()
    vars(model.norm)["_normwise_origin"] = nn.BatchNorm1d
    with telling("a call with a residual now fails", "state dict keys get a '0.'"):
        convert(model, "torch")


# --- reasons


def test_tables_by_group_behind_a_convolution_have_a_rank():
    for build in (lambda: DomainBatchNorm(4, 3), lambda: normwise.layers.ConditionalBatchNorm(4, embedding_features=2)):
        with pytest.warns(ConversionWarning):
            assert type(convert(nn.Sequential(nn.Conv3d(1, 4, 1), build()), "torch")[1]) is nn.BatchNorm3d


def test_where_no_trace_says_the_rank_that_is_the_reason():
    class Unseen(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() != 0 else x

    model = Unseen(nn.Conv3d(1, 4, 1), BatchNorm(4))
    with pytest.raises(ModelError, match="the model's code cannot be traced to see which convolution feeds it"):
        convert(model, "torch")
    assert type(convert(model, "torch", example=torch.randn(2, 1, 2, 2, 2))[1]) is nn.BatchNorm3d
    with pytest.raises(ModelError, match="cannot be traced, pass example="):
        convert(Unseen(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4)), "spectral")
