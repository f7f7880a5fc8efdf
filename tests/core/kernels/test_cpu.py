"""The compiled loops against the reference in float64: every layout, every kind of cell, every argument."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from kernel_cases import KINDS, SHAPES, cells_of, draw
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import cpu, reference, use_backend
from normwise.core.kernels.compiled import blocks, team
from normwise.core.kernels.dispatch import current_backend, prefers_native

TOLERANCES = {torch.float64: 1e-12, torch.float32: 3e-5}


def near(ours: Tensor, exact: Tensor, tolerance: float) -> None:
    scale = max(float(exact.abs().max()), 1e-30) if exact.numel() else 1.0
    torch.testing.assert_close(ours.double(), exact.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_kernel_is_the_reference(dtype, kind, channels_last):
    tolerance = TOLERANCES[dtype]
    for shape in SHAPES:
        exact = [draw(shape, channels_last) for _ in range(3)]
        x, dy, residual = exact[0] + 3, *exact[1:]
        own = [t.to(dtype) for t in (x, dy, residual)]
        cells = cells_of(kind, shape)
        a, b, d = (torch.randn(cells.count, shape[1], dtype=torch.float64) for _ in range(3))
        ours, theirs = cpu.reduce(own[0], cells), reference.reduce(x, cells)
        near(ours.count.expand(cells.count, 1), theirs.count.expand(cells.count, 1), 0)
        near(ours.mean, theirs.mean, tolerance)
        near(ours.m2, theirs.m2, tolerance)
        for add, rectify in itertools.product((False, True), repeat=2):
            y = cpu.apply(own[0], a, b, cells, own[2] if add else None, rectify)
            near(y, reference.apply(x, a, b, cells, residual if add else None, rectify), tolerance)
            assert y.is_contiguous() == own[0].is_contiguous()
        gates = (None, (a, b)) if dtype == torch.float64 else (None,)  # a rounded gate may open or close
        for gate in gates:
            for one, other in zip(cpu.reduce_backward(own[1], own[0], theirs.mean, cells, gate),
                                  reference.reduce_backward(dy, x, theirs.mean, cells, gate), strict=True):  # fmt: skip
                near(one, other, tolerance)
            near(
                cpu.apply_backward(own[1], own[0], a, b, d, cells, gate),
                reference.apply_backward(dy, x, a, b, d, cells, gate),
                tolerance,
            )


def test_gradients_and_residuals_in_another_memory_format():
    x, dy = draw((6, 4, 30), channels_last=True), draw((6, 4, 30), channels_last=False)
    tables = torch.randn(3, 1, 4, dtype=torch.float64)
    for one, other in ((x, dy), (dy, x)):
        near(
            cpu.apply_backward(one, other, *tables, Cells()),
            reference.apply_backward(one, other, *tables, Cells()),
            1e-12,
        )
        near(cpu.apply(one, *tables[:2], Cells(), other), reference.apply(one, *tables[:2], Cells(), other), 1e-12)


def test_a_strided_view_is_copied_not_misread():
    x = torch.randn(8, 6, 40, dtype=torch.float64)[:, ::2, 1::3]
    near(cpu.reduce(x, Cells()).mean, reference.reduce(x, Cells()).mean, 1e-12)


@pytest.mark.parametrize("shape", [(1, 2, 1_000_000), (1_000_000, 2, 1), (2_000, 2, 500)])
def test_a_million_values_a_channel_are_exact_to_two_parts_in_a_million(shape):
    x = torch.randn(shape) * 2 + 1
    ours, exact = cpu.reduce(x, Cells()), reference.reduce(x.double(), Cells())
    assert ((ours.mean - exact.mean) / exact.mean).abs().max() < 2e-6
    assert ((ours.m2 - exact.m2) / exact.m2).abs().max() < 2e-6


@pytest.mark.parametrize("shape", [(64, 2, 1000), (64_000, 2, 1)])
def test_at_a_large_mean_the_variance_is_no_worse_than_torchs(shape):
    x = torch.randn(shape) * 2 + 1e4
    exact = reference.reduce(x.double(), Cells())
    variance = torch.zeros(2)
    torch.nn.functional.batch_norm(x, torch.zeros(2), variance, training=True, momentum=1.0)
    theirs = (variance - exact.unbiased_variance).abs().max()
    assert (cpu.reduce(x, Cells()).unbiased_variance - exact.unbiased_variance).abs().max() <= max(theirs, 1e-6)


@pytest.mark.parametrize("shape", [(3, 2, 5000), (600, 2, 1)])
def test_drift_and_outliers_do_not_spoil_the_pivot(shape):
    x = torch.randn(shape, dtype=torch.float64).flatten(2)
    drift = torch.linspace(0, 1e4, shape[0], dtype=torch.float64).view(-1, 1, 1)
    outlier = torch.zeros(shape, dtype=torch.float64)
    outlier[0, :, 0] = 1e5
    for values in (x + drift, x + outlier):
        ours, exact = cpu.reduce(values.float(), Cells()), reference.reduce(values.float().double(), Cells())
        near(ours.m2, exact.m2, 1e-5)  # the outlier sits in the first pivot: four times m2, summed over 256 rows


@pytest.mark.parametrize("shape", [(3, 2, 5000), (600, 2, 1)])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_what_is_not_finite_propagates_as_in_torch(shape, bad):
    for where in (0, -1):
        x = torch.randn(shape)
        for offset, value in enumerate(bad):
            x[where, 0, where if shape[2] > 1 and not offset else 0] = value
            if shape[2] == 1 and offset:
                x[1, 0, 0] = value
        mean, variance = torch.zeros(2), torch.ones(2)
        y = torch.nn.functional.batch_norm(x, mean, variance, training=True, momentum=1.0)
        moments = cpu.reduce(x, Cells())
        torch.testing.assert_close(moments.mean[0].float(), mean, equal_nan=True, rtol=1e-4, atol=1e-4)
        assert torch.equal(moments.m2[0].isfinite(), variance.isfinite())
        ours = cpu.apply(x, torch.ones(1, 2), moments.mean.nan_to_num(0, 0, 0), Cells())
        assert torch.equal(ours.isfinite(), x.isfinite())
        assert y[:, 1].isfinite().all()


def test_the_number_of_threads_changes_nothing(monkeypatch):
    monkeypatch.setattr(team, "SHARED", 1)
    x, dy = torch.randn(64, 48, 50), torch.randn(64, 48, 50)
    tables = torch.randn(3, 1, 48, dtype=torch.float64)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        moments = cpu.reduce(x, Cells())
        results.append((moments.mean, moments.m2, cpu.apply(x, *tables[:2], Cells()),
                        *cpu.reduce_backward(dy, x, moments.mean, Cells()),
                        cpu.apply_backward(dy, x, *tables, Cells())))  # fmt: skip
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def mean_of(seed: int) -> float:
    torch.set_num_threads(2)
    x = torch.randn(64, 48, 400, generator=torch.Generator().manual_seed(seed))  # large enough to be shared
    return float(cpu.reduce(x, Cells()).mean.sum())


def test_python_threads_may_run_at_once():
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(mean_of, [0, 1, 2, 3])) == [mean_of(seed) for seed in range(4)]


WORKERS = """
import multiprocessing, sys
import torch
from normwise.core.grouping import Cells
from normwise.core.kernels import cpu

def mean_of(seed):
    torch.set_num_threads(2)
    x = torch.randn(64, 48, 400, generator=torch.Generator().manual_seed(seed))
    return float(cpu.reduce(x, Cells()).mean.sum())

if __name__ == "__main__":
    expected = [mean_of(0), mean_of(1)]  # the parent's pool of threads exists now
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(mean_of, [0, 1]) == expected
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_compute_after_the_parent_has(method, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS, encoding="utf-8")
    subprocess.run([sys.executable, str(script), method], check=True, timeout=300)


def test_dispatch_goes_by_device_dtype_size_and_layout():
    large, small = torch.randn(8, 32, 1100), torch.randn(8, 4, 9)
    assert current_backend(large) is cpu
    assert current_backend(large.bfloat16()) is cpu
    assert current_backend(large[:0]) is reference
    assert not prefers_native(large)
    assert prefers_native(small)
    assert prefers_native(large.permute(0, 2, 1))
    assert prefers_native(large.bfloat16())
    with use_backend("cpu"):
        assert current_backend(large) is cpu
        assert not prefers_native(small)
    with use_backend("native"):
        assert prefers_native(large)
    with use_backend("reference"):
        assert current_backend(large) is reference
        assert not prefers_native(large)


@pytest.mark.parametrize("holes", [False, True])
def test_a_mask_ends_after_its_last_valid_position(holes):
    mask = np.array([[1, 1, 0, int(holes)], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=bool)
    end, count = np.empty(4, np.int64), np.empty(4)
    assert blocks.find_ends(mask, end, count) is not holes
    assert end.tolist() == [4 if holes else 2, 0, 3, 1]
    assert count.tolist() == [3 if holes else 2, 0, 3, 1]


@pytest.mark.parametrize(("index", "natural"), [([0, 0, 2, 2], True), ([1, 0, 2, 2], False), ([-1, 0, 0, 1], False)])
def test_sorted_samples_are_recognised(index, natural):
    order, start = np.empty(4, np.int64), np.zeros(4, np.int64)
    assert blocks.order_by_group(np.array(index), order, start) is natural
    assert start[-1] == sum(group >= 0 for group in index)
    assert [index[i] for i in order[: start[-1]]] == sorted(group for group in index if group >= 0)
