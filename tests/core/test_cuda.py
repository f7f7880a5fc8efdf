"""The Triton kernels against the reference in float64: every layout, every kind of cell, every argument.

Where there is a GPU they run on it; elsewhere Triton's interpreter runs them on the CPU (see `conftest`), and they are
compiled for a GPU without being run.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from normwise.core.grouping import Cells
from normwise.core.kernels import cuda, reference, triton_plan

EXACT = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 3e-6, torch.bfloat16: 3e-6}  # of tables
ROUNDED = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}  # of tensors
LAYOUTS = {"contiguous": (4, 3, 27), "channels last": (7, 3, 11), "rows": (60, 6, 1)}
KINDS = ("one", "indexed", "holes", "prefix", "indexed prefix", "steps", "ragged steps")


@pytest.fixture
def device():
    """Where the kernels run: on a GPU, or in the interpreter."""
    with np.errstate(all="ignore"):  # the interpreter computes with numpy
        yield "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def small_tiles(monkeypatch):
    """Small tiles, so that small tensors have several in every direction, and programs several tiles."""
    sizes = {"_TILE": 32, "_CHANNELS": 4, "_POSITIONS": 8, "_PROGRAMS": 5, "_ENTRIES": 8, "_PARTS": (2, 4)}
    for name, value in sizes.items():
        monkeypatch.setattr(triton_plan, name, value)


def draw(layout: str, dtype: torch.dtype, device: str, shape: tuple[int, int, int] | None = None) -> Tensor:
    n, channels, positions = shape or LAYOUTS[layout]
    x = torch.randn(n, channels, positions).to(dtype)
    x = x.permute(0, 2, 1).contiguous().permute(0, 2, 1) if layout == "channels last" else x
    return x.to(device)


def cells_of(kind: str, n: int, positions: int, device: str) -> Cells:
    index = torch.randint(0, 3, (n,))
    prefix = torch.arange(positions) < torch.randint(1, positions + 1, (n, 1))
    count, sample, steps, mask = {
        "one": (1, None, False, None),
        "indexed": (4, index, False, None),  # the last one is empty
        "holes": (1, None, False, torch.rand(n, positions) > 0.4),
        "prefix": (1, None, False, prefix),
        "indexed prefix": (3, index, False, prefix),
        "steps": (positions, None, True, None),
        "ragged steps": (positions, None, True, prefix),
    }[kind]
    on = [None if tensor is None else tensor.to(device) for tensor in (sample, mask)]
    return Cells(count, on[0], steps, on[1])


def near(ours: Tensor, exact: Tensor, tolerance: float) -> None:
    scale = max(float(exact.abs().max()), 1.0)
    torch.testing.assert_close(ours.double(), exact.double(), rtol=0, atol=tolerance * scale)


def compare(
    device: str, layout: str, kind: str, dtype: torch.dtype, *, fused: bool, shape: tuple[int, int, int] | None = None
) -> None:
    """Call all four functions, with residual, rectifier and gate or without; what is masked is NaN for ours, 0 for theirs."""
    exact, rounded = EXACT[dtype], ROUNDED[dtype]
    x, dy, residual = (draw(layout, dtype, device, shape) for _ in range(3))
    cells = cells_of(kind, x.shape[0], x.shape[2], device)
    clean = [t.double() for t in (x, dy, residual)]
    if cells.mask is not None:
        hidden = ~cells.mask.unsqueeze(1)
        clean = [t.masked_fill(hidden, 0) for t in clean]
        x, dy, residual = (t.masked_fill(hidden, math.nan) for t in (x, dy, residual))
    a, b, d = (torch.randn(cells.count, x.shape[1], dtype=torch.float64, device=x.device) for _ in range(3))
    a[0, 0] = b[0, 1] = 0  # lines that cross zero nowhere
    ours, theirs = cuda.reduce(x, cells), reference.reduce(clean[0], cells)
    assert torch.equal(ours.count, theirs.count.expand(cells.count, 1))
    near(ours.mean, theirs.mean, exact)
    near(ours.m2, theirs.m2, exact)
    y = cuda.apply(x, a, b, cells, residual if fused else None, fused)
    near(y, reference.apply(clean[0], a, b, cells, clean[2] if fused else None, fused), rounded)
    assert (y.dtype, y.stride()) == (x.dtype, x.stride())
    gate = (a, b) if fused else None
    sums = cuda.reduce_backward(dy, x, theirs.mean, cells, gate)
    for one, other in zip(sums, reference.reduce_backward(clean[1], clean[0], theirs.mean, cells, gate), strict=True):
        near(one, other, exact)
    dx = cuda.apply_backward(dy, x, a, b, d, cells, gate)
    near(dx, reference.apply_backward(clean[1], clean[0], a, b, d, cells, gate), rounded)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_kernel_is_the_reference(device, layout, kind):
    compare(device, layout, kind, torch.float32, fused=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_it_is_with_one_tile_and_nothing_fused(device, layout, kind):
    compare(device, layout, kind, torch.float32, fused=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["one", "indexed prefix", "ragged steps"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_it_is_in_every_dtype(device, layout, kind, dtype):
    compare(device, layout, kind, dtype, fused=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="lacks a CUDA device")
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_it_is_at_sizes_that_fill_a_gpu(layout, kind, dtype):
    shape = (1 << 18, 70, 1) if layout == "rows" else (100, 70, 3000)
    compare("cuda", layout, kind, dtype, fused=True, shape=shape)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("shape", [(6, 2, 40), (240, 2, 1)])
def test_an_offset_costs_no_digits(device, shape):
    x = (torch.randn(shape) + 1e6).to(device)
    dy = torch.randn(shape).to(device)
    ours, exact = cuda.reduce(x, Cells()), reference.reduce(x.double(), Cells())
    assert (ours.mean - exact.mean).abs().max() < 1e-6  # the grid of float32 is 0.06 wide there
    assert ((ours.m2 - exact.m2) / exact.m2).abs().max() < 2e-6
    scale = exact.variance.rsqrt()
    near(cuda.apply(x, scale, -exact.mean * scale, Cells()), (x.double() - exact.mean.t()) * scale.t(), 1e-6)
    sums = cuda.reduce_backward(dy, x, exact.mean, Cells())
    for one, other in zip(sums, reference.reduce_backward(dy.double(), x.double(), exact.mean, Cells()), strict=True):
        near(one, other, 1e-6)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("shape", [(3, 2, 160), (240, 2, 1)])
def test_drift_and_outliers_do_not_spoil_the_variance(device, shape):
    x = torch.randn(shape)
    drift = torch.linspace(0, 1e4, shape[0]).view(-1, 1, 1)
    outlier = torch.zeros(shape)
    outlier[0, :, 0] = 1e5
    for values in (x + drift, x + outlier):
        values = values.to(device)
        ours, exact = cuda.reduce(values, Cells()), reference.reduce(values.double(), Cells())
        assert ((ours.m2 - exact.m2) / exact.m2).abs().max() < 2e-6


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_what_is_not_finite_propagates_as_in_torch(device, bad):
    for where in (0, -1):
        x = torch.randn(20, 2, 1)
        x[torch.arange(len(bad)) + where, 0, 0] = torch.tensor(bad)
        x = x.to(device)
        moments = cuda.reduce(x, Cells())
        torch.testing.assert_close(moments.mean[0].float(), x.mean((0, 2)), equal_nan=True)
        assert torch.equal(moments.m2[0].isfinite(), torch.tensor([False, True], device=x.device))
        one = torch.ones(1, 2, dtype=torch.float64, device=x.device)
        y = cuda.apply(x, one, one, Cells(), rectify=True)
        torch.testing.assert_close(y, (x + 1).relu(), equal_nan=True)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", ["one", "indexed prefix"])
def test_the_same_input_gives_the_same_bits(device, kind):
    x, dy = (draw("contiguous", torch.float32, device) for _ in range(2))
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        cells = cells_of(kind, x.shape[0], x.shape[2], device)
        moments = cuda.reduce(x, cells)
        sums = cuda.reduce_backward(dy, x, moments.mean, cells)
        results.append((moments.mean, moments.m2, *sums))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_memory_in_another_format_is_copied_not_misread(device):
    x, dy = torch.randn(2, 7, 3, 11, dtype=torch.float64, device=device)
    dy = dy.transpose(1, 2).contiguous().transpose(1, 2)
    tables = torch.randn(3, 1, 3, dtype=torch.float64, device=x.device)
    for one, other in ((x, dy), (dy, x), (x, x[:1].expand_as(x)), (torch.cat((x, x), 1)[:, ::2], dy)):
        near(cuda.reduce(one, Cells()).mean, reference.reduce(one, Cells()).mean, 1e-12)
        near(
            cuda.apply_backward(other, one, *tables, Cells()),
            reference.apply_backward(other, one, *tables, Cells()),
            1e-12,
        )
        near(cuda.apply(one, *tables[:2], Cells(), other), reference.apply(one, *tables[:2], Cells(), other), 1e-12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_batch_normalization(device, layout):
    """Its forward and backward pass as the six equations of Ioffe and Szegedy, rectified, against autograd."""
    eps, cells = 1e-3, Cells()
    x, dy = (draw(layout, torch.float64, device) for _ in range(2))
    weight, bias = torch.randn(2, x.shape[1], dtype=torch.float64, device=x.device)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    expected = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=eps).relu()
    gradients = torch.autograd.grad(expected, leaves, dy)

    moments = cuda.reduce(x, cells)
    inverse = (moments.variance + eps).rsqrt()
    scale = inverse * weight
    gate = (scale, bias - moments.mean * scale)
    total, product = cuda.reduce_backward(dy, x, moments.mean, cells, gate)
    slope = -scale * inverse.square() * product / moments.count
    constant = -scale * total / moments.count - slope * moments.mean
    near(cuda.apply(x, *gate, cells, rectify=True), expected.detach(), 1e-12)
    near(cuda.apply_backward(dy, x, scale, slope, constant, cells, gate), gradients[0], 1e-12)
    near((product * inverse)[0], gradients[1], 1e-12)
    near(total[0], gradients[2], 1e-12)


def test_every_sample_lies_in_one_block_of_its_group(device):
    for groups, n, size in ((5, 40, 4), (30, 40, 8), (1, 7, 3), (40, 40, 2), (6, 40, 100)):
        sample = torch.randint(0, max(groups - 2, 1), (n,), device=device)
        order, blocks, first = triton_plan._blocks(sample, groups, size)
        seen = []
        for number, (start, stop, group) in enumerate(blocks.tolist()):
            members = order[start:stop].tolist() if stop > start else []
            assert len(members) <= size
            assert all(sample[i] == group for i in members)
            assert bool(members) == (number < first[-1])
            assert not members or first[group] <= number < first[group + 1]
            seen += members
        assert sorted(seen) == list(range(n))


def test_supported_are_floating_tensors_of_the_device_that_hold_something(device):
    supports, x = cuda.supports, torch.ones(2, 3, 4, device=device)
    assert all(supports(x.to(dtype)) for dtype in EXACT)
    assert not supports(x.long())
    assert not supports(x[:0])
    assert not supports(x.to("meta"))


def compile_all() -> None:
    """Compile every kernel for a GPU, without one: the types and shapes that the interpreter does not check."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Absent:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 80, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    driver.set_active(Absent())
    compiled = triton.JITFunction.run
    names = set()

    def only_compile(self, *arguments, grid, warmup, **options):
        names.add(self.__name__)
        assert b"ELF" in compiled(self, *arguments, grid=grid, warmup=True, **options).asm["cubin"]

    triton.JITFunction.run = only_compile
    for layout, kind, dtype in (
        ("contiguous", "indexed prefix", torch.float32),
        ("channels last", "steps", torch.bfloat16),
    ):
        x = draw(layout, dtype, "cpu")
        cells = cells_of(kind, x.shape[0], x.shape[2], "cpu")
        table = torch.ones(cells.count, x.shape[1], dtype=torch.float64)
        cuda.reduce(x, cells)
        cuda.apply(x, table, table, cells, x, True)
        cuda.reduce_backward(x, x, table, cells, (table, table))
        cuda.apply_backward(x, x, table, table, table, cells, (table, table))
    assert names == {"measure", "merge", "prepare", "affine", "project", "add"}


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    """In a process of its own: what has no device to run on would stay the active one."""
    folder = Path(__file__).parent
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "import test_cuda; test_cuda.compile_all()"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
