"""`BatchInfo` as a context: nested, in threads, compiled, and under activation checkpointing."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from conformance import dataclasses_as_written, shapes_unchecked
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normwise.errors import DataError
from normwise.layers import (
    BatchInfo,
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)

INFO = BatchInfo(
    lengths=torch.tensor([4, 2, 3, 4, 1, 2]), domain=torch.tensor([0, 1, 0, 1, 1, 0]), condition=torch.arange(6) % 3
)


def test_contexts_nest_and_end():
    outer, inner = BatchInfo(lengths=torch.tensor([1])), BatchInfo(domain=torch.tensor([2]))
    assert BatchInfo.current().lengths is None
    with outer:
        with inner:
            assert BatchInfo.current() is inner
        assert BatchInfo.current() is outer
    assert BatchInfo.current().lengths is None


def test_an_exception_ends_the_context():
    with pytest.raises(RuntimeError, match="inside"), BatchInfo(lengths=torch.tensor([1])):
        raise RuntimeError("inside")
    assert BatchInfo.current().lengths is None


def test_one_object_may_be_entered_twice_and_in_several_threads():
    info, failures = BatchInfo(lengths=torch.tensor([1])), []
    barrier = threading.Barrier(2)

    def work(first: bool):
        try:
            with info:
                barrier.wait()  # both are inside
                if BatchInfo.current() is not info:
                    failures.append("lost inside")
                if not first:
                    barrier.wait()
            if BatchInfo.current() is info:
                failures.append("kept after")
            if first:
                barrier.wait()  # the other leaves only now
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    with info, info:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert BatchInfo.current() is info
    assert failures == []


def test_other_threads_do_not_see_it():
    seen = []
    with BatchInfo(lengths=torch.tensor([1])):
        thread = threading.Thread(target=lambda: seen.append(BatchInfo.current().lengths))
        thread.start()
        thread.join()
    assert seen == [None]


# --- in a model


class Deep(nn.Module):
    """A model with layers deep inside that need different information."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Sequential(MaskedBatchNorm(3), nn.Conv1d(3, 3, 1)), nn.Sequential(TimewiseBatchNorm(3, 5), nn.ReLU())
        )
        self.head = nn.Sequential(DomainBatchNorm(3, 2), ConditionalBatchNorm(3, 3), nn.Conv1d(3, 1, 1))
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias":
                    nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def plumbed(model: Deep, x: Tensor, info: BatchInfo) -> Tensor:
    """The same with every layer's information handed to it."""
    x = model.trunk[0][1](model.trunk[0][0](x, info.lengths))
    x = model.trunk[1][1](model.trunk[1][0](x, info.lengths))
    return model.head[2](model.head[1](model.head[0](x, info.domain), info.condition))


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def test_a_sequential_finds_what_it_needs():
    model, x = Deep(), torch.randn(6, 3, 4)
    expected = plumbed(copy.deepcopy(model), x, INFO)
    with INFO:
        assert torch.equal(model(x), expected)
    with pytest.raises(DataError, match="lengths"):
        model(x)


def test_threads_each_have_their_own():
    model, outputs = Deep().eval(), {}
    x = torch.randn(6, 3, 4)
    infos = [
        BatchInfo(lengths=torch.full((6,), 1 + k), domain=torch.full((6,), k % 2), condition=torch.full((6,), k % 3))
        for k in range(4)
    ]
    barrier = threading.Barrier(len(infos))

    def work(k: int):
        with infos[k], torch.no_grad():
            barrier.wait()
            outputs[k] = model(x)
            barrier.wait()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(infos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, info in enumerate(infos):
        assert torch.equal(outputs[k], plumbed(model, x, info))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_model_finds_each_batchs_own_and_compiles_once(inside):
    torch._dynamo.reset()
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    model, plain = Deep(), Deep()
    plain.load_state_dict(model.state_dict())

    def with_info(x: Tensor, domain: Tensor) -> Tensor:
        with BatchInfo(lengths=INFO.lengths, domain=domain, condition=INFO.condition):
            return model(x)

    compiled = torch.compile(with_info if inside else model, backend=backend, fullgraph=True)
    with shapes_unchecked(), dataclasses_as_written():
        for domain in (torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([1, 1, 0, 0, 0, 1])):
            info, x = BatchInfo(lengths=INFO.lengths, domain=domain, condition=INFO.condition), torch.randn(6, 3, 4)
            with info:
                y = compiled(x, domain) if inside else compiled(x)
            torch.testing.assert_close(y, plumbed(plain, x, info))
    assert len(compilations) == 1
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))
    assert BatchInfo.current().domain is None


# --- activation checkpointing


@pytest.fixture
def pair():
    """A model under checkpointing and one without."""
    model = Deep()
    return model, copy.deepcopy(model), torch.randn(6, 3, 4, requires_grad=True)


def test_checkpointing_with_the_block_around_backward(pair):
    for reentrant in (True, False):
        model, plain, x = pair
        with INFO:
            y = checkpoint(model, x, use_reentrant=reentrant)
            y.square().sum().backward()
        plumbed(plain, x, INFO).square().sum().backward()
        torch.testing.assert_close(gradients(model), gradients(plain))
        assert dict_equal(model, plain)  # updated once, not again by the recomputation
        x.grad = None


def test_checkpointing_with_its_own_contexts_needs_no_block_around_backward(pair):
    model, plain, x = pair
    with INFO:
        y = checkpoint(model, x, use_reentrant=False, context_fn=BatchInfo.checkpoint)
    with BatchInfo(lengths=torch.ones(6).long()):  # another batch has begun
        y.square().sum().backward()
    plumbed(plain, x, INFO).square().sum().backward()
    torch.testing.assert_close(gradients(model), gradients(plain))
    assert dict_equal(model, plain)
    failures = []

    def work():
        try:
            z.square().sum().backward()
        except Exception as error:
            failures.append(error)

    with INFO:
        z = checkpoint(model, x, use_reentrant=False, context_fn=BatchInfo.checkpoint)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.parametrize("reentrant", [True, False])
def test_without_either_the_error_says_what_to_do(pair, reentrant):
    model, _, x = pair
    with INFO:
        y = checkpoint(model, x, use_reentrant=reentrant)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DataError, match="checkpointing"):
        y.square().sum().backward()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "create", [BatchNorm, lambda c: GhostBatchNorm(c, 2), lambda c: BatchRenorm(c, r_max=1.1, d_max=0.0)]
)
def test_no_layer_updates_its_statistics_twice(create, reentrant):
    layer, x = create(3), torch.randn(6, 3, 4, requires_grad=True)
    other = copy.deepcopy(layer)
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    other(x)
    assert dict_equal(layer, other)
    assert int(layer.num_batches_tracked) == 1


def dict_equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether all buffers agree bit for bit."""
    others = dict(second.named_buffers())
    return all(torch.equal(value, others[name]) for name, value in first.named_buffers())
