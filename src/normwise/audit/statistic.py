"""Shifts between statistics, pooled over a layer's channels, with their sampling error taken out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from normwise.audit.trace import LayerTrace
from normwise.core.moments import ClusteredMoments

SHIFT = 0.5  # source standard deviations
RATIO = 2.0  # variance ratio, either way
SURE = 2.0  # standard errors
_FEWEST_CLUSTERS = 4


@dataclass(frozen=True)
class Shift:
    """A layer's shift.

    size: rms over channels of the mean's shift in source sd, sampling error taken out; log_ratio: mean over channels
    of the log variance ratio; the errors are standard errors of both, correlated channels assumed.
    """

    size: float
    size_error: float
    log_ratio: float
    log_ratio_error: float

    @property
    def ratio(self) -> float:
        """Variance of the data over that of the source, geometric mean over channels."""
        return math.exp(self.log_ratio)

    @property
    def large(self) -> bool:
        """Whether mean or variance is off by more than the thresholds and beyond sampling error."""
        mean_is_off = self.size > SHIFT and self.size > SURE * self.size_error
        variance_is_off = abs(self.log_ratio) > math.log(RATIO) and abs(self.log_ratio) > SURE * self.log_ratio_error
        return mean_is_off or variance_is_off

    def __str__(self) -> str:
        """Say both parts."""
        return f"mean {self.size:.2f} sd off, variance {self.ratio:.2f} times the running one"


def shift_of(seen: LayerTrace) -> Shift | None:
    """Return how far the data are from a layer's running statistics; None if too little was seen to tell."""
    if not seen.measured or seen.moments.clusters < _FEWEST_CLUSTERS:
        return None
    moments = seen.moments
    shift, ratio = seen.shift()
    if not bool(torch.isfinite(shift).all() and torch.isfinite(ratio).all() and (ratio > 0).all()):
        return None
    error = moments.relative_error_of_mean(moments.clusters).square() * ratio
    log_error = moments.relative_error_of_variance(moments.clusters).nan_to_num(0.0)
    size = (shift.square() - error).mean().clamp_min(0).sqrt()
    return Shift(
        float(size),
        float(error.mean().sqrt()),
        float(ratio.log().mean()),
        float(log_error.square().mean().sqrt()),
    )


def difference(first: ClusteredMoments, second: ClusteredMoments) -> float:
    """Return how far two sets of data differ, in pooled sd, sampling error of both taken out."""
    scale = (first.values.variance + second.values.variance).div(2).clamp_min(1e-12)
    gap = (first.values.mean - second.values.mean).square() / scale
    error = (
        first.relative_error_of_mean(max(first.clusters, 1)).square()
        + second.relative_error_of_mean(max(second.clusters, 1)).square()
    )
    return float((gap - SURE**2 * error).mean().clamp_min(0).sqrt())


def weight_of_initial_value_in(seen: LayerTrace) -> float:
    """Estimate from the values how much of the initial 0 and 1 the running statistics still hold.

    Least squares of `running - data = w (initial - data)` over both statistics of all channels.
    """
    layer, observed = seen.layer, seen.moments.values
    if layer.running_mean is None or layer.running_var is None:
        return 0.0
    scale = (observed.variance + layer.working_eps).sqrt()
    gap = torch.cat([(layer.running_mean - observed.mean) / scale, (layer.running_var - observed.variance) / scale**2])
    whole = torch.cat([-observed.mean / scale, (1 - observed.variance) / scale**2])
    return float((gap * whole).sum() / whole.square().sum().clamp_min(1e-12))
