"""Timing of cases: contenders take turns, ratios are taken within a round, the memory floor stands beside them.

What counts is the median over the rounds of the ratio within a round: a busy machine slows both sides of it. The floor
is what just reading and writing the baseline's tensors costs: forward a sum and a copy, backward a dot product and an
addition.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from normwise import __version__
from normwise.reporting.bench import FLOOR, OURS
from normwise.studies.bench.contenders import Absent, Case, Contender, Target, differences, saved_share

SCHEMA = "normwise-bench/1"
_SAMPLE = 0.002  # seconds that one sample should take: short calls are repeated
_WARM = 2  # calls before the first sample: compilation, caches, the allocator
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt
Clock = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Summarise two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)

    @staticmethod
    def of_ratio(values: Sequence[float], others: Sequence[float]) -> Spread:
        """Summarise the ratios within each round."""
        return Spread.of([value / other for value, other in zip(values, others, strict=True)])

    def to_dict(self) -> dict[str, float]:
        """Return plain data, to four digits."""
        return {key: _rounded(value) for key, value in vars(self).items()}


def compare(
    cases: Sequence[Case],
    *,
    threads: int = 1,
    seconds: float = 8.0,
    least: int = 5,
    allocator: str = "as it came",
    tell: Callable[[int, str], None] = lambda _number, _title: None,
) -> dict[str, Any]:
    """Measure cases, for about so many seconds each but at least so many rounds; return plain data.

    One thread is measured in CPU time of the process, which neighbours on the machine do not add to; more in wall time.
    allocator: how memory was given, as `fix_allocator` says it.
    """
    rows, load = [], _load()
    with _threads(threads):
        for number, case in enumerate(cases):
            tell(number, f"{case.family} {case.title}")
            rows.append(_measure(case, time.process_time if threads == 1 else time.perf_counter, seconds, least))
    absent = {one["name"]: one["package"] for row in rows for one in row["absent"]}
    return {
        "schema": SCHEMA,
        "normwise": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "load": [load, _load()],
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
        "allocator": allocator,
        "missing": absent,
        "cases": rows,
    }


def fix_allocator() -> str:
    """Keep freed memory in this process, so that timings do not hold page faults; return what was done, in words.

    For good, and for glibc only: after a few allocations large tensors come from memory that was used before.
    """
    if platform.libc_ver()[0] != "glibc":
        return "not fixed: not glibc"
    library = ctypes.CDLL(None)
    kept = library.mallopt(_M_MMAP_MAX, 0) == 1 and library.mallopt(_M_TRIM_THRESHOLD, -1) == 1
    return "fixed: freed memory is kept and used again" if kept else "not fixed: mallopt refused"


def _measure(case: Case, clock: Clock, seconds: float, least: int) -> dict[str, Any]:
    found = list(case.contenders(case.shape))
    contenders = [one for one in found if isinstance(one, Contender)]
    gaps = differences(contenders)
    saved = {one.name: saved_share(one) for one in contenders}
    baseline, yardsticks = contenders[0].name, [one.name for one in contenders if not one.equal]
    forward, total = _sample(contenders, clock, seconds, least)
    rows = [
        {
            "name": name,
            "equal": name not in yardsticks,
            "forward_ms": _rounded(1e3 * statistics.median(forward[name])),
            "total_ms": _rounded(1e3 * statistics.median(total[name])),
            "forward": Spread.of_ratio(forward[name], forward[baseline]).to_dict(),
            "total": Spread.of_ratio(total[name], total[baseline]).to_dict(),
            "saved": None if name == FLOOR else _rounded(saved[name]),
            "difference": gaps.get(name),
        }
        for name in total
    ]
    return {
        "family": case.family,
        "title": case.title,
        "shape": list(case.shape),
        "baseline": baseline,
        "rounds": len(total[baseline]),
        "contenders": rows,
        "targets": [_judged(target, total, baseline) for target in case.targets],
        "absent": [vars(one) for one in found if isinstance(one, Absent)],
    }


def _judged(target: Target, total: dict[str, list[float]], baseline: str) -> dict[str, Any]:
    """Return what a target asked, what came, and whether it is met, to the two digits shown; None without a rival."""
    against = target.against or baseline
    ratio = Spread.of_ratio(total[OURS], total[against]).to_dict() if against in total else None
    met = None if ratio is None else round(ratio["median"], 2) <= target.limit
    return {"limit": target.limit, "against": against, "ratio": ratio, "met": met}


def _sample(
    contenders: Sequence[Contender], clock: Clock, seconds: float, least: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return, by name, the seconds of forward, and of forward and backward together, in every round."""
    works = {one.name: _work(one, clock) for one in contenders}
    works[FLOOR] = _floor(contenders[0], clock)
    warm = [min(work()[1] for _ in range(_WARM)) for work in works.values()]
    repeats = max(1, math.ceil(_SAMPLE / max(warm[0], 1e-6)))
    names, end = list(works), time.perf_counter() + seconds
    forward, total = ({name: [] for name in names} for _ in range(2))
    done = 0
    while done < least or time.perf_counter() < end:
        for name in random.Random(done).sample(names, len(names)):  # nobody always follows the same one
            samples = [works[name]() for _ in range(repeats)]
            forward[name].append(sum(sample[0] for sample in samples) / repeats)
            total[name].append(sum(sample[1] for sample in samples) / repeats)
        done += 1
    return forward, total


def _work(one: Contender, clock: Clock) -> Callable[[], tuple[float, float]]:
    wanted = one.wanted

    def work() -> tuple[float, float]:
        start = clock()
        y = one.forward()
        middle = clock()
        gradients = torch.autograd.grad(y, wanted, one.dy)
        end = clock()
        del y, gradients
        return middle - start, end - start

    return work


def _floor(one: Contender, clock: Clock) -> Callable[[], tuple[float, float]]:
    x, dy = (value.detach().as_strided((value.numel(),), (1,)) for value in (one.inputs[0], one.dy))

    def work() -> tuple[float, float]:
        start = clock()
        read, y = x.sum(), x.clone()
        middle = clock()
        product, dx = torch.dot(x, dy), x + dy
        end = clock()
        del read, y, product, dx
        return middle - start, end - start

    return work


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load() -> float | None:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
