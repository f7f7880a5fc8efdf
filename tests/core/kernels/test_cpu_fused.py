"""A standardisation in one go against kernel after kernel: the same numbers, whatever the layout, cells and affine."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from kernel_cases import KINDS, SHAPES, cells_of, draw
from torch import Tensor
from torch.nn import functional

from normwise.core.grouping import Cells
from normwise.core.kernels import cpu, use_backend
from normwise.core.kernels.compiled import team
from normwise.core.normalize import normalize
from normwise.core.standardise import Standardise
from normwise.errors import ShapeError

AFFINES = ("none", "shared", "by group", "with a share")


def affine_of(kind: str, groups: int, channels: int) -> list[Tensor]:
    rows = {"none": 0, "shared": 2, "by group": 2, "with a share": 3}[kind]
    shape = (groups, channels) if kind == "by group" else (channels,)
    return [(torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_() for _ in range(rows)]


def everything(x: Tensor, cells: Cells, affine: list[Tensor], residual: Tensor | None, **options) -> list[Tensor]:
    """Return output, moments and all gradients."""
    form = Standardise(0.1, pooled=options.pop("pooled"))
    y, moments = normalize(x, cells, form, *affine, residual=residual, **options)
    wanted = [x, *affine, *([] if residual is None else [residual])]
    dy = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    gradients = torch.autograd.grad(y, wanted, dy)
    pooled = moments.pool(0)
    return [y, pooled.count, pooled.mean, pooled.m2, *gradients]


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_numbers_come_out(monkeypatch, kind, channels_last, affine):
    fused = []
    for shape in SHAPES:
        cells = cells_of(kind, shape)
        x = draw(shape, channels_last).add(3).requires_grad_()
        residual = draw(shape, channels_last).requires_grad_()
        tables = affine_of(affine, cells.count, shape[1])
        for pooled in (False, True):
            if pooled and cells.steps:
                continue
            for add, activation in (
                (None, None),
                (residual, None),
                (None, functional.relu),
                (residual, functional.silu),
            ):
                options = {"pooled": pooled, "activation": activation}
                fused.append(cpu.fuses(x, cells))
                with use_backend("cpu"):
                    found = everything(x, cells, tables, add, **options)
                    with monkeypatch.context() as patch:
                        patch.setattr(cpu, "fuses", lambda x, cells: False)
                        expected = everything(x, cells, tables, add, **options)
                for one, other in zip(found, expected, strict=True):
                    scale = float(other.detach().abs().max()) if other.numel() else 1.0
                    torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * max(scale, 1.0))
    assert any(fused)


@pytest.mark.parametrize("shape", [(40, 6, 30), (400, 6, 1)])
def test_gradients_in_float32_far_from_zero_are_those_of_float64(shape):
    """The loops subtract a mean that is rounded to the values' own dtype, and make up for it."""
    exact = torch.randn(shape, dtype=torch.float64) * 2 + 1e4
    index, results = torch.arange(shape[0]) * 5 // shape[0], []
    for dtype in (torch.float32, torch.float64):
        x = exact.float().to(dtype).requires_grad_()
        weight = torch.ones(shape[1], dtype=dtype, requires_grad=True)
        with use_backend("cpu"):
            y, _ = normalize(x, Cells(5, index), Standardise(), weight)
        dy = (torch.cos(torch.arange(y.numel(), dtype=torch.float64)) + 1).view_as(y).to(dtype)
        results.append(torch.autograd.grad(y, (x, weight), dy))
    for one, other in zip(*results, strict=True):
        assert (one.double() - other).abs().max() < 2e-5 * other.abs().max()


@pytest.mark.parametrize("groups", [1, 3, 40])
def test_threads_change_nothing(monkeypatch, groups):
    monkeypatch.setattr(team, "SHARED", 1)
    index = torch.arange(400) * groups // 400
    for shape, cells in (
        ((400, 70, 1), Cells(groups, index)),
        ((20, 70, 30), Cells(groups, torch.arange(20) % groups)),
    ):
        x, results = torch.randn(shape, requires_grad=True), []
        affine = [torch.rand(70, requires_grad=True) for _ in range(2)]
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with use_backend("cpu"):
                results.append(everything(x, cells, affine, None, pooled=False))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_work_is_shared_by_torchs_own_threads(monkeypatch):
    """No thread is started beside those that torch's operators run on."""
    monkeypatch.setattr(team, "SHARED", 1)
    torch.set_num_threads(2)
    x = torch.randn(64, 16, 300)
    torch.relu(x)  # torch's team is there now
    before, python_threads = len(os.listdir("/proc/self/task")), threading.active_count()
    cpu.reduce(x, Cells())
    assert len(os.listdir("/proc/self/task")) <= max(before, 2)
    assert threading.active_count() == python_threads


def test_without_torchs_threads_a_pool_does_the_same(monkeypatch):
    monkeypatch.setattr(team, "SHARED", 1)
    x = torch.randn(64, 16, 300)
    torch.set_num_threads(2)
    usual = cpu.reduce(x, Cells())
    monkeypatch.setattr(team, "_places", lambda: None)
    torch.testing.assert_close(cpu.reduce(x, Cells()).mean, usual.mean, rtol=0, atol=0)


def test_machine_code_is_found_again_only_while_no_loop_has_changed(monkeypatch):
    from normwise.core.kernels.compiled import loop, tables

    cache = tables.centre._cache
    key = cache._index_key((), _codegen())
    monkeypatch.setattr(loop, "_DIGEST", "another")
    assert cache._index_key((), _codegen()) != key


def _codegen():
    from numba.core.registry import cpu_target

    return cpu_target.target_context.codegen()


def test_an_affine_of_other_groups_is_refused():
    with use_backend("cpu"), pytest.raises(ShapeError, match=r"affine tables must have 1 or 5 rows, .* got 3"):
        normalize(torch.randn(40, 3, 8), cells_of("indexed prefix", (40, 3, 8)), Standardise(), torch.ones(3, 3))
