"""`normwise audit`: exit codes, inputs, formats, fixes, configuration."""

from __future__ import annotations

import json

import jsonschema
import pytest
import safetensors.torch
import torch
from cli.workshop import DOCS, Workshop

from normwise.cli.target import load_model

SARIF = json.loads((DOCS.parent / "tests/reporting/data/sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))


def codes(document: dict) -> set[str]:
    return {finding["code"] for finding in document["findings"]}


def valid_report(document: dict) -> dict:
    schema = json.loads((DOCS / "report-schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("@make --data @loader", 0),
        ("@make --select NW101 --fail-on warning", 0),
        ("@stale --data @loader", 1),
        ("@stale --data @loader --select NW2 --fail-on warning", 1),
        ("@stale --data @loader --ignore NW2", 0),
        ("@plain", 0),
        ("--help", 0),
    ],
)
def test_exit_codes(workshop: Workshop, arguments: str, code: int):
    assert workshop.run("audit", *arguments.split()).code == code


def test_fail_on_warning_makes_warnings_count(workshop: Workshop):
    arguments = ("audit", "@stale", "--data", "@images", "--select", "NW201", "--format", "json")
    told = workshop.run(*arguments).document["summary"]
    assert told["warning"]
    assert not told["error"]
    assert workshop.run(*arguments).code == 0
    assert workshop.run(*arguments, "--fail-on", "error").code == 0
    assert workshop.run(*arguments, "--fail-on", "warning").code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "@make",
        "@stale --data @tuples",
        "@stale --data @dicts --no-attribution",
        "@make --data @tuples --target @loader(scale=4.0)",
        "@make --data @raw --task @task",
        "@plain --data @loader",
        "@loud --data @loader",
    ],
)
def test_json_is_alone_on_stdout_and_fits_its_schema(workshop: Workshop, arguments: str):
    document = valid_report(workshop.run("audit", *arguments.split(), "--format", "json").document)
    assert document["model"]["name"] == f"{workshop.module}:{arguments.split()[0][1:]}"
    assert (document["data"] is not None) == ("--data" in arguments)
    assert (document["target"] is not None) == ("--target" in arguments)


def test_tuples_and_dicts_of_the_same_batches_give_the_same_report(workshop: Workshop):
    reports = [
        workshop.run("audit", "@stale", "--data", data, "--format", "json").document for data in ("@tuples", "@dicts")
    ]
    for part in ("baseline", "together", "layers", "summary"):
        assert reports[0][part] == reports[1][part]
    assert reports[0]["causes"][0]["code"] == "NW201"
    assert reports[0]["causes"][0]["low"] > 0


def test_max_batches_limits_what_is_read(workshop: Workshop):
    document = workshop.run("audit", "@make", "--data", "@loader", "--max-batches", "2", "--format", "json").document
    assert document["data"] == {"batches": 2, "samples": 32, "batch_size": 16}


@pytest.mark.parametrize("arguments", ["@make", "@stale --data @loader"])
def test_sarif_fits_the_official_schema(workshop: Workshop, arguments: str):
    log = workshop.run("audit", *arguments.split(), "--format", "sarif").document
    jsonschema.validators.validator_for(SARIF)(SARIF).validate(log)
    run = log["runs"][0]
    report = workshop.run("audit", *arguments.split(), "--format", "json").document
    assert [result["ruleId"] for result in run["results"]] == [finding["code"] for finding in report["findings"]]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


@pytest.mark.parametrize("chosen", ["text", "json", "sarif", "html", "markdown"])
def test_every_format_goes_to_a_file_in_a_new_folder(workshop: Workshop, chosen: str):
    result = workshop.run("audit", "@stale", "--data", "@loader", "--format", chosen, "--output", "new/report")
    assert result.code == 1
    assert result.out == ""
    assert result.err == "written: new/report\n"
    text = (workshop.folder / "new/report").read_text(encoding="utf-8")
    assert "NW201" in text
    assert [path.name for path in (workshop.folder / "new").iterdir()] == ["report"]


def test_a_file_gets_the_same_as_stdout(workshop: Workshop):
    shown = workshop.run("audit", "@make", "--format", "json").out
    workshop.run("audit", "@make", "--format", "json", "--output", "report.json")
    assert (workshop.folder / "report.json").read_text(encoding="utf-8").strip() == shown.strip()


def test_text_names_the_cause_and_what_to_type(workshop: Workshop):
    result = workshop.run("audit", "@stale", "--data", "@loader")
    assert "NW201" in result.out
    assert "normwise recalibrate" in result.out
    assert result.err == ""


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_alone_is_audited(workshop: Workshop, suffix: str, prefix: str):
    model = load_model(f"{workshop.module}:make")
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    state[f"{prefix}norm.running_var"] = state[f"{prefix}norm.running_var"].clone().fill_(float("nan"))
    path = workshop.folder / f"w.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    result = workshop.run("audit", path.name, "--format", "json")
    assert result.code == 1
    document = valid_report(result.document)
    assert document["model"]["name"] == path.name
    assert [(f["layer"], f["severity"]) for f in document["findings"] if f["code"] == "NW105"] == [("norm", "error")]


def test_a_checkpoint_with_a_module_prefix_is_loaded_into_the_model(workshop: Workshop):
    model = load_model(f"{workshop.module}:stale")
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, workshop.folder / "w.pt")
    arguments = ("--data", "@loader", "--format", "json")
    with_weights = workshop.run("audit", "@make", "--checkpoint", "w.pt", *arguments)
    assert with_weights.code == 1
    assert codes(with_weights.document) == codes(workshop.run("audit", "@stale", *arguments).document)


def test_fix_applies_what_is_exact_and_writes_loadable_weights(workshop: Workshop):
    result = workshop.run(
        "audit", "@make", "--data", "@loader", "--select", "NW101", "--fix", "--output", "w.safetensors"
    )
    assert result.code == 0
    assert "written: w.safetensors" in result.err
    before, after = (load_model(f"{workshop.module}:make") for _ in range(2))
    state = safetensors.torch.load_file(workshop.folder / "w.safetensors")
    assert "conv.bias" not in state
    after.conv.bias = None
    after.load_state_dict(state)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(after(x), before(x), rtol=1e-5, atol=1e-5)


def test_unsafe_fixes_bring_the_model_in_order(workshop: Workshop):
    arguments = ("--data", "@loader", "--select", "NW201")
    result = workshop.run("audit", "@stale", *arguments, "--unsafe-fixes", "--output", "w.safetensors")
    assert result.code == 1
    again = workshop.run("audit", "@stale", *arguments, "--checkpoint", "w.safetensors", "--fail-on", "warning")
    assert again.code == 0, again.out


def test_fix_alone_leaves_what_would_change_outputs(workshop: Workshop):
    before = workshop.contents()
    result = workshop.run("audit", "@stale", "--data", "@loader", "--select", "NW201", "--fix")
    assert "no fix to apply; --unsafe-fixes adds those that change outputs" in result.err
    assert workshop.contents() == before


def test_weights_are_named_after_the_model_unless_told(workshop: Workshop):
    workshop.run("audit", "@make(width=5)", "--select", "NW101", "--fix", "--format", "json", "--output", "report.json")
    assert set(workshop.contents()) - {f"{workshop.module}.py"} == {
        "report.json",
        f"{workshop.module}.make-fixed.safetensors",
    }


def test_diff_says_what_would_change_and_writes_nothing(workshop: Workshop):
    before = workshop.contents()
    result = workshop.run("audit", "@stale", "--data", "@loader", "--select", "NW201", "--unsafe-fixes", "--diff")
    assert "~ norm.running_mean (4,) changes by up to " in result.err
    assert "head.weight" not in result.err
    assert workshop.contents() == before


@pytest.mark.parametrize(("name", "head"), [("pyproject.toml", "[tool.normwise]\n"), ("normwise.toml", "")])
def test_options_come_from_configuration(workshop: Workshop, name: str, head: str):
    workshop.write(
        name,
        f'{head}data = "{workshop.module}:loader"\nselect = ["NW201"]\nfail-on = "warning"\nmax-batches = 3\n'
        "attribution = false\n",
    )
    result = workshop.run("audit", "@stale", "--format", "json")
    assert result.code == 1
    document = result.document
    assert document["data"]["batches"] == 3
    assert codes(document) == {"NW201"}
    assert document["metric"] is None


def test_the_command_line_wins_over_configuration(workshop: Workshop):
    workshop.write(
        "pyproject.toml", f'[tool.normwise]\ndata = "{workshop.module}:loader"\nmax-batches = 3\nrole = "causal"\n'
    )
    result = workshop.run("audit", "@make", "--max-batches", "2", "--select", "NW101", "--format", "json")
    assert result.document["data"]["batches"] == 2


def test_a_pyproject_without_our_table_is_ignored(workshop: Workshop):
    workshop.write("pyproject.toml", "[tool.ruff]\nline-length = 120\n")
    assert workshop.run("audit", "@make").code == 0
