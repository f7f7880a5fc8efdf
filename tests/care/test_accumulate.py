"""Accumulated gradients and running statistics are those of the whole batch, and nothing else happens."""

import copy
import doctest
import random
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.kinds import FrozenBatchNorm2d, OwnsConv, Ported, Renamed, SubclassedNorm, snapshot
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import normwise
from normwise import BatchInfo, Task
from normwise.core.kernels import use_backend
from normwise.errors import DataError, ModelError, NormwiseError, ShapeError
from normwise.layers import (
    BatchNorm,
    BatchNormAct,
    BatchRenorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    GraphBatchNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)
from normwise.layers.policy import Source, StatisticsPolicy
from normwise.studies.data import digits

SIZES = [5, 1, 10, 7]
CLASSES = 4


class Residual(nn.Module):
    """Two norms in a row beside a third one, and an addition that is rectified in place."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c, momentum=None)
        self.shortcut, self.bn3 = nn.Conv2d(c, c, 1), nn.BatchNorm2d(c, momentum=0.3, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.bn3(self.shortcut(x)))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), Residual(6), nn.MaxPool2d(2), Residual(6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def mlp(norm: Callable[[int], nn.Module] = nn.BatchNorm1d, between: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        norm(5), nn.Linear(5, 8), norm(8), nn.Tanh(), between or nn.Identity(),
        nn.Linear(8, 8), norm(8), nn.ReLU(inplace=True), nn.Linear(8, 8), norm(8), nn.Linear(8, CLASSES),
    )  # fmt: skip


def sequences(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(5, 6, 3, padding=1), norm(6), nn.Tanh(), nn.Conv1d(6, 6, 3, padding=1), norm(6), nn.Tanh(),
        nn.Conv1d(6, 6, 3, padding=1), norm(6), nn.Flatten(), nn.Linear(36, CLASSES),
    )  # fmt: skip


def prepared(model: nn.Module) -> nn.Module:
    """Return the model in float64, with parameters and buffers that show."""
    model = model.double()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.add_(0.3 * torch.rand_like(tensor) if "var" in name else 0.3 * torch.randn_like(tensor))
        elif "num_batches" in name:
            tensor.fill_(3)
    return model


def data(*shape: int) -> tuple[Tensor, Tensor]:
    """Return samples whose means and scales differ, and labels."""
    n, ones = sum(SIZES), [1] * (len(shape) - 1)
    x = torch.randn(n, *shape) * torch.linspace(0.5, 3, n).view(n, 1, *ones) + torch.randn(n, shape[0], *ones)
    return x.double(), torch.arange(n) % CLASSES


def split(batch: tuple[Tensor, ...], sizes: list[int] = SIZES) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(sizes) for tensor in batch), strict=True))


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def whole(model: nn.Module, batch: tuple[Tensor, ...], task: Task | None = None) -> tuple[nn.Module, Tensor]:
    """Take one plain step of the whole batch with a copy."""
    model, task = copy.deepcopy(model), task or Task()
    loss = task.losses(model, task.run(model, batch), batch).mean()
    loss.backward()
    return model, loss.detach()


def difference(found: nn.Module, expected: nn.Module) -> float:
    """Return the largest one between two models' gradients."""
    mine, others = gradients(found), gradients(expected)
    assert [name for name in mine if mine[name] is None] == [name for name in others if others[name] is None]
    return max(
        (mine[name].double() - others[name].double()).abs().max().item() for name in mine if mine[name] is not None
    )


def size(model: nn.Module) -> float:
    return max(gradient.abs().max().item() for gradient in gradients(model).values() if gradient is not None)


def assert_as_whole(model: nn.Module, batch: tuple[Tensor, ...], task: Task | None = None):
    """Accumulate over the parts of a batch, and compare what is left with a step of the whole batch."""
    expected, expected_loss = whole(model, batch, task)
    loss = normwise.accumulate(model, iter(split(batch)), task=task)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-12)
    assert difference(model, expected) <= 1e-10
    assert size(expected) > 1e-3
    buffers = dict(expected.named_buffers())
    for name, found in model.named_buffers():
        assert torch.allclose(found, buffers[name], rtol=1e-12, atol=1e-12), name
    return expected


@pytest.mark.parametrize(("build", "shape"), [(mlp, (5,)), (cnn, (3, 7, 7))])
def test_gradients_and_statistics_are_those_of_the_whole_batch(build, shape):
    assert_as_whole(prepared(build()), data(*shape))


@pytest.mark.parametrize(("build", "shape"), [(mlp, (5,)), (cnn, (3, 7, 7))])
def test_those_of_plain_accumulation_are_not(build, shape):
    model, batch = prepared(build()), data(*shape)
    expected, _ = whole(model, batch)
    for x, y in split(batch, [6, 10, 7]):
        (functional.cross_entropy(model(x), y, reduction="sum") / sum(SIZES)).backward()
    assert difference(model, expected) > 0.1 * size(expected)
    assert (
        model[1 if build is cnn else 0].running_var - expected[1 if build is cnn else 0].running_var
    ).abs().max() > 0.1


NORMS_OF_SEQUENCES = {
    "torch": nn.BatchNorm1d,
    "untracked": lambda c: nn.BatchNorm1d(c, track_running_stats=False),
    "without affine": lambda c: nn.BatchNorm1d(c, affine=False),
    "renamed": Renamed,
    "ours": BatchNorm,
    "ours, cumulative": lambda c: BatchNorm(c, momentum=None),
    "ours, untracked": lambda c: BatchNorm(c, track_running_stats=False),
    "activation": lambda c: BatchNormAct(c, functional.silu),
    "masked": MaskedBatchNorm,
    "conditional": lambda c: ConditionalBatchNorm(c, num_classes=3),
    "renorm": lambda c: BatchRenorm(c, r_max=1.2, d_max=0.2),
    "domain": lambda c: DomainBatchNorm(c, num_domains=3, affine_by_domain=True),
    "timewise": lambda c: TimewiseBatchNorm(c, max_length=8),
}


@pytest.mark.parametrize("kind", NORMS_OF_SEQUENCES)
def test_every_kind_of_norm(kind):
    x, y = data(5, 6)
    n = len(x)
    batch = (x, y, torch.randint(1, 7, (n,)), torch.arange(n) % 3)
    task = Task(
        forward=lambda model, batch: model(batch[0]),
        loss=lambda output, batch: functional.cross_entropy(output, batch[1], reduction="none"),
        info=lambda batch: BatchInfo(lengths=batch[2], condition=batch[3], domain=batch[3]),
    )
    assert_as_whole(prepared(sequences(NORMS_OF_SEQUENCES[kind])), batch, task)


@pytest.mark.parametrize("norm", [BatchNorm, GraphBatchNorm, lambda c: BatchNormAct(c, functional.silu)])
def test_our_norms_of_rows_take_micro_batches_of_one_sample(norm):
    assert_as_whole(prepared(mlp(norm)), data(5))


def test_a_norm_that_is_the_whole_model():
    torch.manual_seed(1)
    model, (x, _) = prepared(SubclassedNorm(3)), data(3, 4, 4)
    assert_as_whole(model, (x, torch.randn_like(x)))


def test_a_norm_inside_another_module_and_a_fixed_look_alike():
    model = nn.Sequential(OwnsConv(3), FrozenBatchNorm2d(3), nn.Flatten(), nn.Linear(48, CLASSES))
    assert_as_whole(prepared(model), data(3, 4, 4))


class Wired(nn.Module):
    """Three norms and three maps between the same features, to be wired by the test."""

    def __init__(self, wire: Callable, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(5, 5) for _ in range(3))
        self.bn1, self.bn2, self.bn3 = (norm(5) for _ in range(3))
        self.wire = wire

    def forward(self, x: Tensor) -> Tensor:
        return self.wire(self, x)


def used_twice(m: Wired, x: Tensor) -> Tensor:
    return m.bn1(m.c(torch.tanh(m.bn1(m.b(torch.tanh(m.bn1(m.a(x))))))))


def through_a_residual(m: Wired, x: Tensor) -> Tensor:
    return m.bn3(m.c(m.bn2(m.b(x), m.bn1(m.a(x)))), x)


def past_a_stopped_gradient(m: Wired, x: Tensor) -> Tensor:
    y = torch.tanh(m.bn1(m.a(x)))
    with torch.no_grad():
        target = m.bn2(m.b(y))
    return m.bn3(m.c(y)) * target + m.b(x)


def with_an_unused_norm(m: Wired, x: Tensor) -> Tensor:
    y = torch.tanh(m.bn1(m.a(x)))
    m.bn2(m.b(y))
    return m.bn3(m.c(y))


def side_by_side(m: Wired, x: Tensor) -> Tensor:
    return m.c(torch.tanh(m.bn1(m.a(x)))) + m.c(torch.tanh(m.bn2(m.b(x)))) + m.bn3(m.a(x).sin())


@pytest.mark.parametrize("wire", [used_twice, past_a_stopped_gradient, with_an_unused_norm, side_by_side])
def test_other_wirings(wire):
    assert_as_whole(prepared(Wired(wire)), data(5))


def test_a_norm_that_feeds_another_only_through_its_residual():
    with use_backend("reference"):
        assert_as_whole(prepared(Wired(through_a_residual, lambda c: BatchNormAct(c, torch.tanh))), data(5))


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, BatchNorm])
def test_norms_in_evaluation_mode_or_frozen_keep_their_statistics(kind):
    model = prepared(mlp(kind))
    model[2].eval()
    normwise.freeze(model[6])
    model[8].weight.requires_grad_(False)
    kept = {name: model.state_dict()[name].clone() for name in ("2.running_mean", "6.running_var")}
    assert_as_whole(model, data(5))
    assert all(torch.equal(model.state_dict()[name], table) for name, table in kept.items())
    assert model[8].weight.grad is None


def test_a_model_in_evaluation_mode_and_norms_within_a_sample_accumulate_plainly():
    assert_as_whole(prepared(cnn()).eval(), data(3, 7, 7))
    norms = [nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(3, 3), nn.LayerNorm(7)]
    assert_as_whole(prepared(nn.Sequential(*norms, nn.Flatten(), nn.Linear(147, CLASSES))), data(3, 7, 7))


class Drop(nn.Module):
    """Dropout whose mask draws from every generator there is, and is kept by the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand(x.shape).gt(0.4) * (1 + random.random()) * (1 + np.random.rand())
        self.masks.setdefault(len(x), []).append(mask)
        return x * mask


class Given(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def test_a_micro_batch_draws_the_same_random_numbers_in_every_pass():
    drop, batch = Drop(), data(5)
    model = prepared(mlp(between=drop))
    like = copy.deepcopy(model)
    states = random.getstate(), np.random.get_state()[1].tolist()
    normwise.accumulate(copy.deepcopy(model), split(batch))
    other = copy.deepcopy(drop.masks)
    before = torch.get_rng_state()
    normwise.accumulate(model, split(batch))
    for n in SIZES:
        assert len(drop.masks[n]) > 4
        assert all(torch.equal(mask, drop.masks[n][0]) for mask in drop.masks[n])
        assert n not in other or not torch.equal(other[n][0], drop.masks[n][0])
    like[4] = Given(torch.cat([drop.masks[n][0] for n in SIZES]))
    expected, _ = whole(like, batch)
    assert difference(model, expected) <= 1e-10
    assert not torch.equal(torch.get_rng_state(), before)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


class Counted(nn.Module):
    """Counts its calls in a list, which nothing puts back, and in a buffer."""

    def __init__(self, calls: list[int]) -> None:
        super().__init__()
        self.calls = calls
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        self.count += 1
        return x


def test_the_number_of_passes_and_buffers_after_one_of_them():
    started, finished = [], []
    model = nn.Sequential(Counted(started), prepared(mlp()), Counted(finished))
    normwise.accumulate(model, split(data(5)))
    batches, norms, behind = len(SIZES), 4, 3  # nothing is to be learnt below the first norm
    assert len(finished) == 1 + batches * (behind + 1)
    assert len(started) == len(finished) + batches * norms
    assert model[0].count == model[2].count == 1
    finished.clear()
    normwise.accumulate(nn.Sequential(prepared(Wired(side_by_side)), Counted(finished)), split(data(5)))
    assert len(finished) == 1 + batches * (1 + 1)


def test_spectral_norm_takes_one_step():
    model = prepared(mlp())
    nn.utils.parametrizations.spectral_norm(model[5], n_power_iterations=3)
    assert_as_whole(model.train(), data(5))


def test_gradients_are_added_to_those_there_and_to_leaves_outside_the_model():
    model, batch = prepared(mlp()), data(5)
    centres = torch.randn(CLASSES, dtype=torch.float64, requires_grad=True)
    task = Task(loss=lambda output, batch: (output - centres).square().mean(1) * (1 + batch[1]))
    expected, _ = whole(model, batch, task)
    outside, centres.grad = centres.grad, None
    there = torch.ones_like(model[1].weight)
    model[1].weight.grad = there
    normwise.accumulate(model, split(batch), task=task)
    assert model[1].weight.grad is there
    torch.testing.assert_close(there - 1, expected[1].weight.grad)
    torch.testing.assert_close(centres.grad, outside)


def test_samples_count_equally_and_those_of_unknown_label_not_at_all():
    model, (x, y) = prepared(mlp()), data(5)
    y = torch.where(torch.arange(len(y)) % 4 == 1, -1, y)
    assert_as_whole(model, (x, y))


def test_training_on_digits_follows_training_on_whole_batches():
    images, labels = digits()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Residual(8), nn.Flatten(), nn.Linear(288, 10)
    )
    model = model.double()
    other = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (model, other)]
    start = snapshot(model)
    for step in range(5):
        x, y = images[step * 60 :][:60].double(), labels[step * 60 :][:60]
        for optimizer in optimizers:
            optimizer.zero_grad()
        normwise.accumulate(model, zip(x.split([30, 20, 10]), y.split([30, 20, 10]), strict=True))
        functional.cross_entropy(other(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert snapshot(model) != start
    for (name, found), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


class Held:
    """A tensor kept for the backward pass, and how many values are kept at once."""

    now = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # or what an operation saves of its own output would keep the operation
        Held.now += tensor.numel()
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= self.tensor.numel()


def most_held(run: Callable[[], object]) -> int:
    Held.now = Held.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        run()
    assert Held.now == 0
    return Held.most


def test_the_activations_of_one_micro_batch_are_alive_at_a_time():
    model, parts = prepared(cnn()), 6
    x, y = torch.randn(8 * parts, 3, 10, 10).double(), torch.arange(8 * parts) % CLASSES
    one = most_held(lambda: functional.cross_entropy(model(x[:8]), y[:8]).backward())
    everything = most_held(lambda: functional.cross_entropy(model(x), y).backward())
    accumulated = most_held(lambda: normwise.accumulate(model, zip(x.split(8), y.split(8), strict=True)))
    assert everything > 5 * one
    assert accumulated < 1.5 * one  # the input of each norm is kept by two operations, which share it


@pytest.mark.parametrize("around", ["forward", "everything"])
def test_autocast(around):
    model = nn.Sequential(
        nn.BatchNorm1d(5), nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.Flatten(), nn.Linear(60, CLASSES)
    )
    x, y = data(5, 12)
    x = x.float()
    cast = torch.autocast("cpu", dtype=torch.bfloat16)

    def forward(model, batch):
        with cast:
            return model(batch[0]).float()

    task = Task(
        forward=forward, loss=lambda output, batch: functional.cross_entropy(output, batch[1], reduction="none")
    )
    expected, _ = whole(model, (x, y), task)
    with use_backend("reference"), nullcontext() if around == "forward" else cast:
        normwise.accumulate(model, split((x, y)), task=task if around == "forward" else None)
    assert difference(model, expected) < 0.05 * size(expected)
    torch.testing.assert_close(model[0].running_var, expected[0].running_var, rtol=1e-5, atol=0)
    torch.testing.assert_close(model[2].running_var, expected[2].running_var, rtol=1e-2, atol=0)


def test_single_precision_at_a_large_offset():
    torch.manual_seed(0)
    model, (x, y) = mlp(), data(5)
    x = (x / 2 + 3e3).float().double()
    exact, _ = whole(copy.deepcopy(model).double(), (x, y))
    plain, _ = whole(model, (x.float(), y))
    normwise.accumulate(model, split((x.float(), y)))
    assert difference(model, exact) <= 2 * difference(plain, exact)


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_model_runs_as_written(inside):
    model, batch = prepared(mlp()), data(5)
    expected, _ = whole(model, batch)
    if inside:
        model.compile(backend="eager")
    normwise.accumulate(model if inside else torch.compile(model, backend="eager"), split(batch))
    assert difference(model, expected) <= 1e-10


class Stop(BaseException):
    pass


class Failing(nn.Module):
    """Changes what it can, and fails at a call of its own choice."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = [calls]
        self.note = "as it was"
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.note = "changed"
        self.count += 1
        torch.rand(3), random.random(), np.random.rand()
        self.left[0] -= 1
        if not self.left[0]:
            self.eval()
            raise Stop
        return x


@pytest.mark.parametrize("calls", [1, 5, 18, 25])  # in the scout, the statistics, their gradients, the last pass of all
def test_an_exception_leaves_everything_as_it_was(calls):
    failing = Failing(calls)
    model, batch = prepared(mlp(between=failing)), data(5)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    bits, modes, gradient = snapshot(model), [m.training for m in model.modules()], model[1].weight.grad
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    attributes = [sorted(vars(module)) for module in model.modules()]
    with pytest.raises(Stop):
        normwise.accumulate(model, split(batch))
    assert failing.left == [0]
    assert snapshot(model) == bits
    assert [m.training for m in model.modules()] == modes
    assert failing.note == "as it was"
    assert [sorted(vars(module)) for module in model.modules()] == attributes
    assert model[1].weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert [name for name, found in gradients(model).items() if found is not None] == ["1.weight"]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    failing.left[0], model[1].weight.grad = 1000, None
    assert_as_whole(model, batch)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


class Penalised(nn.Module):
    """A model that looks at its own gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x.requires_grad_())
        return y + torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum()


def own_random_numbers() -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    return mlp(between=Lambda(lambda x: x + torch.rand(x.shape, generator=draw)))


TRACKS_ONLY = StatisticsPolicy(training=Source.RUNNING, update=True)
REFUSED = {
    "synchronised": (lambda: mlp(nn.SyncBatchNorm), "layer '0' is an nn.SyncBatchNorm"),
    "ghost": (lambda: mlp(lambda c: GhostBatchNorm(c, splits=2)), "layer '0' is a GhostBatchNorm"),
    "tracking only": (lambda: mlp(lambda c: BatchNorm(c, policy=TRACKS_ONLY)), "layer '0' tracks batch statistics"),
    "arithmetic of its own": (lambda: mlp(Ported), "layer '0' normalises by arithmetic of its own, Ported"),
    "tracked instances": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 5)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten(), *mlp()
        ),
        "layer '1' normalises by arithmetic",
    ),
    "several devices": (lambda: nn.DataParallel(mlp()), "without DataParallel; pass what it wraps"),
    "renorm twice": (
        lambda: Wired(used_twice, BatchRenorm),
        "layer 'bn1' corrects towards running statistics and is used",
    ),
    "checkpointing": (lambda: Checkpointed(mlp()), "layer 'inner.0' runs under activation checkpointing"),
    "own gradient": (lambda: Penalised(mlp()), "takes a gradient through layer"),
    "by size": (lambda: Wired(lambda m, x: m.bn3(m.bn1(x) if len(x) > 6 else m.bn2(x))), "some differ at layer 'bn"),
    "fewer": (lambda: Wired(lambda m, x: m.bn1(m.a(x) if len(x) > 6 else m.bn3(x))), "some differ at layer 'bn"),
    "cut by size": (
        lambda: Wired(
            lambda m, x: m.bn2(m.a(m.bn1(m.b(x)).requires_grad_() if len(x) < 6 else m.bn1(m.b(x)).detach()))
        ),
        "some differ at layer 'bn2'",
    ),
    "own random numbers": (own_random_numbers, "the same loss whenever micro-batch 0 is run"),
    "nothing to learn": (lambda: mlp().requires_grad_(False), "that require a gradient, got none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_pooled_is_refused_by_name(case):
    build, message = REFUSED[case]
    model, batch = build().double(), data(5)
    bits, state = snapshot(model), torch.get_rng_state()
    with pytest.raises(ModelError, match=message):
        normwise.accumulate(model, split(batch))
    assert snapshot(model) == bits
    assert all(gradient is None for gradient in gradients(model).values())
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_of_different_lengths_are_refused():
    norm = TimewiseBatchNorm(5, max_length=6)
    model = nn.Sequential(nn.Conv1d(5, 5, 1), norm, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, CLASSES))
    (a, y), (b, z) = ((torch.randn(4, 5, length), torch.arange(4)) for length in (6, 4))
    with pytest.raises(ModelError, match=r"layer '1' has \(4, 5\) and \(6, 5\) statistics"):
        normwise.accumulate(model, [(a, y), (b, z)])


def test_the_page_says_what_happens():
    page = (Path(__file__).parents[2] / "docs/gradient-accumulation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {}
    exec(compile(code, "page", "exec"), names)
    assert names["error"](names["plain"]) > 0.2
    assert names["error"](names["model"]) < 1e-12


def test_the_example():
    from normwise.care import accumulate

    assert doctest.testmod(accumulate) == (0, 3)


def test_bad_micro_batches():
    model = prepared(mlp())
    x, y = data(5)
    for batches, error, message in (
        ([], DataError, "micro_batches: expected at least one batch"),
        (x, DataError, "micro_batches: expected an iterable"),
        ([(x[:1], y[:1])], ShapeError, "more than 1 value per channel in all, got 1 at layer '0'"),
        ([x], DataError, "a loss for each sample, .* got none"),
        ([(x, y), (x[:, :3], y)], ModelError, "layer '0' has \\(1, 3\\) and \\(1, 5\\) statistics"),
        ([(x, y), (x[0], y)], DataError, "does not run on a batch"),
    ):
        with pytest.raises(error, match=message):
            normwise.accumulate(model, batches)
    with pytest.raises(NormwiseError, match=r"a loss for each sample, \(n,\), got shape \(\)"):
        normwise.accumulate(
            model, [(x, y)], task=Task(loss=lambda output, batch: functional.cross_entropy(output, batch[1]))
        )
