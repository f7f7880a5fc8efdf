"""Half types on the CPU: computed in float32, rounded once, kept as they are for the backward pass."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import KINDS, cells_of, draw

from normwise.core.kernels import cpu, use_backend
from normwise.core.normalize import normalize
from normwise.core.standardise import Standardise

SHAPES = [(70, 5, 4), (5, 3, 40), (300, 7, 1)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_results_are_those_of_float32_rounded_once(dtype, kind, channels_last):
    for shape in SHAPES:
        cells = cells_of(kind, shape)
        x, dy = (draw(shape, channels_last).to(dtype) for _ in range(2))
        results = []
        for own in (dtype, torch.float32):
            leaf = x.to(own).requires_grad_()
            weight = torch.linspace(0.5, 1.5, shape[1]).requires_grad_()
            with use_backend("cpu"):
                y, moments = normalize(leaf, cells, Standardise(0.1), weight)
            gradients = torch.autograd.grad(y, (leaf, weight), dy.to(own))
            results.append((y, *gradients, moments.mean, moments.m2))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other.to(one.dtype))
        assert results[0][0].dtype == results[0][1].dtype == dtype
        assert results[0][0].is_contiguous() == x.is_contiguous()


def test_what_is_kept_is_the_input_itself():
    x, kept = torch.randn(64, 16, 300).bfloat16().requires_grad_(), []
    with use_backend("cpu"), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        normalize(x, cells_of("one", (64, 16, 300)), Standardise())
    assert [t.dtype for t in kept if t.numel() == x.numel()] == [torch.bfloat16]
    assert cpu.supports(x.detach())
