"""`rules`, `rule`, `recalibrate`, `fold`, and the command as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from cli.workshop import Workshop

import normwise
from normwise.cli.target import load_data, load_model


def test_rules_lists_every_rule(workshop: Workshop):
    listed = workshop.run("rules", "--format", "json").document
    table = workshop.run("rules")
    known = [f"NW{number}" for number in (*range(101, 113), 201, 202, 203, 205, 301, 601)]
    assert [rule["code"] for rule in listed if rule["code"] in known] == known
    for rule in listed:
        assert rule["code"] in table.out
        assert all(rule[text] for text in ("name", "title", "what", "why", "measured", "known_problems", "fix"))


@pytest.mark.parametrize("name", ["NW201", "nw201", "train-eval-gap"])
def test_a_rule_is_explained_by_code_and_by_name(workshop: Workshop, name: str):
    result = workshop.run("rule", name)
    assert result.code == 0
    assert result.out.startswith("NW201 train-eval-gap")
    for heading in ("What", "Why", "How it is measured", "Known problems", "Fix"):
        assert f"\n{heading}\n" in result.out


def test_recalibrate_writes_the_statistics_of_the_data(workshop: Workshop):
    result = workshop.run("recalibrate", "@stale", "--data", "@loader", "--output", "w.safetensors")
    assert result.code == 0
    assert result.out == ""
    model = load_model(f"{workshop.module}:stale")
    model.load_state_dict(safetensors.torch.load_file(workshop.folder / "w.safetensors"))
    with torch.no_grad():
        seen = torch.cat([model.conv(x) for x, _ in load_data(f"{workshop.module}:loader")]).movedim(1, 0).flatten(1)
    torch.testing.assert_close(model.norm.running_mean, seen.mean(1), rtol=1e-5, atol=1e-6)


def test_recalibrate_takes_weights_and_a_task(workshop: Workshop):
    state = {key: value + 1 for key, value in load_model(f"{workshop.module}:make").state_dict().items()}
    torch.save(state, workshop.folder / "w.pt")
    arguments = ("--data", "@raw", "--task", "@task", "--checkpoint", "w.pt", "--max-batches", "4")
    result = workshop.run("recalibrate", "@make", *arguments, "--output", "new.safetensors")
    assert result.code == 0
    new = safetensors.torch.load_file(workshop.folder / "new.safetensors")
    torch.testing.assert_close(new["head.bias"], state["head.bias"])
    model = load_model(f"{workshop.module}:make")
    model.load_state_dict(state)
    with torch.no_grad():
        seen = torch.cat([model.conv(x) for x, _ in load_data(f"{workshop.module}:loader(batches=4)")])
    torch.testing.assert_close(new["norm.running_mean"], seen.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_recalibrate_leaves_the_old_file_when_it_fails(workshop: Workshop):
    (workshop.folder / "w.safetensors").write_bytes(b"old")
    workshop.refused("recalibrate", "@make", "--data", "@wrong", "--output", "w.safetensors")
    assert (workshop.folder / "w.safetensors").read_bytes() == b"old"


@pytest.mark.parametrize("data", [(), ("--data", "@loader")])
def test_fold_writes_weights_that_give_the_same_outputs(workshop: Workshop, data: tuple[str, ...]):
    result = workshop.run("fold", "@make", *data, "--output", "w.safetensors")
    assert result.code == 0
    assert "norm: folded into conv" in result.err
    model = load_model(f"{workshop.module}:make")
    folded = load_model(f"{workshop.module}:make")
    folded.norm = torch.nn.Identity()
    folded.load_state_dict(safetensors.torch.load_file(workshop.folder / "w.safetensors"))
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_no_arguments_show_the_help(workshop: Workshop):
    result = workshop.run()
    assert result.code == 2
    for command in ("audit", "rules", "rule", "recalibrate", "fold", "demo"):
        assert command in result.out + result.err


def test_the_process_itself(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(normwise.__file__).parents[1]))
    command = [sys.executable, "-m", "normwise.cli.app", "audit"]
    good = subprocess.run(
        [*command, f"{workshop.module}:make", "--format", "json"], capture_output=True, text=True, check=False
    )
    assert good.returncode == 0
    assert good.stdout.startswith("{")
    bad = subprocess.run([*command, "nothing_of_this_name:model"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("normwise: error: model: cannot import")
    assert bad.stderr.count("\n") == 1
