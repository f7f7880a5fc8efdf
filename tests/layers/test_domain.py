"""`DomainBatchNorm`: the conformance suite, and equality with one torch layer a domain."""

from __future__ import annotations

from functools import partial

import loop_oracle as loops
import numpy as np
import pytest
import torch
from conformance import BAD_INPUT, TOO_FEW_VALUES, LayerCase, LayerConformance, Refusal, shapes_unchecked
from torch import nn

from normwise.errors import DataError, ShapeError
from normwise.layers import BatchInfo, DomainBatchNorm, Source, StatisticsPolicy

DOMAINS = 4


def mixed(x):
    """Domains in no order: one a single sample's, one of nobody."""
    return (torch.tensor([0, 2, 0, 3, 2, 0, 2])[torch.arange(len(x)) % 7],)


def groups(x, side):
    return np.asarray(side[0]).reshape(-1, *[1] * (x.ndim - 1))


def affine(state, domain):
    by_domain = state["weight"].ndim == 2
    row = (lambda place: (int(domain[place[0]]), place[1])) if by_domain else (lambda place: place[1])
    return lambda place: (state["weight"][row(place)], state["bias"][row(place)])


def oracle(x, side, state, momentum):
    statistics = loops.measure(x, groups(x, side))
    y = loops.standardise(x, groups(x, side), loops.by_batch(statistics), affine(state, side[0]))
    return y, loops.updated(state, statistics, momentum) | loops.counted(state, statistics)


def evaluate(x, side, state):
    def running(g, c):
        return state["running_mean"][g, c], state["running_var"][g, c]

    return loops.standardise(x, groups(x, side), running, affine(state, side[0]))


CASE = LayerCase(
    create=partial(DomainBatchNorm, num_domains=DOMAINS),
    oracle=oracle,
    evaluate=evaluate,
    side=mixed,
    groups=lambda x, side: torch.from_numpy(groups(x, side)),
    trivial=partial(DomainBatchNorm, num_domains=1),
    trivial_side=lambda x: (torch.zeros(len(x), dtype=torch.int32),),
    refusals=(
        *BAD_INPUT,
        *TOO_FEW_VALUES,
        Refusal(r"domain must lie in \[0, 3\], got values from 0 to 4", side=lambda x: (torch.tensor([0, 4, 1, 1]),)),
        Refusal(r"domain must lie in \[0, 3\], got values from -1", side=lambda x: (torch.tensor([0, -1, 1, 1]),)),
        Refusal(r"domain must have one entry a sample, \(4,\)", side=lambda x: (torch.tensor([0, 1, 1]),)),
        Refusal("domain must be of an integer dtype", side=lambda x: (torch.zeros(4),)),
    ),
    twin=False,
)


class TestDomainBatchNorm(LayerConformance):
    case = CASE


class TestDomainBatchNormWithAffineByDomain(LayerConformance):
    case = CASE.variant(
        create=partial(DomainBatchNorm, num_domains=DOMAINS, affine_by_domain=True),
        trivial=partial(DomainBatchNorm, num_domains=1, affine_by_domain=True),
    )


@pytest.mark.parametrize("momentum", [0.2, None])
def test_training_is_that_of_one_torch_layer_a_domain(momentum):
    ours = DomainBatchNorm(3, DOMAINS, momentum=momentum, dtype=torch.float64)
    each = nn.ModuleList(nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in range(DOMAINS))
    for step in range(4):
        x, domain = torch.randn(9, 3, 2).double() * 3 + 1, torch.randint(0, DOMAINS - (step < 3), (9,))
        y, expected = ours(x, domain), torch.zeros_like(x)
        for name in domain.unique():
            expected[domain == name] = each[name](x[domain == name])
        torch.testing.assert_close(y, expected)
    assert ours.num_batches_tracked.tolist() == [int(layer.num_batches_tracked) for layer in each]
    ours.eval(), each.eval()
    y = ours(x, domain)
    for name in domain.unique():
        torch.testing.assert_close(y[domain == name], each[name](x[domain == name]))


def test_a_single_value_of_a_domain_gives_the_bias_and_changes_nothing_of_its_domain():
    layer = DomainBatchNorm(2, 2)
    nn.init.normal_(layer.bias)
    y = layer(torch.randn(4, 2), torch.tensor([0, 1, 0, 0]))
    torch.testing.assert_close(y[1], layer.bias)
    assert layer.num_batches_tracked.tolist() == [1, 0]
    assert layer.running_mean[1].tolist() == [0, 0]
    assert layer.running_var[1].tolist() == [1, 1]
    assert (layer.running_mean[0] != 0).all()


def trained_on(domains, **options):
    """A layer that has seen some of three domains, each with its own mean and deviation, and those."""
    layer = DomainBatchNorm(1, 3, momentum=None, dtype=torch.float64, **options)
    for step in range(3):
        for domain in domains[: 1 + (step > 0)]:  # the first one once more than the others
            layer(torch.randn(50, 1).double() * (domain + 1) + 10 * domain, torch.full((50,), domain))
    return layer.eval()


def test_an_unseen_domain_gets_the_mixture_of_the_seen_ones():
    layer, x = trained_on([0, 2]), torch.randn(6, 1).double()
    share = torch.tensor([3 / 5, 2 / 5]).double().unsqueeze(-1)
    assert layer.num_batches_tracked.tolist() == [3, 0, 2]
    mean, var = layer.running_mean[[0, 2]], layer.running_var[[0, 2]]
    mixed_mean = (share * mean).sum(0)
    mixed_var = (share * (var + mean**2)).sum(0) - mixed_mean**2
    expected = (x - mixed_mean) / (mixed_var + 1e-5).sqrt()
    torch.testing.assert_close(layer(x, torch.ones(6).long()), expected)
    seen = layer(x, torch.full((6,), 2))
    torch.testing.assert_close(seen, (x - mean[1]) / (var[1] + 1e-5).sqrt())


def test_an_untrained_layer_evaluates_as_torchs():
    x = torch.randn(6, 2)
    torch.testing.assert_close(DomainBatchNorm(2, 3).eval()(x, torch.arange(6) % 3), nn.BatchNorm1d(2).eval()(x))


def test_an_unseen_domain_may_be_refused():
    layer, x = trained_on([0, 2], unseen=None), torch.randn(6, 1).double()
    before = {name: value.clone() for name, value in layer.named_buffers()}
    layer.policy = StatisticsPolicy(training=Source.RUNNING)
    for training in (False, True):
        with pytest.raises(DataError, match="one that training has seen, got 1;"):
            layer.train(training)(x, torch.tensor([0, 1, 2, 0, 1, 2]))
        assert all(torch.equal(before[name], value) for name, value in layer.named_buffers())
    assert layer.eval()(x, torch.tensor([0, 2, 2, 0, 2, 2])).isfinite().all()


def test_the_domain_is_required_and_may_come_from_batch_info():
    layer, x, domain = DomainBatchNorm(2, 2), torch.randn(6, 2), torch.arange(6) % 2
    with pytest.raises(DataError, match=r"domain must be given.*second argument.*BatchInfo"):
        layer(x)
    assert int(layer.num_batches_tracked.sum()) == 0
    expected = layer(x, domain)
    with BatchInfo(domain=domain):
        assert torch.equal(nn.Sequential(layer)(x), expected)
    with BatchInfo(domain=1 - domain):
        assert torch.equal(layer(x, domain), expected)  # what is given comes first


def test_construction_and_the_printed_form():
    with pytest.raises(ShapeError, match="num_domains must be at least 1, got 0"):
        DomainBatchNorm(2, 0)
    assert "num_domains=3, affine_by_domain=True" in repr(DomainBatchNorm(2, 3, affine_by_domain=True))
    assert list(DomainBatchNorm(2, 3, affine=False, affine_by_domain=True).state_dict()) == [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]


def test_without_running_statistics_evaluation_uses_the_batchs():
    layer, x, domain = DomainBatchNorm(2, 2, track_running_stats=False), torch.randn(6, 2), torch.arange(6) % 2
    assert torch.equal(layer.train()(x, domain), layer.eval()(x, domain))
    with shapes_unchecked(), pytest.raises(ShapeError, match="more than 1 value"):
        layer(x[:1], domain[:1])
