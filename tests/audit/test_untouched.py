"""Auditing changes nothing: parameters, gradients, buffers, modes, hooks, random states, on errors too."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from audit.patients import batches, raw, trained
from torch import Tensor, nn

import normwise
from normwise.errors import DataError, NormwiseError, UsageError


def snapshot(model: nn.Module):
    tensors = {name: (id(t), t.detach().clone(), t.requires_grad, t.grad) for name, t in model.named_parameters()}
    buffers = {name: (id(t), t.clone()) for name, t in model.named_buffers()}
    modes = [m.training for m in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return tensors, buffers, modes, hooks, torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def assert_same(before, after) -> None:
    for old, new in zip(before[:2], after[:2], strict=True):
        assert old.keys() == new.keys()
        for key in old:
            assert old[key][0] == new[key][0], key
            assert torch.equal(old[key][1], new[key][1]), key
            assert old[key][2:] == new[key][2:], key
    assert before[2:4] == after[2:4]
    assert torch.equal(before[4], after[4])
    assert (before[5] == after[5]).all()
    assert before[6] == after[6]


def messy() -> nn.Module:
    model = trained().train()
    model[4].eval()
    model[1].requires_grad_(False)
    model[0].register_forward_hook(lambda *_: None)
    model[12].weight.grad = torch.ones_like(model[12].weight)
    model[8].running_mean += 1
    return model


def test_a_full_audit_leaves_no_trace():
    model = messy()
    before = snapshot(model)
    normwise.audit(model, batches(), target=raw(), optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert_same(before, snapshot(model))


def test_a_failing_audit_leaves_no_trace():
    model = messy()
    data = [*batches()[:4], (torch.randn(3, 2, 8, 8), torch.zeros(3, dtype=torch.long))]
    before = snapshot(model)
    with pytest.raises(DataError, match=r"^data: Sequential does not run on a batch"):
        normwise.audit(model, data)
    assert_same(before, snapshot(model))


def test_a_shuffling_loader_gives_the_same_order_again():
    dataset = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*batches(), strict=True)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)
    state = torch.get_rng_state()
    first = normwise.audit(trained(), loader).to_json()
    assert torch.equal(state, torch.get_rng_state())
    assert normwise.audit(trained(), loader).to_json() == first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected at least one batch"),
        (torch.zeros(4, 1, 8, 8), "expected an iterable of batches"),
        (3, "expected an iterable of batches"),
        ([("a", "b")], "expected batches that hold tensors"),
    ],
)
def test_bad_data_is_one_clear_error(data, message):
    with pytest.raises(NormwiseError, match=message) as error:
        normwise.audit(trained(), data)
    assert "\n" not in str(error.value)


def test_bad_arguments_are_one_clear_error():
    for options, message in (
        ({"select": "NW9X"}, "unknown rule code 'NW9X'"),
        ({"role": "critic"}, "role must be one of"),
        ({"max_batches": 0}, "max_batches must be at least 1"),
    ):
        with pytest.raises(NormwiseError, match=message):
            normwise.audit(trained(), batches(), **options)
    with pytest.raises(UsageError, match="level must be one of"):
        normwise.audit(trained()).exit_code("info")
    with pytest.raises(NormwiseError, match=r"expected a torch\.nn\.Module"):
        normwise.audit(trained().state_dict())


@dataclass
class Output:
    logits: Tensor
    features: Tensor


class TwoInputs(nn.Module):
    """Several inputs, a dataclass for output."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Output:
        features = self.norm(torch.cat([left, right], 1))
        return Output(self.head(features), features)


def labels() -> Tensor:
    return torch.randint(0, 3, (16,))


@pytest.mark.parametrize(
    "batch",
    [
        lambda: ((torch.randn(16, 4), torch.randn(16, 4)), labels()),
        lambda: ([torch.randn(16, 4), torch.randn(16, 4)], labels()),
        lambda: ({"left": torch.randn(16, 4), "right": torch.randn(16, 4)}, labels()),
        lambda: {"left": torch.randn(16, 4), "right": torch.randn(16, 4), "labels": labels()},
        lambda: (torch.randn(16, 4), torch.randn(16, 4), labels()),
    ],
)
def test_every_usual_form_of_batch(batch):
    report = normwise.audit(TwoInputs(), [batch() for _ in range(8)])
    assert report.attribution.metric == "accuracy"
    assert [f.layer for f in report.findings if f.code == "NW104"] == ["norm"]
