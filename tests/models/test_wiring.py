"""Who feeds whom, read from a trace and from a run alike."""

from dataclasses import dataclass

import pytest
import torch
from tests.models.kinds import CHANNELS, EpslessFrozen, NormAct, OwnsConv, Ported, images, snapshot
from torch import Tensor, nn
from torch.nn import functional

from normwise.models.wiring import Feed, find_wiring, wiring_from_graph, wiring_from_run


def conv(c: int = CHANNELS) -> nn.Module:
    return nn.Conv2d(c, c, 3, padding=1)


class Net(nn.Module):
    """A convolution and a norm, connected by the way a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.bn, self.drop = conv(), conv(), nn.BatchNorm2d(CHANNELS), nn.Dropout(0.2)
        self.off, self.same = nn.Dropout(0.0), nn.Identity()


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class ReadsTheShape(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        n, c = y.size(0), y.shape[1]
        return self.bn(y).view(n, c, -1)


class Branches(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class Returns(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.bn(y), y


class Residual(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + x)


class Reshaped(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y.view(y.shape))


class Same(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.same(self.conv(x)))


class Dropped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.off(self.drop(x))))


class DroppedBetween(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.drop(self.conv(x)))


class SharedNorm(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.other(self.bn(self.conv(x))))


class SharedConv(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(self.conv(x)))


class ReadsTheWeight(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + functional.conv2d(x, self.conv.weight, padding=1)


class ReadsTheStatistics(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn.running_var.sum()


class ChangedInPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.add_(1)
        return self.bn(y)


PAIR = Feed("conv", True, 1, 1)
CASES = {
    Plain: PAIR,
    ReadsTheShape: PAIR,
    Branches: Feed("conv", False, 1, 1),
    Returns: Feed("conv", False, 1, 1),
    Residual: Feed(calls=1),
    Reshaped: Feed(calls=1),
    Same: Feed(calls=1),
    Dropped: Feed("conv", True, 1, 1, ("drop",)),
    DroppedBetween: Feed(calls=1, dropouts=("drop",)),
    SharedNorm: Feed("conv", True, 2, 1),
    SharedConv: Feed("conv", True, 1, 2),
    ReadsTheWeight: Feed("conv", True, 1, 2),
    ReadsTheStatistics: Feed("conv", True, 2, 1),
}


def ways(model, x):
    return {"graph": wiring_from_graph(model), "run": wiring_from_run(model, lambda: model(x))}


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", ["graph", "run"])
def test_both_ways_agree(kind, way):
    assert ways(kind(), images())[way]["bn"] == CASES[kind]


@pytest.mark.parametrize("way", ["graph", "run"])
def test_an_output_changed_in_place_is_no_pair_to_fold(way):
    feed = ways(ChangedInPlace(), images())[way]["bn"]
    assert feed.producer is None or not feed.sole


@pytest.mark.parametrize("way", ["graph", "run"])
@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(CHANNELS, CHANNELS, 2), nn.Conv2d(CHANNELS, CHANNELS, 1, groups=2)]
)
@pytest.mark.parametrize("norm", [Ported, EpslessFrozen, NormAct])
def test_look_alikes_and_other_convolutions_are_pairs(way, layer, norm):
    model = nn.Sequential(nn.Sequential(layer, norm(CHANNELS)), nn.ReLU())
    assert ways(model, images())[way]["0.1"] == Feed("0.0", True, 1, 1)


@pytest.mark.parametrize("way", ["graph", "run"])
def test_a_linear_layer_is_a_producer(way):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert ways(model, torch.randn(5, 4))[way]["1"] == Feed("0", True, 1, 1)


@pytest.mark.parametrize("way", ["graph", "run"])
def test_a_functional_norm_is_met_at_the_operator(way):
    model = nn.Sequential(conv(), OwnsConv(CHANNELS))
    assert ways(model, images())[way]["1"] == Feed("1.conv", True, 1, 1, functional=True)


@pytest.mark.parametrize("way", ["graph", "run"])
def test_dropout_is_seen_up_to_the_norm_before(way):
    model = nn.Sequential(
        nn.Dropout(0.1), conv(), nn.BatchNorm2d(CHANNELS), nn.Dropout2d(0.1), conv(), nn.BatchNorm2d(CHANNELS)
    )
    wiring = ways(model, images())[way]
    assert wiring["2"].dropouts == ("0",)
    assert wiring["5"].dropouts == ("3",)


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


@dataclass
class Output:
    features: Tensor


class ReturnsDataclass(Branching):
    def forward(self, x: Tensor) -> tuple[Tensor, Output]:
        y = self.conv(x if x.sum() > 0 else -x)
        return self.bn(y), Output(y)


def test_a_model_with_control_flow_is_followed_on_data_or_unknown():
    model = Branching()
    assert wiring_from_graph(model) is None
    assert find_wiring(model)["bn"] == Feed()
    assert find_wiring(model, lambda: model(images()))["bn"] == PAIR


def test_an_output_inside_a_dataclass_is_used():
    model = ReturnsDataclass()
    assert find_wiring(model, lambda: model(images()))["bn"] == Feed("conv", False, 1, 1)


class Defaulted(Plain):
    def forward(self, x: Tensor, extra: Tensor | None = None, double: bool = False) -> Tensor:
        if extra is not None:
            x = self.bn(extra)
        return super().forward(x)


def test_optional_arguments_are_left_at_their_defaults():
    assert wiring_from_graph(Defaulted())["bn"] == PAIR


def test_nothing_of_the_model_changes():
    model = Branching().train()
    bits, state = snapshot(model), torch.get_rng_state()
    find_wiring(model, lambda: model(images()))
    with pytest.raises(RuntimeError):
        wiring_from_run(model, lambda: model(torch.zeros(1)))
    assert snapshot(model) == bits
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_norm_alone_has_no_feed():
    norm = nn.BatchNorm2d(CHANNELS)
    wiring = find_wiring(norm, lambda: norm(images()))
    assert wiring[""].producer is None
    assert wiring[""].calls == 1
