"""Clustered moments merge exactly, however the clusters were split into batches."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise.core.kernels import reference
from normwise.core.moments import ClusteredMoments


def of(x: torch.Tensor) -> ClusteredMoments:
    return ClusteredMoments.of(reference.reduce_samples(x))


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 11), max_size=11),
    length=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_merging_batches_equals_measuring_them_together(cuts, length, offset, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 2, length, generator=draw, dtype=torch.float64).exp() + offset
    edges = [0, *sorted(cuts), 12]
    merged, *rest = (of(x[start:stop]) for start, stop in itertools.pairwise(edges))
    for part in rest:
        merged = merged.merge(part)
    whole = of(x)
    for name in ("values", "means", "squares"):
        for table in ("count", "mean", "m2"):
            ours, expected = (getattr(getattr(m, name), table) for m in (merged, whole))
            torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(merged.cross, whole.cross, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_error_of_a_variance_does_not_shrink_with_the_batch_it_was_measured_in(batch):
    """2000 Gaussian values, in batches of any size: sqrt(2 / (n - 1)), to four of its own standard errors."""
    n = 2000
    parts = torch.randn(n, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64).split(batch)
    merged = of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(of(part))
    # relative variance of a sample variance of u = z^2 is (kurtosis - 1) / n = 14 / n, half of it for its root
    tolerance = 4 * (14 / n) ** 0.5 / 2
    assert merged.relative_error_of_variance(n).item() == pytest.approx((2 / (n - 1)) ** 0.5, rel=tolerance)
