"""`normwise audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from normwise.cli.config import read_config
from normwise.cli.output import check_format, check_output, log, progress, quiet_stdout, write_report
from normwise.cli.target import load_data, load_model, load_task
from normwise.errors import UsageError, one_of
from normwise.reporting.document import with_names

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def audit(
    model: Annotated[
        str, typer.Argument(help="package.module:model, with literal arguments in brackets, or a checkpoint")
    ],
    data: Annotated[str | None, typer.Option(help="batches as one process sees them: package.module:loader")] = None,
    target: Annotated[str | None, typer.Option(help="batches of the domain the model is deployed in")] = None,
    task: Annotated[str | None, typer.Option(help="package.module:task, how to run the model on a batch")] = None,
    role: Annotated[str | None, typer.Option(help="discriminator, contrastive, causal or private")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="weights to load: .safetensors or .pt")] = None,
    select: Annotated[str | None, typer.Option(help="rule codes or beginnings, separated by commas")] = None,
    ignore: Annotated[str | None, typer.Option(help="rule codes or beginnings to leave out")] = None,
    output_format: Annotated[str, typer.Option("--format", help="text, json, sarif, html or markdown")] = "text",
    output: Annotated[
        Path | None, typer.Option(help="where to write; weights with --fix if it ends in .safetensors")
    ] = None,
    fail_on: Annotated[str | None, typer.Option(help="error or warning: findings that give exit code 1")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="apply exact fixes and write the weights")] = False,
    unsafe_fixes: Annotated[bool, typer.Option("--unsafe-fixes", help="apply all fixes, outputs may change")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="say what the fixes would change; write nothing")] = False,
    max_batches: Annotated[int | None, typer.Option(help="most batches read of each source")] = None,
    attribution: Annotated[bool | None, typer.Option(help="measure what each fix recovers")] = None,
) -> int:
    """Find what a model's normalization breaks, prove it, and rank the causes by what fixing them recovers."""
    from normwise.audit.report import rule_documents
    from normwise.audit.run import audit as run_audit

    config = read_config()
    level = fail_on or config.get("fail-on", "error")
    if level not in ("error", "warning"):
        raise one_of("fail-on", level, ("error", "warning"))
    writes = (fix or unsafe_fixes) and not diff
    weights = _weights_path(model, output) if writes else None
    output = None if output is not None and output == weights else output
    check_format(output_format, output)
    check_output(output)
    check_output(weights, ".safetensors")
    if output is not None and output.suffix == ".safetensors":
        raise UsageError("output: .safetensors is for weights; add --fix or --unsafe-fixes, and leave --diff out")
    if writes and _is_checkpoint(model):
        raise UsageError("fix: a checkpoint alone lacks the model; give package.module:model with --checkpoint")
    data, target = data or config.get("data"), target or config.get("target")
    with quiet_stdout():
        subject, name = _subject(model, checkpoint)
    with progress("auditing") as tell, quiet_stdout():
        report = run_audit(
            subject,
            None if data is None else load_data(data),
            target=None if target is None else load_data(target, "target"),
            task=load_task(task or config.get("task")),
            role=role or config.get("role"),
            select=select or config.get("select"),
            ignore=ignore or config.get("ignore"),
            max_batches=max_batches if max_batches is not None else config.get("max-batches", 16),
            attribution=config.get("attribution", True) if attribution is None else attribution,
            progress=tell,
        )
    document = report.to_dict()
    document["model"]["name"] = name
    how = [model, *_options("--checkpoint", checkpoint), *_options("--task", task or config.get("task"))]
    document = with_names(
        document, {"MODEL": how, "DATA": [data] if data else None, "TARGET": [target] if target else None}
    )
    write_report(document, output_format, output, rule_documents())
    if fix or unsafe_fixes or diff:
        before = {key: value.clone() for key, value in subject.state_dict().items()}
        applied = report.apply(subject, unsafe=unsafe_fixes)
        for line in applied or [
            "no fix to apply" + ("" if unsafe_fixes else "; --unsafe-fixes adds those that change outputs")
        ]:
            log(line)
        if diff:
            _show_difference(before, subject.state_dict())
        elif applied and weights is not None:
            _save(subject, weights)
    return report.exit_code(level)


def _subject(text: str, checkpoint: Path | None) -> tuple[nn.Module, str]:
    """Return the model and what to call it: from code, with weights if given, or a checkpoint alone."""
    from normwise.models.checkpoint import checkpoint_skeleton, load_checkpoint

    if _is_checkpoint(text):
        if checkpoint is not None:
            raise UsageError("checkpoint: give the model as package.module:model, or the checkpoint alone, not both")
        return checkpoint_skeleton(Path(text)), Path(text).name
    model = load_model(text)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model, text


def _options(name: str, value: Any) -> list[str]:
    return [] if value is None else [name, str(value)]


def _is_checkpoint(text: str) -> bool:
    return ":" not in text and (Path(text).suffix in _CHECKPOINTS or Path(text).is_file())


def _weights_path(model: str, output: Path | None) -> Path:
    """Return where fixed weights go: the output if it is meant for weights, or a name after the model's."""
    if output is not None and output.suffix == ".safetensors":
        return output
    return Path(f"{model.partition('(')[0].replace(':', '.')}-fixed.safetensors")


def _save(model: nn.Module, path: Path) -> None:
    from normwise.models.checkpoint import save_weights

    save_weights(model.state_dict(), path)
    log(f"written: {path}")


def _show_difference(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            log(f"- {key} {tuple(before[key].shape)}")
        elif key not in before:
            log(f"+ {key} {tuple(after[key].shape)}")
        elif not torch.equal(before[key], after[key]):
            gap = (after[key].double() - before[key].double()).abs().max().item()
            log(f"~ {key} {tuple(after[key].shape)} changes by up to {gap:.3g}")
