"""Weights are read safely and completely, or not at all."""

import os
import stat

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.models.kinds import CHANNELS, NORMS, net, randomize, snapshot
from torch import nn

from normwise.errors import CheckpointError, UsageError
from normwise.models.checkpoint import checkpoint_skeleton, load_checkpoint, read_state_dict, save_weights
from normwise.models.walk import norm_layers


def small(seed=0):
    return randomize(nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2)), seed)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_state_dicts_are_read(tmp_path, suffix):
    path, state = tmp_path / f"model{suffix}", small().state_dict()
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    read = read_state_dict(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)
    other = small(seed=1)
    load_checkpoint(other, str(path))
    assert snapshot(other) == snapshot(small())


@pytest.mark.parametrize("nest", ["state_dict", "model", "model_state_dict", "module", "net"])
def test_nested_state_dicts_are_found(tmp_path, nest):
    path = tmp_path / "model.pt"
    torch.save({"epoch": 3, "mean": torch.ones(1), nest: {"net": small().state_dict()}}, path)
    assert read_state_dict(path).keys() == small().state_dict().keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_prefixes_are_stripped_where_that_fits(tmp_path, prefix):
    path, other = tmp_path / "model.pt", small(seed=1)
    torch.save({prefix + key: value for key, value in small().state_dict().items()}, path)
    load_checkpoint(other, path)
    assert snapshot(other) == snapshot(small())


def test_a_prefix_that_belongs_to_the_model_stays(tmp_path):
    path = tmp_path / "model.pt"
    model, other = nn.ModuleDict({"model": small()}), nn.ModuleDict({"model": small(seed=1)})
    torch.save(model.state_dict(), path)
    load_checkpoint(other, path)
    assert snapshot(other) == snapshot(model)


def test_compiled_parts_are_read(tmp_path):
    path, other = tmp_path / "model.pt", nn.ModuleDict({"body": small(seed=1)})
    torch.save({f"body._orig_mod.{key}": value for key, value in small().state_dict().items()}, path)
    load_checkpoint(other, path)
    assert snapshot(other["body"]) == snapshot(small())


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


class Custom:
    pass


def test_a_pickle_that_holds_more_is_refused_with_the_safe_way(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": small().state_dict(), "config": Custom()}, path)
    with pytest.raises(CheckpointError, match=r"holds more than tensors.*torch.save\(model.state_dict\(\)") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    torch.save(small(), path)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load_checkpoint(small(), path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.pt", b"", "cannot read 'model.pt'|holds more than tensors"),
        ("model.pt", b"PK\x03\x04 cut short", "cannot read 'model.pt'"),
        ("model.pt", b"not a checkpoint at all", "cannot read|holds more than tensors"),
        ("model.safetensors", b"short", "cannot read 'model.safetensors'"),
        ("model.safetensors", b"\xff" * 64, "cannot read 'model.safetensors'"),
        ("model.npz", b"", "expected a .safetensors, .pt"),
    ],
)
def test_broken_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_and_empty_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="expected a file, found none at"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="found none at"):
        read_state_dict(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"found no tensors in 'empty.pt'"):
        read_state_dict(tmp_path / "empty.pt")


def test_missing_unexpected_and_misshapen_keys_are_named_and_nothing_changes(tmp_path):
    path, model = tmp_path / "model.pt", small(seed=1)
    bits = snapshot(model)
    state = small().state_dict()
    state["3.extra"] = state.pop("3.bias")
    torch.save(state, path)
    message = r"does not fit Sequential: 1 key missing: 3.bias; 1 key unexpected: 3.extra; build"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, path)
    assert snapshot(model) == bits
    torch.save({f"head.{i}": torch.ones(1) for i in range(7)} | small().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"7 keys unexpected: head.0, head.1, head.2, head.3, head.4, and 2 more"):
        load_checkpoint(model, path)
    assert snapshot(model) == bits
    torch.save(small().state_dict() | {"3.weight": torch.ones(5, 3)}, path)
    with pytest.raises(CheckpointError, match=r"1 key of another shape: 3.weight \(expected \(2, 3\), got \(5, 3\)\)"):
        load_checkpoint(model, path)
    assert snapshot(model) == bits


def test_old_checkpoints_without_counters_load(tmp_path):
    path = tmp_path / "model.pt"
    for kind in ("torch", "ours"):
        model = net(NORMS[kind](CHANNELS))
        torch.save({k: v for k, v in model.state_dict().items() if "num_batches" not in k}, path)
        load_checkpoint(model, path)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.b.weight = self.a.weight


def test_tied_weights_are_written_each_and_may_be_missing(tmp_path):
    path, model = tmp_path / "model.safetensors", randomize(Tied())
    save_weights(model.state_dict(), path)
    assert read_state_dict(path).keys() == model.state_dict().keys()
    other = Tied()
    load_checkpoint(other, path)
    assert snapshot(other) == snapshot(model)
    state = model.state_dict()
    del state["b.weight"]
    torch.save(state, tmp_path / "tied.pt")
    load_checkpoint(Tied(), tmp_path / "tied.pt")
    del state["a.weight"]
    torch.save(state, tmp_path / "tied.pt")
    with pytest.raises(CheckpointError, match=r"2 keys missing: a.weight, b.weight"):
        load_checkpoint(Tied(), tmp_path / "tied.pt")


def test_saved_weights_are_bit_equal_whatever_their_layout(tmp_path):
    base = torch.tensor([[float("nan"), -0.0, 1.0], [2.0, float("inf"), 3.0]])
    state = {
        "t": base.t(),
        "row": base[0],
        "half": base.bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 3),
    }
    state["again"] = base
    path = tmp_path / "w.safetensors"
    save_weights(state, path)
    read = read_state_dict(path)
    for key, value in state.items():
        assert read[key].dtype == value.dtype
        assert read[key].shape == value.shape
        assert bits(read[key]) == bits(value)


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path):
    state = small().state_dict()
    with pytest.raises(UsageError, match=r"output: cannot write .*choose a writable folder"):
        save_weights(state, tmp_path / "none" / "w.safetensors")
    with pytest.raises(UsageError, match=r"expected a path that ends in .safetensors"):
        save_weights(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="expected tensors, got another type under 'n'"):
        save_weights(state | {"n": np.ones(2)}, tmp_path / "w.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        save_weights(state, tmp_path / "folder.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(small().state_dict(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UsageError, match="No space left"):
        save_weights(small(seed=1).state_dict(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    save_weights(small().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("w.safetensors", "plain")]
    assert modes[0] == modes[1]
    (tmp_path / "w.safetensors").chmod(0o640)
    save_weights(small().state_dict(), tmp_path / "w.safetensors")
    assert stat.S_IMODE(os.stat(tmp_path / "w.safetensors").st_mode) == 0o640


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_skeleton_holds_the_norms_under_their_names(tmp_path, prefix):
    model = nn.Sequential(small(), NORMS["ported"](4), NORMS["no-affine"](5))
    state = randomize(model).state_dict()
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({prefix + key: value for key, value in state.items()}, path)
    skeleton = checkpoint_skeleton(path)
    layers = norm_layers(skeleton)
    assert [layer.name for layer in layers] == ["0.1", "1", "2"]
    assert [layer.channels for layer in layers] == [3, 4, 5]
    assert torch.equal(layers[0].weight, model[0][1].weight)
    assert isinstance(layers[0].weight, nn.Parameter)
    assert torch.equal(layers[1].running_var, model[1].moving_variance)
    assert layers[1].bias is not None
    assert layers[2].weight is None
    assert len(list(skeleton.parameters())) == 4


def test_a_skeleton_is_in_the_order_of_depth_and_may_be_a_root_or_an_odd_name(tmp_path):
    path = tmp_path / "m.safetensors"
    names = [f"layer{i}.forward" for i in (1, 2, 10)]
    save_weights({f"{n}.{t}": torch.ones(2) for n in names for t in ("running_mean", "running_var")}, path)
    assert [layer.name for layer in norm_layers(checkpoint_skeleton(path))] == names
    save_weights({"running_mean": torch.zeros(2), "running_var": torch.ones(2)}, path)
    assert [layer.name for layer in norm_layers(checkpoint_skeleton(path))] == [""]


def test_a_checkpoint_without_norms_has_no_skeleton(tmp_path):
    save_weights(nn.Linear(2, 2).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(
        CheckpointError, match=r"expected layers with running statistics, found none in 'm.safetensors'"
    ):
        checkpoint_skeleton(tmp_path / "m.safetensors")
