"""What an audit costs beside evaluation passes over the same data: `python -m benchmarks.audit_cost [--json]`.

CPU time of one process with one thread, medians of repeats that take turns with evaluation passes. An audit of b
batches takes `probes + passes * (one evaluation pass over b batches)`; both are fitted over several b. Memory is the
highest resident size of a fresh process that does one or the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import normwise
from normwise.models.walk import norm_layers

ROOT = Path(__file__).parent.parent
PACKAGES = Path(os.environ.get("NORMWISE_DATA", ROOT / ".data"))
SIZES = (8, 16, 32)
REPEATS = 5
MEBIBYTE = 2**20
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Timing:
    """Median CPU seconds of one model on one number of batches."""

    model: str
    batches: int
    evaluation: float
    audit: float
    with_causes: float


@dataclass(frozen=True)
class Cost:
    """`audit = probes + passes * evaluation`, least squares over the sizes; probes in seconds and in batches."""

    model: str
    batch: list[int]
    passes: float
    probes: float
    probes_in_batches: float
    with_causes_passes: float


@dataclass(frozen=True)
class Memory:
    """Highest resident bytes of a fresh process, and the largest output of any module."""

    model: str
    batches: int
    evaluation: int
    audit: int
    audit_with_causes: int
    largest_activation: int


def digit_net() -> tuple[nn.Module, Batches]:
    """Return the demo's network, untrained, and the digits in batches of 64, repeated to 32 batches."""
    from normwise.studies.data import digits
    from normwise.studies.demo import DigitNet

    images, labels = digits(seed=0)
    return DigitNet().eval(), list(zip(images.split(64), labels.split(64), strict=True))


def usps() -> tuple[nn.Module, Batches]:
    """Return a pretrained network of two norms, and the digits in batches of 64."""
    from real import zoo

    return zoo.usps(PACKAGES), zoo.digits_for_usps()


def lite0() -> tuple[nn.Module, Batches]:
    """Return a pretrained network of 49 norms, and crops of photographs in batches of 8."""
    from real import zoo

    with redirect_stdout(sys.stderr):  # the package prints while it loads
        return zoo.lite0(PACKAGES), zoo.photograph_crops(batches=max(SIZES))


MODELS: dict[str, Callable[[], tuple[nn.Module, Batches]]] = {"DigitNet": digit_net, "USPSNet": usps, "Lite0": lite0}


def load(name: str, batches: int) -> tuple[nn.Module, Batches]:
    """Return a model and exactly that many full batches; short data start again."""
    model, data = MODELS[name]()
    full = [batch for batch in data if len(batch[1]) == len(data[0][1])]
    return model, [full[i % len(full)] for i in range(batches)]


def evaluate(model: nn.Module, data: Batches) -> None:
    """One pass as deployed, as anyone would write it: what is counted is one value."""
    model.eval()
    with torch.no_grad():
        sum(int((model(images).argmax(1) == labels).sum()) for images, labels in data)


def audit(model: nn.Module, data: Batches, *, attribution: bool) -> None:
    """Audit all of the data."""
    normwise.audit(model, data, attribution=attribution, max_batches=len(data))


def cpu_seconds(work: Callable[[], None]) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def time_model(name: str, repeats: int) -> list[Timing]:
    """Time one model at every size; the three kinds of work take turns."""
    model, data = load(name, max(SIZES))
    rows = []
    for size in SIZES:
        part = data[:size]
        works: tuple[Callable[[], None], ...] = (
            lambda part=part: evaluate(model, part),
            lambda part=part: audit(model, part, attribution=False),
            lambda part=part: audit(model, part, attribution=True),
        )
        if not rows:
            for work in works:
                work()
        taken = [[cpu_seconds(work) for work in works] for _ in range(repeats)]
        rows.append(Timing(name, size, *(statistics.median(column) for column in zip(*taken, strict=True))))
    return rows


def fit(rows: list[Timing]) -> Cost:
    """Fit fixed and per-pass cost by least squares, relative errors weighing the same at each size."""
    per_batch = statistics.mean(row.evaluation / row.batches for row in rows)
    _, data = load(rows[0].model, 1)
    probes, passes = _line([row.evaluation for row in rows], [row.audit for row in rows])
    _, causes = _line([row.evaluation for row in rows], [row.with_causes for row in rows])
    return Cost(rows[0].model, list(data[0][0].shape), passes, probes, probes / per_batch, causes)


def _line(x: list[float], y: list[float]) -> tuple[float, float]:
    weights = torch.tensor(y, dtype=torch.float64).reciprocal().unsqueeze(1)
    columns = torch.tensor([[1.0, value] for value in x], dtype=torch.float64)
    values = torch.tensor(y, dtype=torch.float64).unsqueeze(1)
    intercept, slope = torch.linalg.lstsq(columns * weights, values * weights).solution.squeeze(1).tolist()
    return intercept, slope


def measure_memory(name: str, batches: int) -> Memory:
    """Run each kind of work in a process of its own."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.audit_cost", "--only", kind, "--model", name, "--batches", str(batches)],
                check=True, capture_output=True, text=True, cwd=ROOT,
            ).stdout.split()[-1]
        )
        for kind in ("evaluation", "audit", "causes")
    ]  # fmt: skip
    model, data = load(name, 1)
    return Memory(name, batches, *peaks, largest_activation(model, data[0][0]))


def largest_activation(model: nn.Module, images: Tensor) -> int:
    """Return the bytes of the largest tensor any norm takes on one batch."""
    sizes: list[int] = []
    for layer in norm_layers(model):
        layer.module.register_forward_hook(lambda _m, inputs, _o: sizes.append(inputs[0].nbytes))
    evaluate(model, [(images, torch.zeros(len(images), dtype=torch.long))])
    return max(sizes)


def run_only(kind: str, name: str, batches: int) -> int:
    """Do one kind of work; return the highest resident bytes of this process from when model and data were loaded."""
    model, data = load(name, batches)
    if RESET.exists():
        RESET.write_text("5")
    if kind == "evaluation":
        evaluate(model, data)
    else:
        audit(model, data, attribution=kind == "causes")
    return peak_resident()


def peak_resident() -> int:
    """Return the peak. Linux' `ru_maxrss` is inherited from the process that started this one, so VmHWM is read there."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "python": platform.python_version(), "system": platform.system(),
    }  # fmt: skip


def table(document: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        ", ".join(f"{key} {value}" for key, value in document["machine"].items()), "",
        "| model | batches | evaluation pass, s | audit, s | ratio | with causes, s | ratio |", "|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in document["timings"]:
        e, a, c = row["evaluation"], row["audit"], row["with_causes"]
        lines.append(f"| {row['model']} | {row['batches']} | {e:.3f} | {a:.3f} | {a / e:.2f} | {c:.3f} | {c / e:.2f} |")
    lines += [
        "",
        "| model | a batch | passes | fixed, s | fixed, in batches | passes with causes |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in document["costs"]:
        shape = "x".join(map(str, row["batch"]))
        figures = f"{row['passes']:.2f} | {row['probes']:.3f} | {row['probes_in_batches']:.1f} | {row['with_causes_passes']:.2f}"
        lines.append(f"| {row['model']} | {shape} | {figures} |")
    lines += [
        "", "| model | batches | peak, evaluation, MiB | audit adds, MiB | with causes adds, MiB | largest input of a norm, MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in document["memory"]:
        base = row["evaluation"]
        sizes = (base, row["audit"] - base, row["audit_with_causes"] - base, row["largest_activation"])
        lines.append(
            f"| {row['model']} | {row['batches']} | " + " | ".join(f"{s / MEBIBYTE:.1f}" for s in sizes) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure everything, or do one kind of work for the memory measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--model", choices=tuple(MODELS), action="append")
    parser.add_argument("--only", choices=("evaluation", "audit", "causes"), help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, default=8, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sys.path[:0] = [str(ROOT / "tests"), str(PACKAGES)]
    names = chosen.model or list(MODELS)
    if chosen.only:
        sys.stdout.write(f"{run_only(chosen.only, names[0], chosen.batches)}\n")
        return
    timings = [time_model(name, chosen.repeats) for name in names]
    document = {
        "machine": machine(),
        "repeats": chosen.repeats,
        "timings": [asdict(row) for rows in timings for row in rows],
        "costs": [asdict(fit(rows)) for rows in timings],
        "memory": [asdict(measure_memory(name, size)) for name in names for size in SIZES[::2]],
    }
    sys.stdout.write((json.dumps(document, indent=2) if chosen.json else table(document)) + "\n")


if __name__ == "__main__":
    main()
