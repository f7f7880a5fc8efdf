"""The pipeline over every grouping against loops, its gradients, and the proof that the tests can fail."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from normwise.core.grouping import Channelwise, Ghost, Grouping, Indexed, Prefix, Steps, canonical
from normwise.core.kernels import cpu, reference, use_backend
from normwise.core.normalize import normalize, transform
from normwise.core.standardise import Standardise
from normwise.errors import NormwiseError

N, C, L = 6, 2, 4
LENGTHS = torch.tensor([4, 1, 3, 2, 4, 2])
INDEX = torch.tensor([2, 0, 2, 4, 0, 2])
HOLES = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 0]]).bool()


def cell_of(grouping: Grouping, i: int, j: int) -> int | None:
    """The group of sample i, position j, None if masked: the definition, apart from the package's own."""
    match grouping:
        case Channelwise():
            return 0
        case Indexed():
            return int(grouping.index[i])
        case Ghost():
            return i // math.ceil(N / grouping.splits)
        case Prefix(mask=None):
            return 0 if j < int(grouping.lengths[i]) else None
        case Prefix():
            return 0 if bool(grouping.mask[i, j]) else None
        case Steps(lengths=None):
            return j
        case Steps():
            return j if j < int(grouping.lengths[i]) else None
    raise AssertionError


GROUPINGS = {
    "channelwise": Channelwise(),
    "indexed": Indexed(INDEX, 5),
    "sorted": Indexed(INDEX.sort().values, 5),
    "ghost": Ghost(4),
    "lengths": Prefix(lengths=LENGTHS),
    "mask": Prefix(mask=HOLES),
    "steps": Steps(),
    "ragged steps": Steps(lengths=LENGTHS),
}


@pytest.fixture(autouse=True, params=["reference", "cpu"])
def backend(request):
    with use_backend(request.param):
        yield


@pytest.fixture(params=list(GROUPINGS))
def grouping(request) -> Grouping:
    return GROUPINGS[request.param]


def loops(x: Tensor, grouping: Grouping, eps: float = 1e-5) -> Tensor:
    y = torch.zeros_like(x)
    for c in range(C):
        groups: dict[int, list[tuple[int, int]]] = {}
        for i in range(N):
            for j in range(x.shape[2]):
                cell = cell_of(grouping, i, j)
                if cell is not None:
                    groups.setdefault(cell, []).append((i, j))
        for members in groups.values():
            numbers = [x[i, c, j].item() for i, j in members]
            mean = math.fsum(numbers) / len(numbers)
            variance = math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)
            for (i, j), v in zip(members, numbers, strict=True):
                y[i, c, j] = (v - mean) / math.sqrt(variance + eps)
    return y


def run(x: Tensor, grouping: Grouping, *parameters: Tensor) -> Tensor:
    return normalize(x, grouping.cells(x), Standardise(), *parameters)[0]


def data() -> Tensor:
    return torch.randn(N, C, L, dtype=torch.float64) * 2 + 3


def test_output_is_the_loop_oracle(grouping):
    x = data()
    torch.testing.assert_close(run(x, grouping), loops(x, grouping))


def test_moments_are_those_of_the_cells(grouping):
    x = data()
    moments = normalize(x, grouping.cells(x), Standardise())[1]
    counted = [cell_of(grouping, i, j) for i in range(N) for j in range(L)]
    for cell in range(len(moments.mean)):
        assert int(moments.count[cell]) == counted.count(cell)


def test_first_and_second_derivatives(grouping):
    x, weight, bias = (
        data().requires_grad_(),
        torch.rand(C).double().requires_grad_(),
        torch.rand(C).double().requires_grad_(),
    )
    function = partial(lambda x, w, b, grouping: run(x, grouping, w, b), grouping=grouping)
    smooth = partial(normalize_smoothly, grouping=grouping)
    assert torch.autograd.gradcheck(function, (x, weight, bias)) if grouping_is_generous(grouping) else True
    assert torch.autograd.gradcheck(smooth, (x, weight, bias))
    assert torch.autograd.gradgradcheck(smooth, (x, weight, bias))


def normalize_smoothly(x: Tensor, weight: Tensor, bias: Tensor, grouping: Grouping) -> Tensor:
    """A large eps, so that groups of one and two values have gradients a finite difference can see."""
    return normalize(x, grouping.cells(x), Standardise(0.5), weight, bias)[0]


def grouping_is_generous(grouping: Grouping) -> bool:
    return isinstance(grouping, (Channelwise, Prefix))


@pytest.mark.parametrize("name", ["lengths", "mask", "ragged steps"])
@pytest.mark.parametrize("junk", [1e9, math.nan, math.inf])
def test_padding_neither_matters_nor_receives(name, junk):
    grouping, x = GROUPINGS[name], data()
    valid = torch.tensor([[cell_of(grouping, i, j) is not None for j in range(L)] for i in range(N)]).unsqueeze(1)
    padded = torch.where(valid, x, torch.tensor(junk).double()).requires_grad_()
    y = run(padded, grouping)
    torch.testing.assert_close(y, run(x, grouping))
    assert (y[~valid.expand_as(y)] == 0).all()
    (y * torch.randn_like(y)).sum().backward()
    assert (padded.grad[~valid.expand_as(y)] == 0).all()
    assert padded.grad.isfinite().all()


def _without_mean_term(whole, dy, x, a, b, d, *rest):
    return whole(dy, x, a, b, -b * 0, *rest)


def _without_variance_term(whole, dy, x, a, b, d, *rest):
    return whole(dy, x, a, b * 0, d, *rest)


def _without_gradient_term(whole, dy, x, a, b, d, *rest):
    return whole(dy, x, a * 0, b, d, *rest)


def _without_sum(whole, *arguments):
    total, product = whole(*arguments)
    return total * 0, product


def _without_product(whole, *arguments):
    total, product = whole(*arguments)
    return total, product * 0


@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("apply_backward", _without_mean_term),
        ("apply_backward", _without_variance_term),
        ("apply_backward", _without_gradient_term),
        ("reduce_backward", _without_sum),
        ("reduce_backward", _without_product),
    ],
)
def test_a_missing_term_of_the_backward_is_caught(monkeypatch, kernels, name, broken):
    monkeypatch.setattr(kernels, name, partial(broken, getattr(kernels, name)))
    monkeypatch.setattr(kernels, "fuses", lambda x, cells: False)  # which runs the same loops in one go
    inputs = (data().requires_grad_(), torch.rand(C).double().requires_grad_(), torch.rand(C).double().requires_grad_())
    with use_backend(kernels.__name__.rpartition(".")[2]), pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(partial(normalize_smoothly, grouping=Channelwise()), inputs)


def test_only_the_input_is_saved_at_its_size():
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(32, 4, 50, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run(x, Channelwise(), torch.ones(4, requires_grad=True), torch.zeros(4, requires_grad=True))
    assert sum(size >= x.numel() for size in sizes) == 1


@pytest.mark.parametrize("activation", [None, functional.relu, functional.silu])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_residual_and_activation_equal_the_separate_operations(grouping, activation, with_residual, measured):
    x, residual = (data().requires_grad_() for _ in range(2))
    weight, bias = (torch.rand(C, dtype=torch.float64).requires_grad_() for _ in range(2))
    cells, extra = grouping.cells(x), residual if with_residual else None
    if measured:
        plain = normalize_smoothly(x, weight, bias, grouping)
        fused = partial(normalize, x, cells, Standardise(0.5), weight, bias)
        y = fused(residual=extra, activation=activation)[0]
    else:
        plain = transform(x, cells, lambda w, b: (w, b), weight, bias)
        y = transform(x, cells, lambda w, b: (w, b), weight, bias, residual=extra, activation=activation)
    valid = torch.ones_like(x, dtype=torch.bool) if cells.mask is None else cells.mask.unsqueeze(1).expand_as(x)
    expected = torch.where(valid, plain + residual, plain) if with_residual else plain
    expected = expected if activation is None else activation(expected.clone())
    torch.testing.assert_close(y, expected)
    leaves, upstream = [x, weight, bias, *([residual] if with_residual else [])], torch.randn_like(x)
    for create_graph in (False, True):
        ours = torch.autograd.grad(y, leaves, upstream, retain_graph=True, create_graph=create_graph)
        theirs = torch.autograd.grad(expected, leaves, upstream, retain_graph=True, create_graph=create_graph)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)
        curvature = [g.square().sum() for g in (ours[0], theirs[0])] if create_graph else []
        for one, other in zip(*(torch.autograd.grad(c, leaves[:2], allow_unused=True, materialize_grads=True)
                                for c in curvature if c.requires_grad), strict=True):  # fmt: skip
            torch.testing.assert_close(one, other)


def test_functional_transforms_see_through():
    x, weight = data(), torch.rand(C, dtype=torch.float64)
    loss = lambda x, w: run(x, Channelwise(), w).pow(3).sum()  # noqa: E731
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(loss)(x, weight), torch.autograd.grad(loss(leaf, weight), leaf)[0])
    assert torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(torch.stack([x, x + 1]), weight).shape == (
        2,
        N,
        C,
        L,
    )


def test_backward_can_be_called_twice():
    x = data().requires_grad_()
    y = run(x, Channelwise()).square().sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y, x)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Indexed(torch.tensor([0, 1]), 2), "one entry a sample"),
        (lambda: Indexed(torch.full((N,), 7), 5), r"must lie in \[0, 4\]"),
        (lambda: Indexed(torch.zeros(N), 5), "integer dtype"),
        (lambda: Prefix(lengths=torch.full((N,), 9)), r"must lie in \[1, 4\]"),
        (lambda: Prefix(lengths=torch.zeros(N, dtype=torch.long)), r"must lie in \[1, 4\]"),
        (lambda: Prefix(mask=torch.ones(N, 9).bool()), "mask must be"),
        (lambda: Prefix(), "exactly one"),
        (lambda: Ghost(9), "splits must lie"),
    ],
)
def test_groupings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(NormwiseError, match=message):
        make().cells(data())


def test_rows_become_single_positions():
    assert canonical(torch.zeros(3, 2)).shape == (3, 2, 1)
    assert canonical(torch.zeros(3, 2, 4, 5)).shape == (3, 2, 20)
    with pytest.raises(NormwiseError, match="batch axis"):
        canonical(torch.zeros(3))


def test_an_unknown_backend_is_refused():
    with pytest.raises(NormwiseError, match="backend must be one of"), use_backend("quick"):
        pass
