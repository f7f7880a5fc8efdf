"""`normwise recalibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normwise.cli.config import read_config
from normwise.cli.output import check_output, log, progress
from normwise.cli.target import load_data, load_model, load_task


def recalibrate(
    model: Annotated[str, typer.Argument(help="package.module:model, with literal arguments in brackets")],
    data: Annotated[str, typer.Option(help="batches to measure on: package.module:loader")],
    output: Annotated[Path, typer.Option(help="where to write the weights, .safetensors")],
    task: Annotated[str | None, typer.Option(help="package.module:task, how to run the model on a batch")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="weights to load: .safetensors or .pt")] = None,
    max_batches: Annotated[int | None, typer.Option(help="most batches read")] = None,
) -> None:
    """Measure the running statistics of a trained model anew, exactly, and write its weights."""
    from normwise.care.recalibrate import recalibrate as run
    from normwise.models.batch import read_batches
    from normwise.models.checkpoint import load_checkpoint, save_weights

    check_output(output, ".safetensors")
    subject = load_model(model)
    if checkpoint is not None:
        load_checkpoint(subject, checkpoint)
    batches, how = load_data(data), load_task(task or read_config().get("task"))
    with progress("recalibrating") as tell:
        seen = (tell(f"batch {number}") or batch for number, batch in enumerate(read_batches(batches)))
        outcome = run(subject, seen, task=how, max_batches=max_batches)
    save_weights(subject.state_dict(), output)
    log(f"{outcome}\nwritten: {output}")
