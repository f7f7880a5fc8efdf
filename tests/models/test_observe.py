"""Every use of every kind of norm is met once, and its statistics can be replaced."""

import copy

import pytest
import torch
from tests.models.kinds import CHANNELS, NORMS, EpslessFrozen, NormAct, OwnsConv, images, net, snapshot
from torch import nn

from normwise.layers import BatchNorm
from normwise.models.observe import observing
from normwise.models.preserve import preserved

LEARNING = [kind for kind in NORMS if kind != "frozen"]
FUSED = {"norm-act": NormAct, "owns-conv": OwnsConv}


def observe(model, x, visit):
    with preserved(model), torch.no_grad(), observing(model, visit) as watch:
        watch.begin_pass()
        return model(x)


def batch_statistics(call):
    moments = call.sample_moments().pool(0)
    return moments.mean, moments.variance


def run_both(model, visit, batches):
    with preserved(model), torch.no_grad(), observing(model, visit):
        for batch in batches:
            model(batch)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("kind", [*LEARNING, *FUSED])
def test_batch_statistics_give_the_training_output(kind):
    model, x = net({**NORMS, **FUSED}[kind](CHANNELS)), images()
    reference = copy.deepcopy(model)
    if kind == "sync":
        reference[1] = nn.BatchNorm2d(CHANNELS)
        reference.load_state_dict(model.state_dict())
    expected = reference.train()(x)
    assert not torch.allclose(model(x), expected, atol=1e-2)
    torch.testing.assert_close(observe(model, x, batch_statistics), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [NORMS["frozen"], EpslessFrozen])
def test_batch_statistics_reach_a_norm_that_never_uses_them(frozen):
    model, x = net(frozen(CHANNELS)), images()
    reference = copy.deepcopy(model)
    reference[1] = nn.BatchNorm2d(CHANNELS)
    reference.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(
        observe(model, x, batch_statistics), reference.train()(x), rtol=1e-3, atol=1e-4
    )  # the eps-less one differs by its eps


@pytest.mark.parametrize("kind", [*NORMS, *FUSED])
def test_each_use_is_met_once_with_the_norms_own_input(kind):
    model, x, seen = net({**NORMS, **FUSED}[kind](CHANNELS)), images(), []
    plain = model(x)
    y = observe(model, x, lambda call: seen.append((call.layer.name, call.index, call.x)))
    assert torch.equal(y, plain)
    ((name, index, met),) = seen
    assert (name, index) == ("1", 0)
    own = model[0](x)
    torch.testing.assert_close(met, model[1].conv(own) if kind == "owns-conv" else own)


@pytest.mark.parametrize("kind", ["torch", "subclass", "ported"])
def test_a_second_pass_and_a_shared_norm_are_counted_by_use(kind):
    norm, seen = NORMS[kind](CHANNELS), []
    model = nn.Sequential(norm, nn.ReLU(), norm).eval()
    with preserved(model), torch.no_grad(), observing(model, lambda call: seen.append(call.index)) as watch:
        for _ in range(2):
            watch.begin_pass()
            model(images())
    assert seen == [0, 1, 0, 1]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(CHANNELS, track_running_stats=False)])
def test_a_norm_without_statistics_is_met_and_can_be_given_some(norm):
    model, x = net(norm), images()
    given = torch.zeros(CHANNELS), torch.full((CHANNELS,), 4.0)
    y = observe(model, x, lambda call: given)
    reference = copy.deepcopy(model)
    reference[1] = nn.BatchNorm2d(CHANNELS)
    reference[1].load_state_dict(norm.state_dict(), strict=False)
    reference[1].running_var.fill_(4.0)
    torch.testing.assert_close(y, reference.eval()(x))


def test_our_norm_without_statistics_runs():
    model, x = net(BatchNorm(CHANNELS, track_running_stats=False)), images()
    plain = model(x)
    assert torch.equal(observe(model, x, lambda call: None), plain)


def test_statistics_of_another_dtype_are_taken_in_low_precision_models():
    model = net(nn.BatchNorm2d(CHANNELS)).to(torch.bfloat16)
    y = observe(model, images().to(torch.bfloat16), batch_statistics)
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [*NORMS, *FUSED])
def test_nothing_is_left_after_an_error(kind):
    model, x = net({**NORMS, **FUSED}[kind](CHANNELS)).train(), images()
    bits, before = snapshot(model), hooks(model)
    with pytest.raises(RuntimeError):  # the head refuses the second, larger image; the norm has been filled by then
        run_both(model, batch_statistics, [x, torch.randn(2, CHANNELS, 9, 9)])
    assert snapshot(model) == bits
    assert hooks(model) == before
    assert model.training


def test_an_error_inside_the_visit_restores_filled_buffers():
    model = net(NORMS["ported"](CHANNELS))
    bits = snapshot(model)

    def visit(call):
        raise KeyError("no statistics for this one")

    with pytest.raises(KeyError), torch.no_grad(), observing(model, visit):
        model(images())
    assert snapshot(model) == bits
    assert hooks(model) == 0


def test_dropout_stays_off():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(CHANNELS)).train()
    seen = []
    observe(model, images(), lambda call: seen.append(call.x))
    assert torch.equal(seen[0], images())
    assert model[0].training
