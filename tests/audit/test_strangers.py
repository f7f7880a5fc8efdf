"""Models and batches that strangers bring: the audit answers, and leaves them as they were."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from audit.patients import batches, trained
from torch import Tensor, nn

import normwise
from normwise.audit.score import MANY, Scores, compare
from normwise.errors import ModelError, NormwiseError


def codes(report) -> set[str]:
    return {finding.code for finding in report.findings}


def images(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))) for _ in range(count)]


def test_a_model_without_norms_is_clean():
    report = normwise.audit(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), images())
    assert report.findings == []
    assert "no layer with batch statistics" in report.notes[0]


def test_a_linear_layer_over_another_axis_is_not_cancelled():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    report = normwise.audit(model, [torch.randn(16, 8, 8) for _ in range(2)])
    assert "NW101" not in codes(report)


def test_frozen_statistics_cancel_no_bias():
    assert "NW101" not in codes(normwise.audit(normwise.freeze(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))))


def test_a_sliced_sequential_runs():
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.f[3:](self.f[:3](x))

    assert {"NW101", "NW104"} <= codes(normwise.audit(Sliced(), images()))


class Backbone(nn.Module):
    """Freezes its norms the usual way: by overriding train."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()
        for module in self.net:
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        for module in self.net:
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("mode", [True, False])
def test_a_freeze_by_overriding_train_is_done_right(mode):
    assert "NW108" not in codes(normwise.audit(Backbone().train(mode), batches()))


class InPlace(nn.Module):
    """Normalises its own input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.add_(1).sub_(1))


def test_the_users_batches_are_not_changed():
    data = [(x.clone(), y) for x, y in batches()]
    report = normwise.audit(InPlace(), data)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(data, batches(), strict=True))
    assert report.exit_code("error") == 0


class Remembers(nn.Module):
    """Keeps state in plain attributes and buffers, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last = trained(), None
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("expanded", torch.ones(1, 4).expand(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        return self.net(x) / self.calls


def test_state_kept_by_forward_is_put_back_and_is_no_leak():
    model = Remembers()
    report = normwise.audit(model, batches())
    assert model.last is None
    assert float(model.calls) == 0
    assert "NW301" not in codes(report)


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y = self.norm(self.lift(x))
        return y + torch.zeros_like(y).index_add(0, edges[0], y[edges[1]])


def test_batches_that_cannot_be_taken_apart_are_audited_without_the_probes():
    data = [((torch.randn(30, 4), torch.randint(0, 30, (2, 90))), torch.randn(30, 8)) for _ in range(4)]
    report = normwise.audit(Graph(), data)
    assert "NW104" in codes(report)
    assert any("NW301" in note for note in report.notes)


def test_lists_of_images_are_not_joined_along_their_channels():
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())

        def forward(self, listed: list[Tensor]) -> Tensor:
            return self.net(torch.stack(listed))

    task = normwise.Task(forward=lambda model, batch: model(batch[0]))
    report = normwise.audit(
        Detector(), [([torch.randn(3, 8, 8)] * 4, {"boxes": torch.zeros(4)}) for _ in range(4)], task=task
    )
    assert "NW104" in codes(report)


@dataclass
class Batch:
    image: Tensor
    digit: Tensor


def test_a_task_reads_any_batch():
    task = normwise.Task(
        forward=lambda model, batch: model(batch.image),
        loss=lambda output, batch: nn.functional.cross_entropy(output, batch.digit, reduction="none"),
    )
    report = normwise.audit(trained(), [Batch(x, y) for x, y in batches()], task=task)
    assert report.attribution.metric == "loss"


def test_a_dict_with_more_than_the_model_takes():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained()

        def forward(self, image: Tensor) -> Tensor:
            return self.net(image)

    report = normwise.audit(Named(), [{"image": x, "label": y, "id": ["a"] * len(x)} for x, y in batches()])
    assert report.attribution.metric == "accuracy"


def test_void_pixels_do_not_count():
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    labels = torch.randint(0, 4, (16, 8, 8))
    labels[:, :4] = 255
    report = normwise.audit(Segments(), [(torch.randn(16, 3, 8, 8), labels) for _ in range(4)])
    assert report.attribution.metric == "accuracy"


def test_broken_statistics_are_cured_although_the_data_hold_the_bad_batch():
    data = [(x.clone(), y) for x, y in batches()]
    data[2][0][0] = math.nan
    model = trained()
    model[1].running_mean.fill_(math.nan)
    report = normwise.audit(model, data)
    assert report.causes[0].code == "NW105"
    assert report.causes[0].recovery.low > 0.3


def test_models_that_cannot_be_differentiated_are_still_probed():
    class NoGradient(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()
            return y.add_(1)

    assert codes(normwise.audit(NoGradient(), [torch.randn(8, 3)])) == set()


def scripted() -> nn.Module:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        return torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)))


def exported() -> nn.Module:
    return torch.export.export(nn.Sequential(nn.BatchNorm1d(3)).eval(), (torch.randn(8, 3),)).module()


@pytest.mark.parametrize("make", [scripted, exported, lambda: nn.Sequential(nn.LazyBatchNorm1d())])
def test_models_that_cannot_be_audited_are_refused_in_a_line(make):
    model = make()
    with pytest.raises(ModelError, match=r"^model: "):
        normwise.audit(model, [torch.randn(8, 3)])


def test_statistics_in_broadcast_shape_are_measured():
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("moving_mean", torch.full((1, 3, 1, 1), 4.0))
            self.register_buffer("moving_var", torch.ones(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.moving_mean) / (self.moving_var + 1e-5).sqrt()

    model = Written()
    assert "NW201" in codes(normwise.audit(model, [x for x, _ in images()]))
    normwise.recalibrate(model, [x for x, _ in images()])
    assert model.moving_mean.shape == (1, 3, 1, 1)
    assert model.moving_mean.abs().max() < 0.2


def test_unknown_codes_are_refused_when_applying():
    report = normwise.audit(trained())
    with pytest.raises(NormwiseError, match="unknown rule code 'NW999'"):
        report.apply(trained(), codes=["NW999"])


def test_a_parametrized_bias_is_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    torch.nn.utils.parametrize.register_parametrization(model[0], "bias", nn.Identity())
    before = copy.deepcopy(model.state_dict())
    normwise.audit(model).apply(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_unfreezing_keeps_a_train_of_the_users_own_and_the_latest_mode():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).train()
    own = model[0].train
    model[0].train = own
    normwise.freeze(model)
    model.eval()
    normwise.unfreeze(model[1])
    assert not model[1].training
    normwise.unfreeze(model)
    assert vars(model[0])["train"] == own


def test_intervals_agree_whether_by_bootstrap_or_by_the_normal_law():
    generator = torch.Generator().manual_seed(0)
    gains = torch.randn(MANY, generator=generator).double().numpy()
    few = compare(Scores("loss", gains * 0), Scores("loss", -gains))
    many = compare(Scores("loss", gains.repeat(2) * 0), Scores("loss", -gains.repeat(2)))
    assert few.recovered == pytest.approx(many.recovered)
    assert (few.high - few.low) / math.sqrt(2) == pytest.approx(many.high - many.low, rel=0.1)
