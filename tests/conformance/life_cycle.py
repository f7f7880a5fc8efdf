"""State dicts, copies, pickles, `torch.compile`, and policies that hold through `train()` and `eval()`."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from conformance.backends import COMPILED, OnBackends, only_if
from conformance.instruments import dataclasses_as_written, shapes_unchecked
from conformance.tables import buffers, same
from normwise.layers import Source, StatisticsPolicy

without_kernels = pytest.mark.parametrize("backend", ["native"], indirect=True)


class LifeCycle(OnBackends):
    """What befalls a layer in a program."""

    @only_if(lambda case: case.twin)
    @without_kernels
    @pytest.mark.parametrize("twin_class", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
    def test_state_dict_goes_both_ways(self, twin_class):
        ours, twin = self.make(3), twin_class(3, dtype=torch.float64)
        assert list(ours.state_dict()) == list(twin.state_dict())
        twin.load_state_dict(ours.state_dict())
        fresh = self.case.create(3, dtype=torch.float64)
        fresh.load_state_dict(twin.state_dict())
        assert same(dict(fresh.state_dict()), dict(ours.state_dict()))

    def test_its_own_state_dict_restores_it(self):
        shape = self.case.shapes[0]
        layer, fresh, (x, side) = self.make(shape[1]).eval(), self.make(shape[1]).eval(), self.inputs(shape)
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(x, *side), layer(x, *side))

    @only_if(lambda case: case.running)
    @without_kernels
    def test_checkpoints_from_before_the_counter_load(self):
        layer = self.make(3)
        current = layer.state_dict()
        plain = {name: value for name, value in current.items() if name != "num_batches_tracked"}
        self.case.create(3, dtype=torch.float64).load_state_dict(plain)
        del current["num_batches_tracked"]  # of today's version, as its metadata says: torch reports it too
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            layer.load_state_dict(current)

    def test_pickle_deepcopy_and_torch_save(self):
        layer = self.make(self.case.shapes[0][1])
        if self.case.running:
            layer.policy = StatisticsPolicy(evaluation=Source.BATCH)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        copies = [pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), torch.load(file, weights_only=False)]
        x, side = self.inputs(self.case.shapes[0])
        expected = layer(x, *side)
        for other in copies:
            assert not self.case.running or other.policy == layer.policy
            assert torch.equal(other(x, *side), expected)
            assert same(buffers(other), buffers(layer))

    @pytest.mark.filterwarnings("ignore")
    @without_kernels  # a traced layer knows none
    @pytest.mark.parametrize("training", [True, False])
    def test_compiles(self, training):
        torch._dynamo.reset()
        layer, (x, side) = self.make(self.case.shapes[1][1]).train(training), self.inputs(self.case.shapes[1])
        other = copy.deepcopy(layer)
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        with shapes_unchecked(), dataclasses_as_written():
            y, z = layer(a, *side), compiled(b, *side)
        y.square().sum().backward()
        z.square().sum().backward()
        torch.testing.assert_close(z, y)
        torch.testing.assert_close(b.grad, a.grad)
        for theirs, ours in zip(layer.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(buffers(other), buffers(layer))

    @only_if(lambda case: case.running)
    @pytest.mark.parametrize("backend", COMPILED, indirect=True)
    @pytest.mark.parametrize("training", list(Source))
    @pytest.mark.parametrize("evaluation", list(Source))
    @pytest.mark.parametrize("update", [True, False])
    def test_the_policy_holds_through_train_and_eval(self, training, evaluation, update):
        shape = self.case.shapes[1]
        layer = self.make(shape[1])
        layer.policy = StatisticsPolicy(training=training, evaluation=evaluation, update=update)
        for mode in (True, False, True):
            layer.train(mode)
            (x, side), before = self.inputs(shape), buffers(layer)
            references = {}
            for source in Source:  # the same tables in a layer that leaves no choice
                plain = copy.deepcopy(layer)
                plain.policy = StatisticsPolicy()
                references[source] = plain.train(source is Source.BATCH)(x, *side)
            y = layer(x.requires_grad_(), *side)
            assert torch.equal(y, references[training if mode else evaluation])
            assert same(before, buffers(layer)) == (not (mode and update))
            loss = y.square().sum()  # statistics may have been updated since: gradients are of those that were used
            simple, differentiable = (
                torch.autograd.grad(loss, x, retain_graph=True, create_graph=c)[0] for c in (0, 1)
            )
            torch.testing.assert_close(differentiable, simple)
