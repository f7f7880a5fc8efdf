"""Every layer of ours as a target of `convert`: what is exact, what is said, what comes back."""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from tests.models.kinds import Renamed, randomize, snapshot
from torch import Tensor, nn
from torch.nn import functional

import normwise
from normwise.core import running
from normwise.errors import DataError, ModelError, UsageError
from normwise.layers import (
    AcrossChannelNorm,
    BatchInfo,
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    GraphBatchNorm,
    GraphInstanceNorm,
    GraphLayerNorm,
    GraphNorm,
    PairNorm,
    TimewiseBatchNorm,
)
from normwise.layers.policy import FROZEN
from normwise.models.convert import ConversionWarning, convert

CHANNELS, POSITIONS, BATCH = 6, 9, 8
DOMAIN = partial(DomainBatchNorm, num_domains=3)
TIMEWISE = partial(TimewiseBatchNorm, max_length=POSITIONS)
CLASSES = partial(ConditionalBatchNorm, num_classes=5)
EMBEDDINGS = partial(ConditionalBatchNorm, embedding_features=4)
LIKE_PYG = partial(GraphBatchNorm, update=running.exponential)

NEW = "some parameters are new objects; make the optimizer anew"
# to: what the layer needs to know, so that it means nothing; what is told on the way there, and back.
ENDS = {
    "ours": (BatchNorm, {}, [], []),
    "masked": ("masked", {"mask": torch.ones(BATCH, POSITIONS, dtype=torch.bool)}, [], ["lengths and masks are ign"]),
    "ghost": ("ghost", {}, ["in training each part of a batch"], ["normalises the batch as a whole"]),
    "renorm": (BatchRenorm, {}, ["in training outputs are corrected"], ["no longer corrected"]),
    "domain": (DOMAIN, {"domain": torch.ones(BATCH, dtype=torch.long)}, [], ["domains are ignored"]),
    "timewise": (TIMEWISE, {}, ["in training each step is normalised"], ["steps and lengths are ignored"]),
    "classes": (CLASSES, {"condition": torch.arange(BATCH) % 5}, [NEW], ["conditions are ignored", NEW]),
    "embeddings": (EMBEDDINGS, {"condition": torch.randn(BATCH, 4).double()}, [NEW], ["conditions are ignored", NEW]),
}
TRAINS_THE_SAME = ["ours", "masked", "domain", "classes", "embeddings"]
NODES = {
    "graph": (GraphBatchNorm, ["now takes in the variance between batches"], ["no longer takes in the variance"]),
    "graph as pyg": (LIKE_PYG, [], []),
}


def net(**options) -> nn.Module:
    """A convolution, its norm, and another of each."""
    norms = (nn.BatchNorm1d(CHANNELS, **options) for _ in range(2))
    first, second = (nn.Conv1d(c, CHANNELS, 3, padding=1, bias=False) for c in (2, CHANNELS))
    one, other = norms
    return randomize(nn.Sequential(first, one, nn.ReLU(), second, other)).double().eval()


def batch(seed: int = 0) -> Tensor:
    return torch.randn(BATCH, 2, POSITIONS, generator=torch.Generator().manual_seed(seed)).double() * 2 + 1


def quietly(model: nn.Module, to, **options) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return convert(model, to, **options)


@contextmanager
def telling(*texts: str):
    """Expect these conversion warnings, in this order, and nothing else."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in told] == [ConversionWarning] * len(texts), [str(w.message) for w in told]
    for text, warning in zip(texts, told, strict=True):
        assert text in str(warning.message)


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """One step in training mode; return outputs, the gradient of x, and the parameters' gradients."""
    x = x.clone().requires_grad_()
    y = model.train()(x)
    model.zero_grad()
    (y * torch.linspace(-1, 2, y.numel()).view_as(y).to(y)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("name", ENDS)
def test_evaluation_is_the_old_layers(name):
    to, info, _, _ = ENDS[name]
    model, x = net(), batch()
    expected = model(x)
    assert quietly(model, to) is model
    assert not any(module.training for module in model.modules())
    with BatchInfo(**info):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("name", TRAINS_THE_SAME)
def test_training_is_the_old_layers_where_there_is_nothing_to_tell_apart(name, options):
    to, info, _, _ = ENDS[name]
    model = net(**options)
    reference = copy.deepcopy(model)
    quietly(model, to)
    with BatchInfo(**info):
        for seed in range(3):
            found, expected = step(model, batch(seed)), step(reference, batch(seed))
            torch.testing.assert_close(found[:2], expected[:2], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(model[0].weight.grad, reference[0].weight.grad, rtol=1e-9, atol=1e-9)
    for ours, theirs in ((model[1], reference[1]), (model[4], reference[4])):
        for key, table in theirs.named_buffers():
            row = ours.get_buffer(key)
            torch.testing.assert_close(row[1] if name == "domain" else row, table, rtol=1e-12, atol=1e-12)
        if theirs.affine:
            by_class = ours.weight.grad.sum(0) if name == "classes" else None
            grad = ours.modulation.bias.grad[:CHANNELS] if name == "embeddings" else ours.weight.grad
            torch.testing.assert_close(grad if by_class is None else by_class, theirs.weight.grad, rtol=1e-9, atol=1e-9)


def test_the_domain_that_is_met_follows_the_batches_and_no_other():
    model = net()
    reference, before = copy.deepcopy(model), copy.deepcopy(model[1].running_mean)
    convert(model, DOMAIN)
    with BatchInfo(domain=torch.ones(BATCH, dtype=torch.long)):
        step(model, batch())
    step(reference, batch())
    torch.testing.assert_close(model[1].running_mean, torch.stack([before, reference[1].running_mean, before]))
    assert model[1].num_batches_tracked.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ENDS)
def test_there_and_back_restores_state_and_behaviour_bit_for_bit(name):
    to, _, there, back = ENDS[name]
    model = net(eps=1e-4, momentum=0.3).train()
    model[1].num_batches_tracked.fill_(7)
    model[1].weight.requires_grad_(False)
    model[1].bias.requires_grad_(name != "embeddings")  # which has one tensor for both
    reference, weight = copy.deepcopy(model), model[1].weight
    with telling(*there):
        convert(model, to)
    with telling(*back):
        convert(model, "torch")
    assert [type(module) for module in model] == [type(module) for module in reference]
    assert repr(model) == repr(reference)
    assert (model[1].weight is weight) is (name not in ("classes", "embeddings"))
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in reference.parameters()]
    assert model.training
    assert model[4].training
    assert snapshot(model) == snapshot(reference)
    assert torch.equal(copy.deepcopy(model).eval()(batch()), copy.deepcopy(reference).eval()(batch()))
    torch.testing.assert_close(step(model, batch())[0], step(reference, batch())[0], rtol=0, atol=0)
    assert snapshot(model) == snapshot(reference)


@pytest.mark.parametrize("name", NODES)
def test_nodes_there_and_back(name):
    to, there, back = NODES[name]
    model, x = randomize(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).double(), torch.randn(7, 3).double()
    reference, weight = copy.deepcopy(model), model[1].weight
    with telling(*there):
        convert(model, to)
    assert isinstance(model[1], GraphBatchNorm)
    assert model[1].module.weight is weight
    evaluated = convert(copy.deepcopy(reference).eval(), LIKE_PYG)
    assert not any(module.training for module in evaluated.modules())
    torch.testing.assert_close(evaluated(x), copy.deepcopy(reference).eval()(x))
    torch.testing.assert_close(copy.deepcopy(model).eval()(x), evaluated(x))
    torch.testing.assert_close(copy.deepcopy(model)(x), copy.deepcopy(reference)(x))
    with telling(*back):
        convert(model, "torch")
    assert type(model[1]) is nn.BatchNorm1d
    assert snapshot(model) == snapshot(reference)
    assert torch.equal(model(x), reference(x))
    assert snapshot(model) == snapshot(reference)


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
def test_from_any_to_any(first, second):
    model, x = net(), batch()
    expected, state = model(x), snapshot(model)
    quietly(quietly(model, ENDS[first][0]), ENDS[second][0])
    with BatchInfo(**ENDS[second][1]):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    assert snapshot(quietly(model, "torch")) == state


@pytest.mark.parametrize(("name", "field"), [("masked", "lengths"), ("domain", "domain"), ("classes", "condition")])
def test_what_a_layer_must_know_is_asked_for(name, field):
    model = quietly(net(), ENDS[name][0])
    with pytest.raises(DataError, match=f"run the model inside `with BatchInfo\\({field}="):
        model(batch())


def test_padding_is_left_out_once_lengths_are_known():
    """What conversion is for: the padded batch gives what the model gives on each sequence alone."""
    model, x, lengths = net(), batch(), torch.tensor([9, 3, 5, 9, 1, 2, 7, 4])
    kernel_one = nn.Sequential(nn.Conv1d(2, CHANNELS, 1).double(), model[1])
    x = x.masked_fill(torch.arange(POSITIONS) >= lengths.view(-1, 1, 1), 1e3)
    alone = torch.cat([x[i, :, :length].T for i, length in enumerate(lengths)]).T.unsqueeze(0)
    expected = copy.deepcopy(kernel_one).train()(alone)
    convert(kernel_one.train(), "masked")
    with BatchInfo(lengths=lengths):
        y = kernel_one(x)
    found = torch.cat([y[i, :, :length].T for i, length in enumerate(lengths)]).T.unsqueeze(0)
    torch.testing.assert_close(found, expected)


# --- tables by group


def test_every_domain_gets_the_statistics_and_the_history():
    model = net(momentum=None)
    model[1].num_batches_tracked.fill_(5)
    mean = model[1].running_mean.clone()
    convert(model, partial(DomainBatchNorm, num_domains=4, unseen=None))
    layer = model[1]
    assert torch.equal(layer.running_mean, mean.expand(4, -1))
    assert layer.num_batches_tracked.tolist() == [5] * 4
    assert layer.momentum is None
    assert layer.unseen is None
    layer.running_mean[0].zero_()
    assert torch.equal(layer.running_mean[1:], mean.expand(3, -1))  # rows are each domain's own


def test_an_affine_by_domain_is_a_copy_a_domain():
    model, x = net(), batch()
    expected = model(x)
    with telling(NEW):
        convert(model, partial(DomainBatchNorm, num_domains=3, affine_by_domain=True))
    assert model[1].weight.shape == (3, CHANNELS)
    assert isinstance(model[1].weight, nn.Parameter)
    with BatchInfo(domain=torch.arange(BATCH) % 3):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("to", [DOMAIN, TIMEWISE])
def test_groups_that_went_apart_are_merged_by_their_batches_and_that_is_told(to):
    model = quietly(net(), to, where=["1"])
    layer = model[1]
    rows = torch.tensor([[1.0], [5.0]]).double().expand(2, CHANNELS)  # of the others no batch is counted
    layer.running_mean[:2] = rows
    layer.running_var[:2] = rows + 1
    layer.num_batches_tracked[:2] = torch.tensor([3, 1])
    with telling("are ignored from now on", "statistics differ and were merged, weighted by their batches"):
        convert(model, "torch")
    mean = (3 * 1 + 1 * 5) / 4
    variance = (3 * (2 + (1 - mean) ** 2) + 1 * (6 + (5 - mean) ** 2)) / 4
    torch.testing.assert_close(model[1].running_mean, torch.full((CHANNELS,), mean).double())
    torch.testing.assert_close(model[1].running_var, torch.full((CHANNELS,), variance).double())
    assert int(model[1].num_batches_tracked) == 3


def test_groups_that_differ_and_were_never_counted_weigh_the_same():
    model = convert(net(), DOMAIN, where=["1"])
    model[1].running_mean += torch.tensor([[0.0], [1.0], [2.0]])
    middle = model[1].running_mean[1].clone()
    quietly(model, "torch")
    torch.testing.assert_close(model[1].running_mean, middle)


@pytest.mark.parametrize("to", [CLASSES, EMBEDDINGS, partial(DomainBatchNorm, num_domains=3, affine_by_domain=True)])
def test_affines_that_differ_are_not_made_one(to):
    model = quietly(net(), to)
    table = model[1].weight if model[1].weight is not None else model[1].modulation.weight
    with torch.no_grad():
        table[1] += 1
    layer = model[1]
    with pytest.raises(ModelError, match=r"layer '1' \(\w+\) has a weight and a bias by group, and they differ"):
        quietly(model, "torch")
    assert model[1] is layer


def test_conditions_start_where_there_was_no_affine():
    model = quietly(net(affine=False), CLASSES, where=["1"])
    assert torch.equal(model[1].weight, torch.ones(5, CHANNELS).double())
    norm = nn.BatchNorm1d(CHANNELS, dtype=torch.float64)
    norm.bias = None
    assert torch.equal(quietly(norm, CLASSES).bias, torch.zeros(5, CHANNELS).double())


# --- layers without running statistics


@pytest.mark.parametrize("affine", [True, False])
def test_across_channels_is_layer_norm_at_each_position(affine):
    model, x = net(affine=affine), batch()
    weight, bias = model[1].weight, model[1].bias
    with pytest.warns(ConversionWarning, match="not exact: each position is now normalised over its channels"):
        convert(model, AcrossChannelNorm, where=["1"])
    assert model[1].weight is weight
    assert not list(model[1].buffers())
    y = model[0](x)
    expected = functional.layer_norm(y.mT, (CHANNELS,), weight, bias, 1e-5).mT
    torch.testing.assert_close(model[1](y), expected)


@pytest.mark.parametrize("kind", [GraphNorm, GraphInstanceNorm, GraphLayerNorm, partial(GraphLayerNorm, mode="node")])
def test_batch_norm_of_nodes_becomes_a_norm_of_graphs(kind):
    layer = randomize(nn.BatchNorm1d(4, eps=1e-3))
    graph, x = torch.tensor([0, 0, 1, 1, 1]), torch.randn(5, 4)
    name = getattr(kind, "func", kind).__name__
    with telling("not exact: each graph", *([NEW] if kind is GraphNorm else [])):
        new = convert(layer, kind)
    assert type(new).__name__ == name
    assert new.weight is layer.weight
    assert new.eps == 1e-3
    expected = kind(4, eps=1e-3, **({"affine": True} if name == "GraphInstanceNorm" else {}))
    expected.weight, expected.bias = layer.weight, layer.bias
    with BatchInfo(graph=graph):
        torch.testing.assert_close(new(x), expected(x))
    assert not list(new.buffers())


def test_pair_norm_takes_no_batch_norms_place():
    layer = nn.BatchNorm1d(4)
    with pytest.raises(ModelError, match="is no PairNorm, which has no weight and bias to take over"):
        convert(nn.Sequential(layer), PairNorm)


# --- spectral


def test_spectral_norm_takes_the_norms_place_on_the_layer_in_front():
    model = net()
    weight, x = model[0].weight, batch()
    with pytest.warns(ConversionWarning, match=r"2 layers \('1', ...\): not exact: the norm is removed"):
        convert(model, "spectral")
    assert isinstance(model[1], nn.Identity)
    assert isinstance(model[4], nn.Identity)
    assert model[0].parametrizations.weight.original is weight
    for conv in (model[0], model[3]):
        largest = torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2).item()
        assert largest == pytest.approx(1, rel=1e-3)  # 15 power iterations
    torch.testing.assert_close(model(x), model[3](model[0](x).relu()))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    before = weight.detach().clone()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(weight, before)


class Twice(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(self.conv(x)) + self.other(self.conv(x))


class Untraceable(nn.Sequential):
    """A network whose way depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2)), "not known to take the output of one convolution"),
        (lambda: Untraceable(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)), "not known to take the output of one convolution"),
        (Twice, "or 'conv' in front of it is used more than once"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 2, 1)), nn.BatchNorm1d(2)),
            "parametrized already",
        ),
    ],
)
def test_spectral_norm_is_refused_where_its_place_is_not_known(build, text):
    model = build()
    before, modules = snapshot(model), list(model.modules())
    with pytest.raises(ModelError, match=text):
        convert(model, "spectral")
    assert snapshot(model) == before
    assert list(model.modules()) == modules


# --- what is kept


@pytest.mark.parametrize("to", ["masked", DOMAIN, CLASSES, GraphBatchNorm, LIKE_PYG])
def test_hooks_modes_and_freezes_are_kept(to):
    model, calls = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(), []
    model[1].register_forward_hook(lambda module, args, output: calls.append(module))
    normwise.freeze(model)
    quietly(model, to)
    state = snapshot(model)
    info = {
        "mask": torch.ones(5, dtype=torch.bool),
        "domain": torch.zeros(5).long(),
        "condition": torch.zeros(5).long(),
    }
    with BatchInfo(**info):
        model.train()(torch.randn(5, 3))
        assert calls == [model[1]]
        assert snapshot(model) == state
        normwise.unfreeze(model).train()(torch.randn(5, 3))
    assert snapshot(model) != state


def test_a_frozen_affine_that_changes_its_names_is_refused_both_ways():
    model = normwise.freeze(net(), affine=True)
    with pytest.raises(ModelError, match="is frozen and its parameters will get other names"):
        quietly(model, EMBEDDINGS)
    model = normwise.freeze(quietly(normwise.unfreeze(model), EMBEDDINGS))
    with pytest.raises(ModelError, match="is frozen and its parameters will get other names"):
        quietly(model, "masked")


def test_ours_frozen_stay_frozen_among_ours_and_are_refused_by_torchs():
    model = normwise.freeze(convert(net(), DOMAIN))
    quietly(model, "masked")
    assert model[1].policy == FROZEN
    with pytest.raises(ModelError, match="frozen in a way torch's layers cannot be"):
        quietly(model, "torch")
    normwise.unfreeze(model)
    assert type(quietly(model, "torch")[1]) is nn.BatchNorm1d


def test_fixed_look_alikes_stay_fixed_and_buffers_buffers():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eps = 1e-5
            for name, value in (("weight", 2.0), ("bias", 1.0), ("running_mean", 3.0), ("running_var", 4.0)):
                self.register_buffer(name, torch.full((1, 3, 1, 1) if name.startswith("run") else (3,), value))

        def forward(self, x: Tensor) -> Tensor:
            x_hat = (x - self.running_mean) * (self.running_var + self.eps).rsqrt()
            return x_hat * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    model, x = nn.Sequential(Fixed()), torch.randn(2, 3, 4, 4)
    expected = model(x)
    known = {"mask": torch.ones(2, 4, 4, dtype=torch.bool), "domain": torch.tensor([2, 0])}
    for to in ("normwise", "masked", DOMAIN, CLASSES, BatchNorm):
        quietly(model, to)
        assert not list(model.parameters())
        with BatchInfo(condition=torch.tensor([4, 1]), **known):
            torch.testing.assert_close(model.train()(x), expected)
    assert model[0].running_mean.shape == (3,)


def test_buffers_outside_the_state_dict_stay_outside():
    norm = nn.BatchNorm1d(4)
    norm._non_persistent_buffers_set.add("running_mean")
    for to in ("masked", DOMAIN, "masked", "torch"):
        norm = quietly(norm, to)
        assert "running_mean" not in norm.state_dict()
        assert "running_var" in norm.state_dict()


def test_half_precision_tables_stay_so():
    model = nn.BatchNorm1d(4).to(torch.bfloat16)
    for to in (DOMAIN, CLASSES, EMBEDDINGS, AcrossChannelNorm):
        tables = [*quietly(copy.deepcopy(model), to).state_dict().values()]
        assert {table.dtype for table in tables if table.is_floating_point()} == {torch.bfloat16}


def test_ours_stay_under_normwise_and_the_same_class_with_the_same_options_stays():
    model = quietly(net(), "ghost")
    ghost = model[1]
    assert convert(model, "normwise")[1] is ghost
    assert convert(model, "ghost")[1] is ghost
    with pytest.warns(ConversionWarning) as told:
        convert(model, partial(GhostBatchNorm, splits=2))
    assert model[1].splits == 2
    assert len(told) == 1  # not that parts are given up: there are parts again
    nodes = quietly(nn.BatchNorm1d(3), LIKE_PYG)
    assert convert(nodes, LIKE_PYG) is nodes


def test_synchronised_norms_say_that_they_are_local_now():
    with pytest.warns(ConversionWarning, match="no longer synchronised between processes"):
        convert(nn.SyncBatchNorm(4), "masked")


def test_renamed_look_alikes_become_any_layer():
    norm = randomize(Renamed(4)).eval()
    x = torch.randn(3, 4, 5, 5)
    new = convert(norm, "masked")
    with BatchInfo(mask=torch.ones(3, 5, 5, dtype=torch.bool)):
        torch.testing.assert_close(new(x), norm(x))
    assert new.weight is norm.weight


# --- refusals


@pytest.mark.parametrize(
    ("to", "text"),
    [
        ("domain", r"DomainBatchNorm needs num_domains, .* functools.partial\(DomainBatchNorm, num_domains=...\)"),
        (TimewiseBatchNorm, "TimewiseBatchNorm needs max_length"),
        (GhostBatchNorm, "GhostBatchNorm needs splits"),
        (ConditionalBatchNorm, "exactly one of num_classes and embedding_features"),
        (partial(GhostBatchNorm, splits=0), "cannot be constructed: splits must be at least 1"),
        (partial(GhostBatchNorm, split=2), "takes splits here, got split; the rest is the old layer's"),
        (partial(BatchRenorm, eps=1e-3), "takes r_max, d_max here, got eps"),
        (partial(BatchNorm, momentum=0.2), "takes none here, got momentum"),
        (partial(GhostBatchNorm, 4), "is not known"),
        (partial(normwise.layers.BatchNormAct, activation=torch.relu), "BatchNormAct takes none here, got activation"),
        (normwise.layers.BatchInfo, "is not known; expected one of .* BatchNorm, BatchRenorm.* PairNorm, BatchNormAct"),
    ],
)
def test_options_that_do_not_fit_are_refused(to, text):
    with pytest.raises(UsageError, match=f"to: .*{text}"):
        convert(net(), to)


@pytest.mark.parametrize("to", [TIMEWISE, GraphBatchNorm, GraphNorm])
def test_layers_of_other_ranks_are_refused_before_anything_changes(to):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Unflatten(1, (3, 1, 1)), nn.BatchNorm2d(3))
    first = model[0]
    with pytest.raises(ModelError, match=r"layer '2' \(BatchNorm2d\) does not take the inputs of [23] dimensions"):
        quietly(model, to)
    assert model[0] is first


def test_single_nodes_need_statistics():
    with pytest.raises(UsageError, match="allow_single_element must be False without track_running_stats"):
        convert(nn.BatchNorm1d(3, track_running_stats=False), partial(LIKE_PYG, allow_single_element=True))


def test_renormalisation_needs_statistics():
    with pytest.raises(ModelError, match="tracks no statistics, which BatchRenorm corrects towards"):
        quietly(net(track_running_stats=False), BatchRenorm)


def test_instance_norm_of_graphs_is_not_batch_norm():
    model = nn.Sequential(GraphInstanceNorm(3, affine=True, track_running_stats=True))
    with pytest.raises(ModelError, match="in a way that batch normalization does not"):
        convert(model, "torch")


def test_a_warning_that_is_an_error_leaves_the_model_as_it_was():
    model = net()
    before, modules = snapshot(model), list(model.modules())
    for to in ("ghost", "spectral"):
        with pytest.raises(ConversionWarning):
            convert(model, to)
    assert snapshot(model) == before
    assert list(model.modules()) == modules
