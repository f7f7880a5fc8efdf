"""Every rule: a positive, a clean and a near-miss case, with the number that proves the finding."""

from __future__ import annotations

import math

import pytest
import torch
from audit.patients import batches, raw, trained
from torch import Tensor, nn
from torch.nn import functional

import normwise
from normwise.audit.rule import Finding, all_rules, find_rule

CODES = [f"NW1{n:02d}" for n in range(1, 13)] + ["NW201", "NW202", "NW203", "NW205", "NW301", "NW601"]


def found(code: str, model: nn.Module, data=None, **options) -> list[Finding]:
    return normwise.audit(model, data, select=code, attribution=False, **options).findings


class RenamedNorm(nn.Module):
    """A look-alike of another name with arithmetic of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(shape) + (self.bias - self.running_mean * scale).view(shape)


class SubclassedNorm(nn.BatchNorm2d):
    pass


def test_every_rule_of_this_release_is_registered_and_documented():
    rules = {rule.code: rule for rule in all_rules()}
    assert set(CODES) <= set(rules)
    for rule in rules.values():
        assert all(
            getattr(rule, text).strip() for text in ("title", "what", "why", "measured", "known_problems", "fix")
        )
        assert find_rule(rule.name) is rule


@pytest.mark.parametrize("code", CODES)
def test_a_sound_model_on_its_own_data_is_clean(code):
    assert found(code, trained(), batches()) == []


def test_the_sound_model_is_clean_as_its_own_target():
    assert found("NW601", trained(), batches(), target=batches()) == []


# NW101 bias-before-norm
def test_bias_before_norm():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), SubclassedNorm(4), nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))
    (finding,) = found("NW101", model)
    assert (finding.layer, finding.evidence["producer"], finding.evidence["parameters"]) == ("1", "0", 4)


def test_bias_that_something_else_reads_is_spared():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    assert found("NW101", Reader()) == []
    assert found("NW101", nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))) == []


def test_bias_is_folded_into_the_mean_exactly():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    x = torch.randn(5, 3)
    before = model(x)
    assert normwise.audit(model, [x, x]).apply(model)
    assert model[0].bias is None
    torch.testing.assert_close(model(x), before)


# NW102 momentum-out-of-range
@pytest.mark.parametrize(("momentum", "repaired"), [(0.0, 0.1), (0.99, 0.01), (0.9, 0.1), (0.5, 0.1), (1.0, 0.1)])
def test_momentum(momentum, repaired):
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum))
    (finding,) = found("NW102", model)
    finding.fix.action(model, finding.fix.layers)
    assert model[0].momentum == pytest.approx(repaired)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.49, None])
def test_sound_momentum(momentum):
    assert found("NW102", nn.Sequential(nn.BatchNorm1d(3, momentum=momentum))) == []


def test_cumulative_statistics_that_are_out_of_date():
    model = trained()
    model[4].momentum = None
    assert found("NW102", model, batches()) == []
    model[4].running_mean += 2 * model[4].running_var.sqrt()
    (finding,) = found("NW102", model, batches())
    assert finding.layer == "4"
    assert finding.evidence["shift"] == pytest.approx(2, abs=0.3)


# NW103 eps-mismatch
def test_eps_unlike_its_siblings():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, eps=1e-3))
    (finding,) = found("NW103", model)
    assert (finding.layer, finding.evidence["siblings"]) == ("2", 1e-5)
    model[2].eps = 5e-5
    assert found("NW103", model) == []


def test_eps_below_the_dtype():
    (finding,) = found("NW103", nn.Sequential(nn.BatchNorm1d(3)).to(torch.bfloat16))
    assert finding.evidence["smallest_useful"] == pytest.approx(2**-14)
    assert found("NW103", nn.Sequential(nn.BatchNorm1d(3, eps=1e-3)).to(torch.bfloat16)) == []
    assert len(found("NW103", nn.Sequential(nn.BatchNorm1d(3, eps=0.0)))) == 1


# NW104 statistics-never-updated
def test_never_updated():
    (finding,) = found("NW104", nn.Sequential(nn.BatchNorm1d(3)))
    assert finding.evidence["channels"] == 3


def test_values_count_and_counters_do_not():
    model = nn.Sequential(SubclassedNorm(3), RenamedNorm(3))
    model[0].running_mean += 0.1
    model[1].running_var *= 2
    assert found("NW104", model) == []
    model[0].running_mean.zero_()
    model[0].num_batches_tracked += 100
    assert [finding.layer for finding in found("NW104", model)] == ["0"]


# NW105 broken-statistics
@pytest.mark.parametrize(
    ("table", "value"), [("running_mean", math.nan), ("running_var", math.inf), ("running_var", -1e-9)]
)
def test_broken(table, value):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    getattr(model[1], table)[2] = value
    (finding,) = found("NW105", model)
    assert (finding.layer, finding.evidence["channels"]) == ("1", 1)


def test_the_first_bad_batch_is_named():
    data = [(x.clone(), y) for x, y in batches()]
    data[5][0][3, 0, 0, 0] = math.nan
    data[9][0][0, 0, 0, 0] = math.inf
    (finding,) = found("NW105", trained(), data)
    assert (finding.layer, finding.evidence["first_bad_batch"]) == ("1", 5)


# NW106 dead-channels
def test_dead_channels():
    model = trained()
    model[4].running_var[:2] = 0
    model[4].weight.data[5] = 0
    (finding,) = found("NW106", model)
    assert finding.evidence == {"channels": 3, "of": 32, "by_variance": 2, "by_gamma": 1}


def test_zero_initialised_gammas_are_spared():
    model = trained()
    nn.init.zeros_(model[8].weight)
    assert found("NW106", model) == []


# NW107 batch-statistics-in-eval, NW301 cross-sample-leak
def untracked() -> nn.Module:
    model = trained()
    module = nn.BatchNorm2d(32, track_running_stats=False)
    module.load_state_dict({k: model[4].state_dict()[k] for k in ("weight", "bias")})
    model[4] = module.eval()
    return model


def test_untracked_norm_is_found_proven_and_cured():
    model = untracked()
    assert [finding.layer for finding in found("NW107", model)] == ["4"]
    (leak,) = found("NW301", model, batches())
    assert leak.layer == "4"
    assert leak.evidence["perturbation"] > 1e-3
    assert leak.evidence["gradient"] > 1e-3
    normwise.audit(model, batches()).apply(model, unsafe=True)
    assert found("NW107", model) == []
    assert found("NW301", model, batches()) == []


def test_norms_of_single_samples_do_not_leak():
    class PerSample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 5, 5])

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.second(self.first(x))).softmax(1)

    model = PerSample().eval()
    assert found("NW107", model) == []
    assert found("NW301", model, [torch.randn(6, 4, 5, 5)]) == []


def test_a_leak_without_any_norm_is_found_and_named():
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Mix()

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x)

    class Mix(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0, keepdim=True).detach()

    (leak,) = found("NW301", Attends(), [torch.randn(8, 3)])
    assert leak.layer == "mix"
    assert leak.evidence["gradient"] == 0  # the detached mean hides from gradients


def test_dropout_is_no_leak():
    assert found("NW301", nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)), [torch.randn(8, 3)]) == []


# NW108 half-frozen
def half_frozen() -> nn.Module:
    model = trained().train()
    for layer in (model[1], model[4]):
        layer.requires_grad_(False)
    return model


def test_frozen_affine_with_moving_statistics():
    assert [finding.layer for finding in found("NW108", half_frozen())] == ["1", "4"]


def test_a_freeze_that_train_undoes():
    model = trained().train()
    model[4].eval()
    (finding,) = found("NW108", model)
    assert (finding.layer, finding.severity) == ("4", "warning")


def test_a_freeze_done_right_and_a_model_frozen_as_a_whole_are_silent():
    model = half_frozen()
    normwise.audit(model).apply(model)
    model.train()
    assert found("NW108", model) == []
    assert found("NW108", trained().requires_grad_(False)) == []


def test_learning_affine_over_frozen_statistics_is_only_noted():
    (finding,) = {f.severity for f in found("NW108", normwise.freeze(trained()))}
    assert finding == "info"


# NW109 shared-norm
class Twice(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.norm, self.gain = nn.BatchNorm1d(3), gain

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm(x + self.gain)


@pytest.mark.parametrize(("gain", "severity"), [(3.0, "warning"), (0.0, "info")])
def test_shared_norm(gain, severity):
    (finding,) = found("NW109", Twice(gain), [torch.randn(64, 3) for _ in range(4)])
    assert (finding.severity, finding.evidence["places"]) == (severity, 2)


def test_a_model_run_on_many_batches_is_not_sharing():
    assert found("NW109", trained(), batches()) == []


# NW110 low-precision-statistics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    model = nn.Sequential(nn.BatchNorm1d(3)).to(dtype)
    (finding,) = found("NW110", model)
    finding.fix.action(model, finding.fix.layers)
    assert found("NW110", model) == []
    assert found("NW110", nn.Sequential(nn.BatchNorm1d(3)).double()) == []


# NW111 dropout-before-norm
def dropped(p: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 16), nn.BatchNorm1d(16))


def test_dropout_before_norm():
    data = [torch.randn(64, 8) for _ in range(4)]
    (finding,) = found("NW111", dropped(0.5), data)
    assert finding.evidence["dropouts"] == ["2"]
    assert 1.3 < finding.evidence["variance_ratio"] < 4
    assert found("NW111", dropped(0.0), data) == []


@pytest.mark.parametrize("kind", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_of_every_kind_is_tried(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), kind(0.5), nn.Linear(64, 16), nn.BatchNorm1d(16))
    report = normwise.audit(model, [torch.randn(64, 8) * 3 for _ in range(4)], select="NW111", attribution=False)
    assert [finding.layer for finding in report.findings] == ["4"]


def test_dropout_behind_the_norm_is_fine():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 2))
    assert found("NW111", model, [torch.randn(64, 8)]) == []


# NW112 decayed-affine
def test_decayed_affine():
    model = trained()
    assert len(found("NW112", model, optimizer=torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-4))) == 3
    norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    rest = [p for p in model.parameters() if not any(p is q for q in norms)]
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": rest}]
    assert found("NW112", model, optimizer=torch.optim.SGD(groups, 0.1, weight_decay=1e-4)) == []


# NW201 train-eval-gap, NW601 domain-shift
def test_stale_statistics_are_found_at_their_layer_only():
    model = trained()
    model[4].running_mean += 1.5 * model[4].running_var.sqrt()
    (finding,) = found("NW201", model, batches())
    assert (finding.layer, finding.severity) == ("4", "error")
    assert finding.evidence["mean_shift"] == pytest.approx(1.5, abs=0.2)


def test_a_variance_that_is_off_is_found():
    model = trained()
    model[4].running_var *= 4
    (finding,) = found("NW201", model, batches())
    assert finding.evidence["variance_ratio"] == pytest.approx(0.25, abs=0.05)


def test_small_shifts_are_no_finding():
    model = trained()
    model[4].running_mean += 0.2 * model[4].running_var.sqrt()
    assert found("NW201", model, batches()) == []


def test_look_alikes_and_functional_norms_are_measured():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(4, 8)
            self.register_buffer("running_mean", torch.full((8,), 5.0))
            self.register_buffer("running_var", torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return functional.batch_norm(self.lift(x), self.running_mean, self.running_var, training=self.training)

    data = [torch.randn(64, 4) for _ in range(4)]
    model = nn.Sequential(Functional(), RenamedNorm(8))
    assert [f.layer for f in found("NW201", model, data)] == ["0"]
    normwise.recalibrate(model, data)
    torch.testing.assert_close(model[0].running_mean, model[0].lift(torch.cat(data)).mean(0), rtol=1e-5, atol=1e-6)
    assert found("NW201", model, data) == []


def test_domain_shift_is_found_on_the_target_and_not_on_the_data():
    report = normwise.audit(trained(), batches(), target=raw(), select="NW201,NW601")
    assert {finding.code for finding in report.findings} == {"NW601"}
    assert report.findings[0].severity == "error"


def test_too_few_samples_to_tell_are_no_finding():
    model = trained()
    model[4].running_mean += 1.5
    assert found("NW201", model, [(x[:3], y[:3]) for x, y in batches()[:1]]) == []


# NW202 too-few-values
def pooled() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def test_a_last_batch_of_one_at_a_map_of_one():
    data = [*batches()[:3], (batches()[0][0][:1], batches()[0][1][:1])]
    (finding,) = found("NW202", pooled(), data)
    assert (finding.layer, finding.severity) == ("2", "error")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        pooled().train()(data[-1][0])


def test_a_last_batch_to_come_is_found_from_the_loader():
    dataset = torch.utils.data.TensorDataset(torch.randn(65, 1, 4, 4), torch.zeros(65, dtype=torch.long))
    loader = torch.utils.data.DataLoader(dataset, batch_size=16)
    assert len(found("NW202", pooled(), loader, max_batches=2)) == 1
    drop = torch.utils.data.DataLoader(dataset, batch_size=16, drop_last=True)
    assert found("NW202", pooled(), drop, max_batches=2) == []


def test_one_sample_with_many_positions_is_enough():
    assert found("NW202", trained(), [(x[:1], y[:1]) for x, y in batches()]) == []


# NW203 noisy-batch-statistics
def test_noise_of_small_batches_is_measured():
    findings = found("NW203", trained(), batches(2), max_batches=200)
    assert findings
    evidence = findings[-1].evidence
    assert evidence["batch_size"] == 2
    seen = torch.stack([trained()[:8](x).mean((0, 2, 3)) for x, _ in batches(2)[:200]])
    everything = trained()[:8](torch.cat([x for x, _ in batches(2)[:200]]))
    measured = (seen.std(0) / everything.std((0, 2, 3))).square().mean().sqrt()
    assert findings[-1].layer == "8"
    assert evidence["error_of_mean"] == pytest.approx(measured.item(), rel=0.25)


def test_independent_values_need_no_images():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    assert found("NW203", model, [torch.randn(32, 4) for _ in range(8)]) == []
    assert len(found("NW203", model, [torch.randn(4, 4) for _ in range(32)], max_batches=32)) == 1


# NW205 short-history
def test_short_history():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).train()
    data = [torch.randn(64, 4) * 3 + 2 for _ in range(8)]
    for x in data[:5]:
        model(x)
    (finding,) = found("NW205", model, data)
    assert finding.evidence["initial_weight"] == pytest.approx(0.9**5)
    assert finding.evidence["initial_weight_measured"] == pytest.approx(0.9**5, abs=0.1)
    normwise.recalibrate(model, data)
    assert found("NW205", model, data) == []
    assert found("NW205", model) == []


def test_a_reset_counter_over_good_statistics_is_believed_only_without_data():
    model = trained()
    model[4].num_batches_tracked.fill_(3)
    assert [f.layer for f in found("NW205", model)] == ["4"]
    assert found("NW205", model, batches()) == []
    model[4].num_batches_tracked.zero_()
    assert found("NW205", model) == []
