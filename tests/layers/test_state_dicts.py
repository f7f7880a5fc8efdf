"""Weights of models with torch's norms go into the same models with ours, and back, and mean the same there."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import normwise
from normwise.layers import (
    BatchNorm,
    BatchNormAct,
    BatchRenorm,
    ConditionalBatchNorm,
    DomainBatchNorm,
    GhostBatchNorm,
    MaskedBatchNorm,
    TimewiseBatchNorm,
)

SHAPES = {nn.BatchNorm1d: (5, 4, 6), nn.BatchNorm2d: (5, 4, 3, 2), nn.BatchNorm3d: (5, 4, 2, 3, 2)}
SHAPES[nn.SyncBatchNorm] = SHAPES[nn.BatchNorm2d]
OURS = {
    "BatchNorm": BatchNorm,
    "BatchNormAct": partial(BatchNormAct, activation=torch.relu),
    "BatchRenorm": BatchRenorm,
    "GhostBatchNorm": partial(GhostBatchNorm, splits=2),
    "MaskedBatchNorm": MaskedBatchNorm,
}
OPTIONS = [{}, {"affine": False}, {"momentum": None}]
CASES = [(name, options) for name in OURS for options in OPTIONS]
CASES += [(name, {"track_running_stats": False}) for name in ("BatchNorm", "BatchNormAct", "MaskedBatchNorm")]
BY_GROUP = {
    "DomainBatchNorm": partial(DomainBatchNorm, num_domains=3),
    "TimewiseBatchNorm": partial(TimewiseBatchNorm, max_length=6),
    "ConditionalBatchNorm": partial(ConditionalBatchNorm, num_classes=3),
}


class Net(nn.Module):
    """A norm somewhere inside."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Identity(), norm)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.stem[1]
        if isinstance(norm, MaskedBatchNorm):
            return norm(x, mask=torch.ones(len(x), *x.shape[2:], dtype=torch.bool)).relu()
        return norm(x).relu()


def shaken(model: nn.Module) -> nn.Module:
    """Give every table a value that shows."""
    for key, table in model.state_dict().items():
        if table.is_floating_point():
            table.uniform_(0.5, 1.5) if "var" in key else table.normal_()
        else:
            table.fill_(7)
    return model.eval()


@pytest.mark.parametrize("theirs", SHAPES)
@pytest.mark.parametrize(("ours", "options"), CASES)
def test_weights_of_torchs_norms_load_and_mean_the_same_and_go_back(ours, theirs, options):
    x = torch.randn(SHAPES[theirs])
    old, new, again = shaken(Net(theirs(4, **options))), Net(OURS[ours](4, **options)).eval(), Net(theirs(4, **options))
    new.load_state_dict(old.state_dict())
    assert list(new.state_dict()) == list(old.state_dict())
    torch.testing.assert_close(new(x), old(x), rtol=1e-5, atol=1e-5)
    again.load_state_dict(new.state_dict())
    assert all(torch.equal(again.state_dict()[key], table) for key, table in old.state_dict().items())


@pytest.mark.filterwarnings("ignore::normwise.models.convert.ConversionWarning")
@pytest.mark.parametrize("ours", BY_GROUP)
def test_tables_by_group_are_not_filled_in_silence_and_convert_makes_them(ours):
    model, old = Net(BY_GROUP[ours](4)), shaken(Net(nn.BatchNorm1d(4)))
    with pytest.raises(RuntimeError, match="size mismatch for stem"):
        model.load_state_dict(old.state_dict())
    model.load_state_dict(normwise.convert(copy.deepcopy(old), BY_GROUP[ours]).state_dict())
    assert list(model.state_dict()) == list(old.state_dict())
    assert all(torch.equal(table, old.state_dict()[key].expand_as(table)) for key, table in model.state_dict().items())
