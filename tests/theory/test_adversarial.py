"""Coupling of real and fake samples, and conditional BN: torch as the oracle, identities, and fresh draws of fakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from theory.agreement import assert_agrees
from torch import nn

from normwise.theory import adversarial, causality
from normwise.theory.mixture import MeanVariance

RNG = np.random.default_rng(0)
REAL, FAKE, OTHER = RNG.normal(1, 2, (12, 3)), RNG.normal(0, 1, (4, 3)), RNG.exponential(2, (4, 3))
WEIGHT, SHARE = np.array([0.5, -2.0, 1.0]), 12 / 16


def moments(x):
    return MeanVariance(x.mean(0), x.var(0))


def logits(*groups, norm):
    """Logits of the first group, in a discriminator norm -> linear, all groups in one batch."""
    batch = torch.from_numpy(np.concatenate(groups))
    return norm(batch)[: len(groups[0])].detach().numpy() @ WEIGHT


def predicted(real=REAL, fake=FAKE, other=OTHER, share=SHARE):
    return adversarial.logit_shift(REAL, WEIGHT, moments(real), moments(fake), moments(other), share=share, eps=1e-5)


def test_joint_batch_shifts_logits_exactly():
    norm = nn.BatchNorm1d(3, affine=False, dtype=torch.float64)
    measured = logits(REAL, OTHER, norm=norm) - logits(REAL, FAKE, norm=norm)
    np.testing.assert_allclose(predicted(), measured, rtol=1e-10)
    assert np.abs(measured).max() > 0.1


def test_one_sample_one_feature_by_hand():
    """Half reals at 0 +- 1: joint (0, 1) with fakes alike, (1, 2) with fakes at 2; x = 3 goes from 3 to 2 / sqrt 2."""
    real, far = MeanVariance(np.zeros(1), np.ones(1)), MeanVariance(np.full(1, 2.0), np.ones(1))
    shift = adversarial.logit_shift(np.array([3.0]), np.array([10.0]), real, real, far)
    assert shift == pytest.approx(10 * (2**0.5 - 3))
    assert adversarial.film_coefficients(6.0, 1.0, MeanVariance(2.0, 4.0)) == (3.0, -5.0)


def test_nothing_moves_in_separate_batches_or_with_layer_norm_or_for_fakes_of_the_same_moments():
    assert not predicted(share=1.0).any()
    layer_norm = nn.LayerNorm(3, dtype=torch.float64)
    assert not (logits(REAL, OTHER, norm=layer_norm) - logits(REAL, FAKE, norm=layer_norm)).any()
    np.testing.assert_allclose(predicted(other=FAKE[::-1]), 0, atol=1e-14)


def test_a_small_step_of_one_fake_is_the_jacobian():
    step = 1e-6
    moved = FAKE.copy()
    moved[2, 1] += step
    batch = np.concatenate([REAL, FAKE])[:, 1]
    gradient = causality.jacobian(batch, 0 * batch, 1e-5)[: len(REAL), len(REAL) + 2] * WEIGHT[1]
    np.testing.assert_allclose(predicted(other=moved) / step, gradient, rtol=1e-4, atol=1e-7)


def test_more_fakes_couple_more():
    shifts = [np.abs(predicted(share=share)).max() for share in (0.99, 0.9, 0.5)]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0.05 * shifts[-1]


def first_order(x, real, fake, count):
    """The variance of a shift to first order in one over the batch, half of it fakes."""
    joint = adversarial.joint_moments(real, fake)
    x_hat, a = (x - joint.mean) / joint.variance**0.5, (fake.mean - joint.mean) / joint.variance**0.5
    b = fake.variance / joint.variance
    return (b * (1 + a * x_hat) ** 2 + (x_hat * b) ** 2 / 2) / count


CASES = pytest.mark.parametrize(
    ("real_variance", "fake"),
    [(1.0, MeanVariance(0.0, 1.0)), (0.1, MeanVariance(1.0, 0.3))],
    ids=["like the reals", "unlike"],
)


@CASES
def test_fresh_fakes_of_the_same_distribution(real_variance, fake):
    """Half of a batch of 12 drawn again: the joint statistics move by sampling alone, not to first order only."""
    rng, count, draws = np.random.default_rng(1), 12, 400_000
    real, x = MeanVariance(0.0, real_variance), np.array([-2.0, 0.5, 3.0])
    half = rng.normal(size=(draws, 2, count // 2)) * fake.variance**0.5 + fake.mean
    outputs = []
    for fakes in half.swapaxes(0, 1):
        joint = adversarial.joint_moments(real, moments(fakes.T))
        outputs.append((x[:, None] - joint.mean) / (joint.variance + 1e-3) ** 0.5)
    squared = np.square(outputs[1] - outputs[0]).T
    variance = adversarial.fresh_fakes_variance(x, real, fake, count, eps=1e-3)
    assert_agrees(squared, variance, rival=first_order(x, real, fake, count))


@CASES
def test_fresh_fakes_of_many_are_first_order(real_variance, fake):
    real, x = MeanVariance(0.0, real_variance), np.array([-2.0, 0.5, 3.0])
    found = adversarial.fresh_fakes_variance(x, real, fake, 1e6)
    np.testing.assert_allclose(found, first_order(x, real, fake, 1e6), rtol=1e-4)
    same = MeanVariance(0.0, 1.0)
    np.testing.assert_allclose(adversarial.fresh_fakes_variance(2.0, same, same, 1e6), 3e-6, rtol=1e-5)


def test_fakes_that_are_all_alike_or_apart_move_nothing_anew():
    same, alike = MeanVariance(0.0, 1.0), MeanVariance(3.0, 0.0)
    assert adversarial.fresh_fakes_variance(2.0, same, alike, 8) == pytest.approx(0, abs=1e-30)
    assert adversarial.fresh_fakes_variance(2.0, same, same, 32, share=1.0) == 0


def test_a_norm_is_as_steep_as_autograd_finds_it_where_features_fade():
    x, contrast = torch.tensor([[0.3], [-0.1], [0.2], [0.0]], dtype=torch.float64), 0.05
    norm = nn.BatchNorm1d(1, affine=False, dtype=torch.float64)

    def steepness(batch):
        jacobian = torch.autograd.functional.jacobian(norm, batch)[:, 0, :, 0]
        return torch.linalg.matrix_norm(jacobian, 2).item()

    found = steepness(contrast * x) / steepness(x)
    variance = x.var(unbiased=False).item()
    assert adversarial.fading_steepness(contrast, variance, norm.eps) == pytest.approx(found, rel=1e-12)
    assert found < 0.95 / contrast


def test_steepness_is_one_over_the_contrast_until_eps_is_in_the_way():
    assert adversarial.fading_steepness(0.125, 7.0) == 8
    assert adversarial.fading_steepness(1.0, 7.0, 0.1) == 1
    assert adversarial.fading_steepness(1e-9, 3.0, 1.0) == pytest.approx(2)


@pytest.mark.parametrize("share", [SHARE, 0.0], ids=["joint", "fakes alone"])
def test_gradient_through_statistics_is_autograds(share):
    batch = torch.from_numpy(np.concatenate([REAL, FAKE]) if share else FAKE).requires_grad_()
    norm = nn.BatchNorm1d(3, affine=False, dtype=torch.float64)
    (norm(batch)[-len(FAKE) :] @ torch.from_numpy(WEIGHT)).sum().backward()
    deviation = (batch.detach().var(0, unbiased=False) + norm.eps).sqrt().numpy()
    direct = np.broadcast_to(WEIGHT / deviation, FAKE.shape)
    through = batch.grad[-len(FAKE) :].numpy() - direct
    predicted = adversarial.gradient_through_statistics(WEIGHT, moments(REAL), moments(FAKE), share=share, eps=norm.eps)
    assert predicted == pytest.approx(np.linalg.norm(through) / np.linalg.norm(direct), rel=1e-10)


def test_fakes_like_the_reals_lose_their_share_of_the_gradient():
    for share in (0.0, 0.5, 1.0):
        found = adversarial.gradient_through_statistics(WEIGHT, moments(REAL), moments(REAL), share=share)
        assert found == pytest.approx(1 - share)


def test_conditional_norm_is_film():
    rng, labels = np.random.default_rng(2), np.array([0, 1, 1, 2, 0, 2, 2])
    x, gamma, beta = rng.normal(size=(7, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    x_hat = nn.BatchNorm1d(3, affine=False, dtype=torch.float64)(torch.from_numpy(x)).numpy()
    scale, shift = adversarial.film_coefficients(gamma, beta, moments(x), 1e-5)
    np.testing.assert_allclose(scale[labels] * x + shift[labels], gamma[labels] * x_hat + beta[labels], rtol=1e-10)
    output = gamma[labels] * x_hat + beta[labels]
    classes = [x[labels == label] for label in range(3)]
    parts = MeanVariance(np.array([c.mean(0) for c in classes]), np.array([c.var(0) for c in classes]))
    expected = adversarial.conditional_output(gamma, beta, parts, np.bincount(labels), 1e-5)
    for label in range(3):
        np.testing.assert_allclose(expected.mean[label], output[labels == label].mean(0), rtol=1e-10)
        np.testing.assert_allclose(expected.variance[label], output[labels == label].var(0), rtol=1e-10)


def test_one_class_alone_leaves_with_its_own_shift_and_scale():
    alone = adversarial.conditional_output(
        np.array([[3.0]]), np.array([[-1.0]]), MeanVariance(np.array([[7.0]]), np.array([[4.0]])), np.ones(1)
    )
    assert (alone.mean.item(), alone.variance.item()) == (-1.0, 9.0)


def test_joint_moments_of_one_half_and_of_both():
    real, fake = MeanVariance(1.0, 2.0), MeanVariance(3.0, 4.0)
    assert adversarial.joint_moments(real, fake, 1.0) == pytest.approx(real)
    assert adversarial.joint_moments(real, fake, 0.0) == pytest.approx(fake)
    assert adversarial.joint_moments(real, fake) == pytest.approx((2.0, 3.0 + 1.0))


def test_drawn_classes_leave_conditional_norm_with_shared_statistics():
    rng, gamma, beta = np.random.default_rng(3), np.array([1.0, 2.0]), np.array([0.0, 1.0])
    x = rng.normal(size=(4000, 2, 100)) + np.array([[0.0], [3.0]])
    centred = x - x.mean((1, 2), keepdims=True)
    output = (gamma[:, None] * centred / x.std((1, 2))[:, None, None] + beta[:, None]).mean(2)
    classes = MeanVariance(np.array([0.0, 3.0]), np.ones(2))
    predicted = adversarial.conditional_output(gamma, beta, classes, np.ones(2))
    # sample moments of 200 values in place of true ones: relative order 1/200
    assert_agrees(output, predicted.mean, rival=beta, allowance=np.abs(predicted.mean - beta) * 2 / 200)


def test_parameters_are_counted_as_torch_counts_them():
    size = sum(p.numel() for p in nn.Conv2d(8, 16, 3, bias=False).parameters())
    assert adversarial.filter_parameters(8, 16, 3, classes=5) == 5 * size
    per_class = sum(p.numel() for p in nn.BatchNorm2d(16).parameters())
    assert adversarial.conditional_parameters(16, 5) == 5 * per_class


def test_equal_parameter_width_costs_the_same():
    width = adversarial.equal_parameter_width(64, 3, 10)
    shared = adversarial.filter_parameters(64, 64, 3) + adversarial.conditional_parameters(64, 10)
    assert adversarial.filter_parameters(width, width, 3, classes=10) == pytest.approx(shared)
    assert adversarial.equal_parameter_width(1e9, 3, 10) == pytest.approx(1e9 / 10**0.5)
