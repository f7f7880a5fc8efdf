"""Norms exchanged for others: the same tensors, hooks and modes, and a warning where something is lost."""

import copy
import pickle
import warnings

import pytest
import torch
from tests.models.kinds import CHANNELS, NORMS, WITH_MORE, Ported, SubclassedNorm, images, net, randomize, snapshot
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from normwise.care.policy import freeze, unfreeze
from normwise.errors import ModelError, UsageError
from normwise.layers import BatchNorm
from normwise.layers.policy import FROZEN
from normwise.models.convert import ConversionWarning, FrozenAffine, convert
from normwise.models.walk import norm_layers

EXACT = ["torch", "subclass", "renamed", "ported", "no-affine", "ours", "frozen"]


def ids(model):
    return {key: id(t) for key, t in model.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("training", [False, True])
def test_to_ours_computes_the_same(kind, training):
    model, x = net(NORMS[kind](CHANNELS)), images()
    reference = copy.deepcopy(model).train(training)
    converted = convert(model.train(training), BatchNorm)
    assert converted is model
    assert isinstance(model[1], BatchNorm)
    assert model[1].training is training
    for _ in range(2):
        torch.testing.assert_close(model(x), reference(x), rtol=1e-5, atol=1e-5)
    old, new = norm_layers(reference)[0], norm_layers(model)[0]
    torch.testing.assert_close(new.running_mean, old.running_mean)
    torch.testing.assert_close(new.running_var, old.running_var)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d, (5, 4)),
        (nn.BatchNorm1d, (5, 4, 3)),
        (nn.BatchNorm2d, (5, 4, 3, 3)),
        (nn.BatchNorm3d, (5, 4, 2, 2, 2)),
    ],
)
def test_there_and_back_is_bit_equal(norm, shape):
    model, x = randomize(nn.Sequential(norm(4, eps=1e-4, momentum=0.3))), torch.randn(shape)
    reference, before = copy.deepcopy(model), ids(model)
    convert(model, "normwise")
    assert ids(model) == before
    assert torch.equal(copy.deepcopy(model).eval()(x), copy.deepcopy(reference).eval()(x))
    convert(model, "torch")
    assert type(model[0]) is norm
    assert ids(model) == before
    assert (model[0].eps, model[0].momentum) == (1e-4, 0.3)
    assert torch.equal(model(x), reference(x))
    assert snapshot(model) == snapshot(reference)


def test_the_origin_survives_copies_and_pickles():
    model = convert(nn.Sequential(nn.BatchNorm3d(2)), "normwise")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(convert(again, "torch")[0]) is nn.BatchNorm3d


def test_optimizers_hooks_modes_and_flags_are_kept():
    model = net(nn.BatchNorm2d(CHANNELS)).train()
    norm, calls = model[1], []
    norm.eval()
    norm.weight.requires_grad_(False)
    handle = norm.register_forward_hook(lambda module, args, output: calls.append("after"))
    norm.register_forward_pre_hook(lambda module, args, kwargs: calls.append("before"), with_kwargs=True)
    norm.register_full_backward_hook(lambda module, gradients, outputs: calls.append("back"))
    convert(model, "normwise")
    assert model.training
    assert not model[1].training
    assert not model[1].weight.requires_grad
    model(images()).sum().backward()
    assert calls == ["before", "after", "back"]
    handle.remove()
    model(images())
    assert calls == ["before", "after", "back", "before"]


def test_an_optimizer_goes_on():
    model = net(nn.BatchNorm2d(CHANNELS)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model, "normwise")
    model(images()).square().sum().backward()
    before = model[1].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_a_freeze_is_kept_and_can_be_undone():
    model = freeze(net(nn.BatchNorm2d(CHANNELS)), affine=True)
    convert(model, "normwise")
    bits = snapshot(model)
    model.train()(images())
    assert snapshot(model) == bits
    assert not model[1].training
    convert(model, "torch")
    model.train()(images())
    assert snapshot(model) == bits
    assert not model[1].weight.requires_grad
    unfreeze(model).train()(images())
    assert snapshot(model) != bits
    assert model[1].weight.requires_grad


def test_a_freeze_by_hand_is_bound_to_the_new_module():
    model = net(nn.BatchNorm2d(CHANNELS))
    norm = model[1]

    def stay(module, mode=True):
        module.training = False
        return module

    norm.train = stay.__get__(norm)
    convert(model, "normwise")
    model[1].training = True
    assert model[1].train() is model[1]
    assert not model[1].training


def test_ours_frozen_by_policy_is_not_thawed_on_the_way_back():
    model = freeze(convert(net(nn.BatchNorm2d(CHANNELS)), "normwise"))
    with pytest.raises(ModelError, match=r"call normwise.unfreeze"):
        convert(model, "torch")
    assert isinstance(model[1], BatchNorm)


def test_a_frozen_look_alike_stays_frozen_in_ours_and_warns_in_torchs():
    model = convert(net(NORMS["frozen"](CHANNELS)), "normwise")
    assert model[1].policy == FROZEN
    assert "weight" in dict(model[1].named_buffers())
    with pytest.warns(ConversionWarning, match="train\\(\\) now uses and updates"):
        convert(model, "torch")
    assert type(model[1]) is nn.BatchNorm2d


def test_ported_names_become_torchs_on_the_same_objects():
    norm = Ported(CHANNELS)
    model = convert(net(norm), "normwise")
    assert model[1].weight is norm.gamma
    assert model[1].running_var is norm.moving_variance
    assert model[1].momentum == pytest.approx(0.01)


def test_shared_modules_stay_shared_and_a_root_is_returned():
    norm = nn.BatchNorm2d(3)
    model = nn.ModuleDict({"a": norm, "b": nn.Sequential(norm, norm)})
    convert(model, "normwise")
    assert isinstance(model["a"], BatchNorm)
    assert model["a"] is model["b"][0] is model["b"][1]
    root = convert(norm, "normwise")
    assert isinstance(root, BatchNorm)
    assert root.weight is norm.weight


def test_sync_batch_norm_converts_with_a_warning():
    model, x = net(nn.SyncBatchNorm(CHANNELS)), images()
    expected = model(x)
    with pytest.warns(ConversionWarning, match=r"1 layer \('1'\): batch statistics are no longer synchronised"):
        convert(model, "normwise")
    assert torch.equal(model(x), expected)
    with pytest.warns(ConversionWarning):
        assert type(convert(net(nn.SyncBatchNorm(CHANNELS)), "torch")[1]) is nn.BatchNorm2d  # the Conv2d before says so


@pytest.mark.parametrize("before", [nn.ReLU(), nn.Linear(4, 4)])
def test_a_rank_that_nothing_proves_is_asked_for(before):
    model = nn.Sequential(before, BatchNorm(4))
    with pytest.raises(ModelError, match="cannot tell whether layer '1' stands for"):
        convert(model, "torch")


def test_a_rank_is_proven_by_the_convolution_before_and_torchs_own_stay():
    model = nn.Sequential(nn.Conv3d(1, 4, 1), BatchNorm(4), SubclassedNorm(4))
    own = model[2]
    convert(model, "torch")
    assert type(model[1]) is nn.BatchNorm3d
    assert model[2] is own


@pytest.mark.parametrize("to", ["normwise", "torch", "frozen-affine", "group", "layer", "instance"])
@pytest.mark.parametrize("kind", ["norm-act", "hidden-act", "owns-conv"])
def test_a_fused_activation_is_refused_before_anything_changes(to, kind):
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), WITH_MORE[kind](CHANNELS))
    first, second = model[1], model[2]
    if to == "torch" and isinstance(second, nn.BatchNorm2d):
        assert convert(model, to)[2] is second  # it is torch's already, and keeps its activation
        return
    with pytest.raises(ModelError, match=r"layer '2' \(\w+\) does more than normalise"):
        convert(model, to)
    assert model[1] is first
    assert model[2] is second


def test_a_parametrized_norm_and_instance_statistics_are_refused():
    norm = nn.BatchNorm1d(3)
    parametrize.register_parametrization(norm, "weight", nn.Identity())
    with pytest.raises(ModelError, match="is parametrized, which would be lost"):
        convert(nn.Sequential(norm), "normwise")
    with pytest.raises(ModelError, match="in a way that batch normalization does not"):
        convert(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), "normwise")


@pytest.mark.parametrize("kind", list(NORMS))
def test_frozen_affine_is_exact_in_evaluation(kind):
    model, x = net(NORMS[kind](CHANNELS)), images()
    expected = model(x)
    with pytest.warns(ConversionWarning, match="exact in evaluation"):
        convert(model, "frozen-affine")
    assert isinstance(model[1], FrozenAffine)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.train()(x), model.eval()(x))
    assert list(model[1].parameters()) == []
    y = model[1](x.half())
    assert y.dtype == torch.float16


def test_frozen_affine_needs_statistics():
    with pytest.raises(ModelError, match="layer '1' normalises with batch statistics in evaluation too"):
        convert(net(nn.BatchNorm2d(CHANNELS, track_running_stats=False)), "frozen-affine")


@pytest.mark.parametrize(("to", "groups"), [("group", 2), ("layer", 1), ("instance", 6)])
def test_group_norms_keep_the_affine_and_say_what_is_not_exact(to, groups):
    model, x = net(nn.BatchNorm2d(6, eps=1e-3)), images()
    weight, bias = model[1].weight, model[1].bias
    y = model[0](x)
    with pytest.warns(ConversionWarning, match="not exact: each sample is now normalised with its own") as caught:
        convert(model, to, where=["1"])
    assert len(caught) == 1
    assert model[1].weight is weight
    assert model[1].bias is bias
    assert model[1].num_groups == groups
    torch.testing.assert_close(model[1](y), functional.group_norm(y, groups, weight, bias, 1e-3))


def test_group_norm_takes_the_most_groups_up_to_32():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        counts = [convert(nn.BatchNorm2d(c), "group").num_groups for c in (64, 48, 7, 32)]
        plain = convert(nn.BatchNorm2d(4, affine=False), "group")
    assert counts == [32, 16, 1, 32]
    assert plain.weight is None


def test_one_warning_for_many_layers():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    with pytest.warns(ConversionWarning, match=r"2 layers \('0', ...\): not exact") as caught:
        convert(model, "layer")
    assert len(caught) == 1


def test_exact_conversions_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(convert(net(nn.BatchNorm2d(CHANNELS)), "normwise"), "torch")


def test_where_selects_by_name_alias_or_predicate():
    model = nn.ModuleDict({"a": nn.BatchNorm2d(2), "b": nn.BatchNorm2d(3)})
    model["c"] = model["b"]
    convert(model, "normwise", where=["c"])
    assert isinstance(model["b"], BatchNorm)
    assert model["c"] is model["b"]
    assert isinstance(model["a"], nn.BatchNorm2d)
    convert(model, "normwise", where=lambda name, module: name == "a")
    assert isinstance(model["a"], BatchNorm)
    with pytest.raises(UsageError, match="where: 'd' is no norm of the model, expected names such as 'a', 'b'"):
        convert(model, "torch", where=["d"])


def test_unknown_and_planned_targets_are_told_apart():
    model = net(nn.BatchNorm2d(CHANNELS))
    for planned in ("sync", "private"):
        with pytest.raises(UsageError, match=f"to: '{planned}' is not available yet; expected .*'normwise', 'torch'"):
            convert(model, planned)
    with pytest.raises(UsageError, match="to: 'batch' is not known"):
        convert(model, "batch")
    with pytest.raises(UsageError, match="is not known"):
        convert(model, nn.BatchNorm2d)
    with pytest.raises(ModelError, match="expected normalization layers, found none in Linear"):
        convert(nn.Linear(2, 2), "normwise")


def test_a_bias_free_norm_and_a_missing_counter_convert():
    norm = nn.BatchNorm2d(3)
    norm.bias, norm.num_batches_tracked = None, None
    model = convert(randomize(nn.Sequential(norm)), "normwise")
    assert model[0].bias is None
    x = images(c=3)
    expected = norm.eval()(x)
    torch.testing.assert_close(model.eval()(x), expected)


def test_a_model_without_values_yet_converts_and_takes_them_later():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU())
    for to, kind in (("normwise", BatchNorm), ("torch", nn.BatchNorm2d)):
        convert(model, to)
        assert type(model[1]) is kind
        assert model[1].weight.is_meta
    reference = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU()))
    convert(model, "normwise").load_state_dict(reference.state_dict(), assign=True)
    x = images(c=3)
    torch.testing.assert_close(model.eval()(x), reference.eval()(x))
