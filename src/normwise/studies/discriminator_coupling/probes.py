"""What is measured of a discriminator: shifts of its logits, gradients through its statistics, its Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from normwise.layers import BatchInfo, BatchNorm, DomainBatchNorm
from normwise.studies.discriminator_coupling.games import judge


def shift(model: nn.Module, real: Tensor, fake: Tensor, other: Tensor) -> Tensor:
    """Return by how much real logits move when the fakes are replaced by others."""
    with torch.no_grad():
        return judge(model, real, other)[0] - judge(model, real, fake)[0]


@torch.no_grad()
def hold_weights(model: nn.Module) -> None:
    """Give spectral norms the exact singular vectors that their power iterations tend to, and hold the weights there."""
    for module in model.modules():
        if isinstance(module, nn.utils.parametrize.ParametrizationList):
            left, _, right = torch.linalg.svd(module.original, full_matrices=False)
            norm: Any = module[0]
            norm._u.copy_(left[:, 0])
            norm._v.copy_(right[0])
            module.eval()


@contextmanager
def constant_statistics(model: nn.Module) -> Generator[None]:
    """Treat the statistics of all norms as constants in backward passes through what is computed inside."""

    def hold(norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = inputs
        return output.detach() + (x - x.detach()) * _slope(norm, x.detach())

    norms = [module for module in model.modules() if isinstance(module, BatchNorm | DomainBatchNorm | nn.LayerNorm)]
    handles = [norm.register_forward_hook(hold) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _slope(norm: BatchNorm | DomainBatchNorm | nn.LayerNorm, x: Tensor) -> Tensor:
    """Return what the norm multiplies x by."""
    if isinstance(norm, nn.LayerNorm):
        variance = x.var(1, unbiased=False, keepdim=True)
    elif isinstance(norm, DomainBatchNorm):
        domain = BatchInfo.current().domain
        variance = torch.stack([x[domain == d].var(0, unbiased=False) for d in range(norm.num_domains)])[domain]
    else:
        variance = x.var(0, unbiased=False)
    slope = (variance + norm.eps) ** -0.5
    return slope if norm.weight is None else slope * norm.weight.detach()


def through_statistics(model: nn.Module, real: Tensor, fake: Tensor, loss: Callable[[Tensor], Tensor]) -> float:
    """Return the norm of the fakes' gradient that flows through statistics, over that of what flows beside them."""
    fake = fake.detach().requires_grad_()

    def gradient() -> Tensor:
        return torch.autograd.grad(loss(judge(model, real, fake)[1]), fake)[0]

    whole = gradient()
    with constant_statistics(model):
        direct = gradient()
    return float((whole - direct).norm() / direct.norm())


def lipschitz(model: nn.Module, real: Tensor, fake: Tensor) -> float:
    """Return the largest singular value of all logits' Jacobian by the whole batch: its Lipschitz constant there."""
    real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
    logits = torch.cat(judge(model, real, fake))
    rows = [torch.cat(torch.autograd.grad(logit, (real, fake), retain_graph=True)) for logit in logits]
    jacobian = torch.stack(rows).flatten(1)
    return float(torch.linalg.matrix_norm(jacobian, 2))
