"""Batches in the forms that loaders give them."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.errors import DataError, ModelError
from normwise.layers import BatchInfo
from normwise.models.batch import batch_size, describe, map_tensors, read_batches, take_samples, tensors_in
from normwise.models.task import Task, default_loss, prediction, split_batch


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Two(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Optional(nn.Module):
    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        return a if b is None else a + 10 * b


class Labelled(nn.Module):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": torch.zeros(()) if labels is None else labels.float().mean(), "logits": x}


@dataclass
class Output:
    state: Tensor
    logits: Tensor


class Structured(nn.Module):
    def forward(self, x: Tensor) -> Output:
        return Output(x.new_zeros(len(x), 7), x)


X, Y = torch.arange(12.0).view(4, 3), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("model", "batch", "output", "labels"),
    [
        (One(), X, 2 * X, None),
        (One(), [X], 2 * X, None),
        (One(), (X,), 2 * X, None),
        (One(), (X, Y), 2 * X, Y),
        (One(), [X, Y], 2 * X, Y),
        (Two(), (X, X + 1), X - (X + 1), None),
        (Two(), ((X, X + 1), Y), X - (X + 1), Y),
        (Two(), ([X, X + 1], Y), X - (X + 1), Y),
        (Two(), (X, X + 1, Y), X - (X + 1), Y),
        (Two(), ({"a": X, "b": X + 1}, Y), X - (X + 1), Y),
        (Two(), {"a": X, "b": X + 1, "labels": Y}, X - (X + 1), Y),
        (One(), {"x": X, "label": Y}, 2 * X, Y),
        (Optional(), (X, Y), X, Y),
        (Optional(), {"a": X, "b": X}, 11 * X, None),
    ],
)
def test_the_default_forms_of_a_batch(model, batch, output, labels):
    task = Task()
    assert torch.equal(task.run(model, batch), output)
    found = task.labels(model, batch)
    assert found is labels is None or torch.equal(found, labels)


def test_a_model_that_takes_labels_gets_them_and_the_loss_still_does():
    model, batch = Labelled(), {"x": X, "labels": Y}
    output = Task().run(model, batch)
    assert output["loss"] == Y.float().mean()
    expected = functional.cross_entropy(X, Y, reduction="none")
    torch.testing.assert_close(Task().losses(model, output, batch), expected)


def test_a_dataclass_output_is_read_by_its_field():
    model = Structured()
    output = Task().run(model, (X, Y))
    assert torch.equal(prediction(output), X)
    assert Task().correct(model, output, (X, Y)).tolist() == [0, 0, 1, 0]


def test_outputs_are_searched_in_order():
    assert torch.equal(prediction((Y, X, X + 1)), X)
    assert torch.equal(prediction({"out": X, "aux": X + 1}), X)
    with pytest.raises(ModelError, match="expected an output with a floating tensor, got list"):
        prediction([Y, "text"])


def test_integer_labels_give_cross_entropy_over_positions_as_well():
    scores, labels = torch.randn(2, 5, 3, 3), torch.randint(0, 5, (2, 3, 3))
    expected = functional.cross_entropy(scores, labels, reduction="none").mean((1, 2))
    torch.testing.assert_close(default_loss(scores, labels), expected)
    torch.testing.assert_close(default_loss(scores.movedim(1, -1), labels), expected)


def test_floating_labels_give_squared_error():
    labels = torch.tensor([1.0, 2.0])
    assert default_loss(torch.tensor([[1.0], [4.0]]), labels).tolist() == [0.0, 4.0]
    assert default_loss(torch.zeros(2, 5), labels) is None


def test_labels_that_do_not_fit_give_no_loss():
    assert default_loss(torch.zeros(4, 5, 6), torch.zeros(4, dtype=torch.long)) is None
    assert Task().losses(One(), X, X) is None
    assert Task().correct(One(), X, (X, X)) is None


def test_a_single_logit_is_a_choice_of_two():
    scores, labels = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1, 0, 0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores.squeeze(1), labels.float(), reduction="none")
    torch.testing.assert_close(default_loss(scores, labels), expected)
    model = nn.Linear(1, 1)
    assert Task().correct(model, scores, (scores, labels)).tolist() == [1.0, 1.0, 0.0]


def test_negative_labels_are_ignored():
    scores, labels = torch.randn(2, 3, 4), torch.tensor([[0, -1, 2, -100], [1, 1, 1, 1]])
    loss = default_loss(scores, labels)
    known = torch.nn.functional.cross_entropy(scores[:1, :, [0, 2]], labels[:1, [0, 2]])
    torch.testing.assert_close(loss[0], known)


def test_a_loss_and_a_forward_of_ones_own():
    task = Task(forward=lambda model, batch: model(batch["deep"][0]), loss=lambda output, batch: output.sum(1))
    batch = {"deep": [X]}
    output = task.run(One(), batch)
    assert torch.equal(task.losses(One(), output, batch), 2 * X.sum(1))


def test_information_reaches_the_layers():
    seen = []
    model = One()
    model.register_forward_hook(lambda *_: seen.append(BatchInfo.current().lengths))
    Task(info=lambda batch: BatchInfo(lengths=batch[1])).run(model, (X, Y))
    assert torch.equal(seen[0], Y)
    assert BatchInfo.current().lengths is None


def test_a_batch_that_does_not_fit_is_described_in_one_line():
    with pytest.raises(DataError, match=r"Linear does not run on a batch of float32\(4, 3\), int64\(4,\)") as caught:
        Task().run(nn.Linear(5, 2), (X, Y))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="a batch must be a tensor"):
        Task().run(One(), "text")


def test_nested_tensors_are_mapped_and_counted():
    pair = namedtuple("Pair", "a b")
    batch = {"x": [X, pair(X, 3)], "y": "text"}
    assert len(list(tensors_in(batch))) == 2
    doubled = map_tensors(lambda t: 2 * t, batch)
    assert torch.equal(doubled["x"][1].a, 2 * X)
    assert doubled["x"][1].b == 3
    assert batch_size(batch) == 4
    assert describe(batch) == "float32(4, 3), float32(4, 3)"
    with pytest.raises(DataError, match="expected batches that hold tensors"):
        batch_size({"x": 3})


def test_samples_are_taken_from_what_has_the_batch_axis():
    taken = take_samples({"x": X, "y": Y, "scale": torch.ones(2)}, slice(1, 3))
    assert torch.equal(taken["x"], X[1:3])
    assert torch.equal(taken["y"], Y[1:3])
    assert len(taken["scale"]) == 2


def test_batches_are_read_up_to_a_limit_and_empty_ones_skipped():
    data = [X, X[:0], X[:2], X]
    assert [len(batch) for batch in read_batches(data)] == [4, 2, 4]
    assert [len(batch) for batch in read_batches(data, max_batches=2)] == [4, 2]
    for wrong, message in (
        (X, "wrap a single batch"),
        (3, "expected an iterable"),
        ([], "at least one"),
        ([X[:0]], "at least"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_batches(wrong))
    with pytest.raises(DataError, match="max_batches"):
        list(read_batches(data, max_batches=0))


def test_split_leaves_unknown_forms_alone():
    assert split_batch(One(), {"x": X, "labels": Y})[1] is Y
    assert "labels" in split_batch(Labelled(), {"x": X, "labels": Y})[0]
