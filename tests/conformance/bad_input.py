"""What a layer refuses, and that nothing has changed by then; one sample, and none."""

from __future__ import annotations

import itertools

import pytest
import torch

from conformance.backends import OnBackends
from conformance.instruments import shapes_unchecked
from conformance.tables import buffers, same
from normwise.errors import ShapeError


class BadInput(OnBackends):
    """The edge of what a layer takes."""

    @pytest.mark.parametrize("training", [True, False])
    def test_refusals_precede_every_change(self, training):
        for bad in self.case.refusals:
            if bad.training_only and not training:
                continue
            layer = self.make(3).train(training)
            before, x = buffers(layer), torch.ones(bad.shape, dtype=bad.dtype)
            side = (bad.side or self.case.side)(x) if x.ndim else ()
            options = {} if bad.mask is None else {"mask": bad.mask(x)}
            with shapes_unchecked(), pytest.raises(ShapeError, match=bad.message):
                layer(x if bad.device is None else x.to(bad.device), *side, **options)
            assert same(before, buffers(layer)), bad

    def test_evaluation_takes_one_sample_and_none(self):
        for samples, shape in itertools.product((1, 0), self.shapes):
            layer, (x, side) = self.make(shape[1]).eval(), self.inputs((samples, *shape[1:]))
            before = buffers(layer)
            assert layer(x, *side).shape == x.shape
            assert same(before, buffers(layer))
