"""Digits: what a large offset costs, and what bfloat16 does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.backends import OnBackends, only_if
from conformance.mathematics import TWINS
from conformance.tables import state_of


def root_mean_square(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


class Precision(OnBackends):
    """How exact a layer is."""

    @only_if(lambda case: case.trivial_side is not None)
    def test_a_large_offset_costs_no_more_than_in_torch(self):
        """Errors against float64 on the same float32 input, over many values so that the comparison is not luck."""
        x, upstream = torch.randn(self.case.offset_shape) + 1e6, torch.randn(self.case.offset_shape)
        side, twin_class = self.case.trivial_side(x), TWINS[x.ndim]
        exact, ours = twin_class(4, dtype=torch.float64), (self.case.trivial or self.case.create)(4)
        errors = []
        for layer, values in ((exact, x.double()), (twin_class(4), x), (ours, x)):
            leaf = values.clone().requires_grad_()
            y = layer(leaf, *side) if layer is ours else layer(leaf)
            y.backward(upstream.to(y.dtype))
            results = [y.detach(), leaf.grad, *([layer.running_var] if self.case.running else [])]
            if layer is exact:
                expected = results
            else:
                errors.append([root_mean_square(a.double() - b) for a, b in zip(results, expected, strict=True)])
        rounding = [2**-24 * 1e6, 2**-24, 2**-24]  # of y: x * scale + shift at a magnitude of 1e6; else one float32's
        for theirs, mine, floor in zip(*errors, rounding):
            assert mine <= max(theirs, floor)

    @pytest.mark.parametrize("whole", [True, False])
    def test_bfloat16(self, whole):
        shape = self.case.shapes[1]
        x, side = self.inputs(shape, torch.bfloat16)
        layer = self.make(shape[1], dtype=torch.bfloat16 if whole else torch.float32)
        y, tables = self.oracle(x, side, state_of(layer))
        leaf = x.requires_grad_()
        result = layer(leaf, *side)
        result.float().square().sum().backward()
        assert result.dtype == leaf.grad.dtype == torch.bfloat16
        half_ulp = 2**-8  # bfloat16 keeps 8 bits; a few roundings in a layer that is bfloat16 throughout
        step = 2 * half_ulp if self.interpreted else half_ulp  # the interpreter cuts off where a GPU rounds
        tolerance = (4 if whole else 1.01) * step
        np.testing.assert_allclose(result.detach().double().cpu().numpy(), y, rtol=tolerance, atol=tolerance)
        tolerance = 2 * half_ulp if whole else 1e-5
        for name, table in tables.items():
            found = layer.get_buffer(name).double().cpu().numpy()
            np.testing.assert_allclose(found, table, rtol=tolerance, atol=tolerance)
