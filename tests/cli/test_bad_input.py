"""Bad input: one line on stderr, exit code 2, nothing changed on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from cli.workshop import Workshop
from torch import nn

from normwise.cli.target import load_model


class Whole(nn.Linear):
    """A class of the user's own, pickled whole."""


def tiny_state(workshop: Workshop) -> dict[str, torch.Tensor]:
    return dict(load_model(f"{workshop.module}:make").state_dict())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nothing_of_this_name:model", "cannot import 'nothing_of_this_name'"),
        ("model", "expected 'package.module:name', got 'model'"),
        ("@number", "torch.nn.Module, got int"),
        ("@needy", "needy(...)' with (width: 'int', depth: 'int')"),
        ("@make(depth=2)", "unexpected keyword argument 'depth'"),
        ("@make --data @number", "iterable of batches, got int"),
        ("@make --data @empty", "data: expected at least one batch"),
        ("@make --data @loader --target @empty", "target: expected at least one batch"),
        ("@make --data @wrong", "float32(8, 5, 8, 8)"),
        ("@make --data @flat", "does not run on a batch of float32("),
        ("@make --data @raw", "does not run on a batch"),
        ("@make --data @loader --task @number", "normwise.Task, got int"),
        ("@make --data @loader --max-batches 0", "max_batches must be at least 1, got 0"),
        ("@make --max-batches some", "'some' is not a valid int"),
        ("@make --select NW999", "select: unknown rule code 'NW999'"),
        ("@make --ignore W1", "ignore: unknown rule code 'W1'"),
        ("@make --role teacher", "'discriminator', 'contrastive'"),
        ("@make --fail-on info", "fail-on must be one of 'error', 'warning', got 'info'"),
        ("@make --format xml", "format must be one of 'text', 'json'"),
        ("@make --format html", "add --output report.html"),
        ("@make --no-such-option", "No such option"),
        ("@make --format json --output regular/report.json", "'regular' is no folder"),
        ("@make --format html --output regular/deep/report.html", "'regular' is no folder"),
        ("@make --output .", "it is a folder"),
        ("@make --output weights.safetensors", "add --fix"),
        ("@make --fix --output nowhere/weights.safetensors", "no folder 'nowhere'"),
        ("absent.safetensors", "found none at 'absent.safetensors'"),
        ("absent.ckpt", "found none at 'absent.ckpt'"),
        ("regular", "file, got 'regular'"),
        ("@make --checkpoint absent.pt", "found none at 'absent.pt'"),
    ],
)
def test_audit_refuses(workshop: Workshop, arguments: str, said: str):
    workshop.write("regular", "a regular file\n")
    assert said in workshop.refused("audit", *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rule NW999", "rule: unknown code 'NW999'"),
        ("rules --format xml", "format must be one of"),
        ("nothing", "No such command"),
        ("recalibrate @make --output w.safetensors", "Missing option '--data'"),
        ("recalibrate @make --data @empty --output w.safetensors", "at least one batch"),
        ("recalibrate @make --data @wrong --output w.safetensors", "does not run on a batch"),
        ("recalibrate @make --data @loader --output w.pt", "ends in .safetensors, got 'w.pt'"),
        ("recalibrate @make --data @loader --output regular/w.safetensors", "'regular' is no folder"),
        ("fold @make --output w.pt", "ends in .safetensors, got 'w.pt'"),
        ("fold @number --output w.safetensors", "torch.nn.Module, got int"),
        ("demo --format html", "format must be one of 'text', 'json'"),
        ("demo --output regular", "'regular' is no folder"),
    ],
)
def test_other_commands_refuse(workshop: Workshop, arguments: str, said: str):
    workshop.write("regular", "a regular file\n")
    assert said in workshop.refused(*arguments.split())


def test_a_path_that_became_unwritable_leaves_nothing_new(workshop: Workshop):
    (workshop.folder / "report.json").mkdir()
    assert "it is a folder" in workshop.refused("audit", "@make", "--format", "json", "--output", "report.json")


def test_missing_and_unexpected_keys_are_named_five_at_most_with_a_count(workshop: Workshop):
    state = tiny_state(workshop)
    kept = {"head.weight": state["head.weight"]}
    torch.save(kept | {f"extra{i}": torch.zeros(1) for i in range(7)}, workshop.folder / "w.pt")
    line = workshop.refused("audit", "@make", "--checkpoint", "w.pt")
    assert "7 keys missing: conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, and 2 more" in line
    assert "7 keys unexpected: extra0, extra1, extra2, extra3, extra4, and 2 more" in line


def test_weights_of_another_shape_are_named(workshop: Workshop):
    torch.save(tiny_state(workshop), workshop.folder / "w.pt")
    line = workshop.refused("audit", "@make(width=6)", "--checkpoint", "w.pt")
    assert "norm.weight (expected (6,), got (4,))" in line


def test_a_pickle_of_a_whole_model_is_refused_with_the_safe_way(workshop: Workshop):
    torch.save(Whole(2, 2), workshop.folder / "whole.pt")
    for arguments in (["@make", "--checkpoint", "whole.pt"], ["whole.pt"]):
        assert "torch.save(model.state_dict(), ...)" in workshop.refused("audit", *arguments)


def test_a_pickle_cannot_run_code(workshop: Workshop):
    class Trap:
        def __reduce__(self):
            return Path.touch, (workshop.folder / "ran",)

    (workshop.folder / "trap.pt").write_bytes(pickle.dumps(Trap()))
    workshop.refused("audit", "trap.pt")
    assert not (workshop.folder / "ran").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt"])
def test_a_file_that_was_cut_short_is_refused(workshop: Workshop, name: str):
    (workshop.folder / name).write_bytes(b"\x50\x4b\x03\x04 not much")
    assert "checkpoint" in workshop.refused("audit", "@make", "--checkpoint", name)


def test_a_checkpoint_alone_is_not_fixed(workshop: Workshop):
    torch.save(tiny_state(workshop), workshop.folder / "w.pt")
    assert "package.module:model with --checkpoint" in workshop.refused("audit", "w.pt", "--fix")
    assert "not both" in workshop.refused("audit", "w.pt", "--checkpoint", "w.pt")


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_data_that_is_not_finite_is_a_finding(workshop: Workshop, value: str):
    workshop.write(f"{workshop.module}_bad.py", f"from {workshop.module} import bad\ndata = bad({value})\n")
    result = workshop.run("audit", "@make", "--data", f"{workshop.module}_bad:data", "--format", "json")
    assert result.code == 1
    assert ("NW105", "error") in {(finding["code"], finding["severity"]) for finding in result.document["findings"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1\n", "unknown option 'colour'; known are attribution"),
        ("data = 1\n", "data must be a str, got 1"),
        ("max-batches = true\n", "max-batches must be a int, got True"),
        ("select = [1]\n", "must be a list of rule codes"),
        ("fail-on = 'info'\n", "fail-on must be one of"),
        ("select = \n", "normwise.toml: cannot be read"),
    ],
)
def test_configuration_is_checked(workshop: Workshop, text: str, said: str):
    workshop.write("normwise.toml", text)
    assert said in workshop.refused("audit", "@make")


@pytest.mark.parametrize("text", ["tool = 3\n", "[tool]\nnormwise = 3\n"])
def test_a_table_that_is_none_is_said(workshop: Workshop, text: str):
    workshop.write("pyproject.toml", text)
    assert "pyproject.toml: expected a table [tool.normwise]" in workshop.refused("audit", "@make")
