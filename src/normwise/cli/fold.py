"""`normwise fold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normwise.cli.config import read_config
from normwise.cli.output import check_output, log
from normwise.cli.target import load_data, load_model, load_task


def fold(
    model: Annotated[str, typer.Argument(help="package.module:model, with literal arguments in brackets")],
    output: Annotated[Path, typer.Option(help="where to write the folded weights, .safetensors")],
    data: Annotated[str | None, typer.Option(help="batches, of which one checks the whole model's outputs")] = None,
    task: Annotated[str | None, typer.Option(help="package.module:task, how to run the model on a batch")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="weights to load: .safetensors or .pt")] = None,
) -> None:
    """Fold norms into the convolutions and linear layers before them, check the outputs, and write the weights."""
    from normwise.models.batch import read_batches
    from normwise.models.checkpoint import load_checkpoint, save_weights
    from normwise.models.fold import fold as run
    from normwise.models.fold import fold_plan

    check_output(output, ".safetensors")
    subject = load_model(model)
    if checkpoint is not None:
        load_checkpoint(subject, checkpoint)
    example = None if data is None else next(iter(read_batches(load_data(data), max_batches=1)))
    how = load_task(task or read_config().get("task"))
    pairs = fold_plan(subject, example=example, task=how)
    folded = run(subject, example=example, task=how)
    for pair in pairs:
        log(f"{pair.norm}: {'kept, ' + pair.refusal if pair.refusal else f'folded into {pair.producer}'}")
    save_weights(folded.state_dict(), output)
    log(f"{sum(pair.refusal is None for pair in pairs)} of {len(pairs)} norms folded\nwritten: {output}")
