"""What holds for any input: permuted samples, what lies outside all groups, channels that are constant."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conformance.backends import COMPILED, OnBackends, only_if
from conformance.case import LayerCase
from conformance.tables import buffers, same, state_of

hypothesis_settings = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def has_padding(case: LayerCase) -> bool:
    """Whether some value of some input belongs to no group."""
    inputs = [torch.zeros(shape) for shape in case.shapes]
    return any(bool((case.groups(x, case.side(x)) < 0).any()) for x in inputs)


class Properties(OnBackends):
    """What a layer's outputs and gradients do not depend on."""

    @only_if(lambda case: case.exchangeable)
    @pytest.mark.parametrize("backend", COMPILED, indirect=True)
    @hypothesis_settings
    @given(data=st.data())
    def test_permuting_samples_permutes_the_output(self, data):
        shape = data.draw(st.sampled_from(self.case.shapes))
        self.check_permuted(shape, torch.tensor(data.draw(st.permutations(range(shape[0])))))

    @only_if(lambda case: case.exchangeable)
    @pytest.mark.parametrize("backend", ["cuda"], indirect=True)
    def test_reversing_samples_reverses_the_output(self):
        for shape in self.shapes:
            self.check_permuted(shape, torch.arange(shape[0]).flip(0))

    def check_permuted(self, shape: tuple[int, ...], order: Tensor) -> None:
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        other = copy.deepcopy(layer)
        y, permuted = (
            layer(x, *side),
            other(x[order], *(part[order] if isinstance(part, Tensor) else part for part in side)),
        )
        torch.testing.assert_close(permuted, y[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(buffers(other), buffers(layer))

    @only_if(has_padding)
    @pytest.mark.parametrize("filler", [float("nan"), float("inf"), -1e30, 0.0])
    def test_values_outside_all_groups_do_not_matter(self, filler):
        for shape in self.shapes:
            layer, (x, side) = self.make(shape[1]), self.inputs(shape)
            outside = self.groups(x, side) < 0
            other, spoiled = copy.deepcopy(layer), x.masked_fill(outside, filler).requires_grad_()
            y, z = layer(x.requires_grad_(), *side), other(spoiled, *side)
            upstream = torch.randn_like(y)
            for create_graph in (False, True):
                a, b = (torch.autograd.grad(out, leaf, upstream, retain_graph=True, create_graph=create_graph)[0]
                        for out, leaf in ((y, x), (z, spoiled)))  # fmt: skip
                assert torch.equal(a, b)
            assert torch.equal(y, z)
            assert (y[outside] == 0).all()
            assert same(buffers(layer), buffers(other))

    @pytest.mark.parametrize("channels", [slice(0, 1), slice(None)])
    def test_constant_channels_give_the_oracle_and_a_finite_gradient(self, channels):
        for shape in self.shapes:
            layer, (x, side) = self.make(shape[1]), self.inputs(shape)
            x[:, channels] = 3.0
            expected, _ = self.oracle(x, side, state_of(layer))
            y = layer(x.requires_grad_(), *side)
            y.backward(torch.randn_like(y))
            np.testing.assert_allclose(y.detach().cpu().numpy(), expected, rtol=1e-9, atol=1e-12)
            assert x.grad.isfinite().all()
