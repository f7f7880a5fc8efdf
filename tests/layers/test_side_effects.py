"""What callers do to their own tensors and settings: later changes reach nothing, and no setting is taken for granted."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from conformance import shapes_unchecked

from normwise import layers
from normwise.core.grouping import Cells
from normwise.core.kernels import use_backend
from normwise.core.normalize import measure

BACKENDS = ("cpu", "reference")


@pytest.mark.parametrize("eps", [1, np.float32(0.25), np.float64(0.5)])
def test_an_eps_of_any_number_type_is_that_number(eps):
    x = torch.randn(8, 64, 1024) * 0.01
    with use_backend("cpu"), shapes_unchecked():
        layers.BatchNorm(64)(x)
        y, z = (layers.BatchNorm(64, eps=value)(x) for value in (eps, float(eps)))
    assert torch.equal(y, z)


def _strided(ids: torch.Tensor) -> torch.Tensor:
    return torch.stack([ids, ids + 7], 1)[:, 0]


@pytest.mark.parametrize("form", [_strided, lambda ids: ids.int(), lambda ids: ids.flip(0).flip(0)])
@pytest.mark.parametrize("shape", [(64, 32, 14, 14), (64, 32), (64, 32, 3)])
def test_ids_may_lie_in_memory_as_they_like(shape, form):
    ids, x = torch.randint(0, 4, (shape[0],)), torch.randn(shape)
    for make in (lambda: layers.DomainBatchNorm(32, 4), lambda: layers.ConditionalBatchNorm(32, 4)):
        with use_backend("cpu"):
            assert torch.equal(make()(x, form(ids)), make()(x, ids))


@pytest.mark.parametrize("backend", BACKENDS)
def test_side_information_may_be_overwritten_before_the_backward_pass(backend):
    x = torch.randn(64, 16, 30)
    ids, mask = torch.randint(0, 4, (64,)), torch.rand(64, 30) > 0.3
    cases = (
        (lambda: layers.DomainBatchNorm(16, 4), {"domain": ids}, lambda side: side["domain"].fill_(10**9)),
        (lambda: layers.MaskedBatchNorm(16), {"mask": mask}, lambda side: side["mask"].fill_(False)),
    )
    for make, side, spoil in cases:
        gradients = []
        for spoilt in (False, True):
            leaf, given = x.clone().requires_grad_(), {name: tensor.clone() for name, tensor in side.items()}
            with use_backend(backend):
                y = make()(leaf, **given)
                if spoilt:
                    spoil(given)
                gradients.append(torch.autograd.grad(y.square().sum() + y.sum(), leaf)[0])
        assert torch.equal(*gradients)


def test_a_default_device_elsewhere_does_not_matter():
    x, last = torch.randn(64, 16, 300), torch.randn(64, 300, 16).transpose(1, 2)
    lengths = torch.full((64,), 7)
    modules = layers.MaskedBatchNorm(16), layers.TimewiseBatchNorm(16, 300)
    torch.set_default_device("meta")
    try:
        results = [module(values, lengths) for module in modules for values in (x, last)]
    finally:
        torch.set_default_device(None)
    assert all(y.device.type == "cpu" for y in results)


def test_moments_are_the_callers_own():
    x = torch.randn(10, 4, 40)
    with use_backend("cpu"):
        measure(x, Cells()).count.add_(5)
        assert float(measure(x, Cells()).count) == 400


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_domain_without_samples_leaves_no_trace_even_without_an_eps(backend):
    layer, x = layers.DomainBatchNorm(8, 4, eps=0.0), torch.randn(30, 8, 5)
    with use_backend(backend):
        layer(x, torch.arange(30) % 3).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_nothing_waits_for_the_garbage_collector():
    x, mask = torch.randn(64, 16, 30, requires_grad=True), torch.rand(64, 30) > 0.3
    gc.collect()
    gc.disable()
    try:
        with use_backend("cpu"):
            y = layers.MaskedBatchNorm(16)(x, mask=mask)
        y.sum().backward()
        output, kept = weakref.ref(y), weakref.ref(y.grad_fn.next_functions[0][0].call.cells)
        del y
        assert output() is None
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "setting", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}]
)
def test_without_a_compiler_or_a_place_to_keep_its_work_layers_compute(setting):
    script = (
        "import torch; from normwise import layers; print(layers.GhostBatchNorm(16, 2)(torch.randn(64, 16, 300)).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **setting}, capture_output=True, text=True, check=False
    )
    assert "torch.Size([64, 16, 300])" in done.stdout, done.stderr
