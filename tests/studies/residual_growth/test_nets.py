"""Gradients through blocks: weights of nothing, blocks that scale, a convolution on a torus, blocks run alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwise.studies.residual_growth import nets


def test_blocks_without_weights_are_what_their_skip_is():
    generator = torch.Generator().manual_seed(0)
    x, pull = torch.randn(40, 6, generator=generator, dtype=torch.float64), torch.randn(40, 6, generator=generator)
    nothing = [torch.zeros(6, 6, dtype=torch.float64)]
    for kind in ("pre", "no BN"):
        assert nets.factors(kind, nets.dense, nothing, x.clone(), lambda y: (y * pull).sum()) == pytest.approx(1)
    assert nets.factors("neither", nets.dense, nothing, x.clone(), lambda y: (y * pull).sum()) == pytest.approx(0)


def test_a_chain_of_known_scales():
    """Positive values pass ReLU: without skip or BN a block of weights 3 I multiplies by 9, with the skip by 16."""
    x, weights = torch.rand(5, 4) + 0.1, [3 * torch.eye(4)] * 3
    assert nets.factors("neither", nets.dense, weights, x.clone(), torch.sum) == pytest.approx([9] * 3)
    assert nets.factors("no BN", nets.dense, weights, x.clone(), torch.sum) == pytest.approx([16] * 3)


def test_convolution_on_a_torus_commutes_with_shifts():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(3, 3, 3, 3, generator=generator)
    shifted = nets.convolve(x.roll((2, 5), (2, 3)), weight)
    assert torch.allclose(shifted, nets.convolve(x, weight).roll((2, 5), (2, 3)), atol=1e-5)


def test_norm_by_the_second_moment_leaves_mean_square_1_and_its_mean():
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) + 1
    y = nets.BLOCKS["post, by second moment"](x, nets.dense, torch.eye(4))
    assert float(y.square().mean()) == pytest.approx(1)
    assert float(y.mean()) > 0.9


def test_blocks_alone_do_not_feel_their_place():
    """A chain's later pre-activation blocks multiply by less than the first, those run alone by as much."""
    draws = [
        [
            nets.random_factors("pre", form=nets.dense_form(48), samples=96, depth=6, seed=seed, alone=alone)
            for seed in range(30)
        ]
        for alone in (False, True)
    ]
    chain, alone = (np.mean(one, 0) for one in draws)
    assert alone == pytest.approx([1.5] * 6, abs=0.03)
    assert chain[5] < 1.3 < chain[0]
