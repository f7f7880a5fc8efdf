"""Outputs, buffers and derivatives, against plain loops, finite differences and torch's own layers."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from conformance.backends import COMPILED, OnBackends, on_cpu, only_if
from conformance.tables import forward_fresh, leaves_of, state_of

TWINS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)


def values_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


class Mathematics(OnBackends):
    """What a layer computes."""

    def test_output_and_buffers_equal_the_loop_oracle(self):
        momenta = (0.1, 1.0, None) if self.case.running and not self.interpreted else (0.1,)
        for momentum, shape in itertools.product(momenta, self.shapes):
            layer = self.make(shape[1], momentum=momentum)
            for _ in range(1 if self.interpreted else 3):
                (x, side), before = self.inputs(shape), state_of(layer)
                counter = before.get("num_batches_tracked")
                weight_of_batch = 1 / (counter + 1) if momentum is None else momentum
                y, expected = self.oracle(x, side, before, weight_of_batch)
                near(values_of(layer(x, *side)), y)
                expected = expected if counter is None else {"num_batches_tracked": counter + 1, **expected}
                after = {name: values_of(buffer) for name, buffer in layer.named_buffers()}
                assert after.keys() == expected.keys()
                for name in expected:
                    near(after[name], expected[name])

    @only_if(lambda case: case.evaluate is not None)
    def test_evaluation_equals_the_loop_oracle(self):
        for shape in self.shapes:
            layer, (x, side) = self.make(shape[1]).eval(), self.inputs(shape)
            before = state_of(layer)
            near(values_of(layer(x, *side)), self.case.evaluate(values_of(x), on_cpu(side), before))
            for name, table in state_of(layer).items():
                assert np.array_equal(table, before[name])

    @pytest.mark.parametrize("training", [True, False])
    def test_first_derivatives(self, training):
        modes = (True, False) if self.case.running or not self.interpreted else (True,)  # which are one
        for shape in (self.shapes[:1] if self.interpreted else self.shapes) if training in modes else ():
            layer = self.make(shape[1]).train(training)
            x, side = self.inputs(shape)
            run, leaves = partial(forward_fresh, layer, side), (x.requires_grad_(), *leaves_of(layer))
            assert gradcheck(run, leaves, fast_mode=True, check_undefined_grad=not self.interpreted)

    @pytest.mark.parametrize("backend", COMPILED, indirect=True)  # second derivatives reach no kernel
    @pytest.mark.parametrize("training", [True, False])
    def test_second_derivatives(self, training):
        for shape in self.shapes:
            layer = self.make(shape[1]).train(training)
            x, side = self.inputs(shape)
            leaves = (x.requires_grad_(), *leaves_of(layer))
            assert gradgradcheck(partial(forward_fresh, layer, side), leaves, fast_mode=True)

    def test_gradient_equals_finite_differences_of_the_oracle(self):
        shape = self.case.shapes[0]
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        before, upstream, step = state_of(layer), torch.randn(shape, dtype=torch.float64), 1e-6
        layer(x.requires_grad_(), *side).backward(upstream)
        values, upstream, side = values_of(x), upstream.cpu().numpy(), on_cpu(side)
        for place in np.ndindex(*shape):
            ends = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * step
                ends.append((self.case.oracle(moved, side, before, 0.1)[0] * upstream).sum())
            assert x.grad[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)

    @only_if(lambda case: case.groups_are_centred)
    def test_input_gradients_of_each_group_sum_to_zero(self):
        for shape in self.shapes:
            x, side = self.inputs(shape)
            x.requires_grad_()
            self.make(shape[1])(x, *side).backward(torch.randn(shape, dtype=torch.float64))
            groups = self.groups(x, side)
            for group in groups.unique():
                total = torch.where(groups == group, x.grad, 0.0).transpose(0, 1).flatten(1)
                bound = x.grad.abs() if group < 0 else total.abs().sum(1).max() * 1e-10 + 1e-12
                assert (total.sum(1).abs() <= (0 if group < 0 else bound)).all()

    @only_if(lambda case: case.trivial_side is not None)
    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
    def test_trivial_grouping_equals_torch_over_training(self, momentum, dtype, tolerance):
        def compare(ours: Tensor, theirs: Tensor):
            torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=tolerance, atol=tolerance)

        shapes = self.case.trivial_shapes or self.case.shapes
        if self.interpreted:  # momentum concerns no kernel
            shapes = () if momentum is None else shapes[1:2] or shapes
        for shape in shapes:
            ours = self.make(shape[1], dtype=dtype, momentum=momentum, create=self.case.trivial)
            twin = TWINS[len(shape)](shape[1], momentum=momentum, dtype=dtype, track_running_stats=self.case.running)
            known = ours.state_dict()
            twin.load_state_dict({name: known[name].reshape(table.shape) for name, table in twin.state_dict().items()})
            for _ in range(1 if self.interpreted else 4):
                x, upstream = self.inputs(shape, dtype)[0], torch.randn(shape, dtype=dtype)
                a, b = (x.clone().requires_grad_() for _ in range(2))
                y, expected = ours(a, *self.case.trivial_side(a)), twin(b)
                y.backward(upstream)
                expected.backward(upstream)
                compare(y, expected)
                compare(a.grad, b.grad)
                for name, parameter in twin.named_parameters():
                    compare(ours.get_parameter(name).grad, parameter.grad)
                for layer in (ours, twin):
                    with torch.no_grad():
                        layer.weight -= 0.1 * layer.weight.grad
                        layer.bias -= 0.1 * layer.bias.grad
                    layer.zero_grad()
                for name, buffer in twin.named_buffers():
                    compare(ours.get_buffer(name), buffer)
            compare(ours.eval()(x, *self.case.trivial_side(x)), twin.eval()(x))
