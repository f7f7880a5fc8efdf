"""What a layer costs beside its rivals: interleaved timings, paired ratios, bytes kept for the backward pass.

A case is one problem and the ways to compute it; the first way is the baseline, torch's own. Ways take turns, and what
counts is the median over the rounds of the ratio within a round: a busy machine slows both sides of it. Beside them
stands the memory floor, what just reading and writing the baseline's tensors costs: forward a sum and a copy,
backward a dot product and an addition.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normwise import __version__

OURS = "normwise"
FLOOR = "floor"
SCHEMA = "normwise-bench/1"
_SMALLEST = (64, 6, 5, 5)  # the extents of a case that is checked, not timed
_SAMPLE = 0.002  # seconds that one sample should take: short calls are repeated
_WARM = 2  # calls before the first sample: compilation, caches, the allocator
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt
Clock = Callable[[], float]


def same(result: Tensor) -> Tensor:
    """Return a result as it is: what `Contender.view` is where layouts agree."""
    return result


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to compute a case.

    name: "normwise" for ours. module: called with `inputs`, which want gradients, and `side`. dy: the gradient of its
    output. view: brings its output, and gradients of its input, into the form they have in common with ours.
    equal: whether it computes what ours does; a yardstick (plain batch normalization of the same tensor) does not.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    dy: Tensor
    side: tuple[Any, ...] = ()
    view: Callable[[Tensor], Tensor] = same
    equal: bool = True

    @property
    def wanted(self) -> list[Tensor]:
        """What gradients are taken with respect to: inputs and parameters."""
        return [*self.inputs, *self.module.parameters()]

    def forward(self) -> Tensor:
        """Return the output."""
        return self.module(*self.inputs, *self.side)


@dataclass(frozen=True)
class Absent:
    """A contender that cannot run, and the package to install for it."""

    name: str
    package: str


@dataclass(frozen=True)
class Target:
    """What forward and backward together should take at most, over the baseline or over another contender."""

    limit: float
    against: str | None = None


@dataclass(frozen=True)
class Case:
    """One problem: a family, a name, a shape, the ways to compute it at a shape, and what ours should reach."""

    family: str
    name: str
    shape: tuple[int, ...]
    contenders: Callable[[tuple[int, ...]], Iterable[Contender | Absent]]
    targets: tuple[Target, ...] = ()

    @property
    def title(self) -> str:
        """Name and shape."""
        return f"{self.name} {'x'.join(map(str, self.shape))}".lstrip()

    def small(self) -> Case:
        """Return the case at a size to check numbers at."""
        return replace(self, shape=tuple(map(min, self.shape, _SMALLEST)))


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
    rows, load = [], os.getloadavg()[0]
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
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
        "allocator": allocator,
        "missing": absent,
        "cases": rows,
    }


def fix_allocator() -> str:
    """Keep freed memory in this process, so that no timing holds page faults; return what was done, in words.

    For good, and for glibc only: from then on large tensors come from memory that was used before.
    """
    if platform.libc_ver()[0] != "glibc":
        return "not fixed: not glibc"
    library = ctypes.CDLL(None)
    kept = library.mallopt(_M_MMAP_MAX, 0) == 1 and library.mallopt(_M_TRIM_THRESHOLD, -1) == 1
    return "fixed: freed memory is kept and used again" if kept else "not fixed: mallopt refused"


def differences(contenders: Sequence[Contender]) -> dict[str, float]:
    """Return how far each contender's output and input gradients lie from ours, in units of our largest value.

    Only of those that compute the same. Calls each of them once.
    """
    ours = next(one for one in contenders if one.name == OURS)
    expected = _results(ours)
    found = {}
    for one in contenders:
        if one.equal and one is not ours:
            gaps = zip(_results(one), expected, strict=True)
            found[one.name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in gaps)
    return found


def _results(one: Contender) -> list[Tensor]:
    y = one.forward()
    gradients = torch.autograd.grad(y, one.inputs, one.dy)
    return [one.view(value).detach().clone() for value in (y, *gradients)]


def saved_share(one: Contender) -> float:
    """Return the bytes a forward pass keeps for the backward pass over those of its (first) input.

    Memory is counted once however many tensors view it; parameters and buffers, which are there anyway, are not.
    """
    there = {value.untyped_storage().data_ptr() for value in (*one.module.parameters(), *one.module.buffers(), *_tensors(one.side))}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value  # held on to, so that its address stays its own
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, same):
        y = one.forward()
    total = sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in there)
    del y
    return total / (one.inputs[0].numel() * one.inputs[0].element_size())


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


def _measure(case: Case, clock: Clock, seconds: float, least: int) -> dict[str, Any]:
    found = list(case.contenders(case.shape))
    contenders = [one for one in found if isinstance(one, Contender)]
    gaps = differences(contenders)
    saved = {one.name: saved_share(one) for one in contenders}
    baseline = contenders[0].name
    forward, total = _sample(contenders, clock, seconds, least)
    rows = [
        {
            "name": name,
            "equal": all(one.equal for one in contenders if one.name == name),
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
        first = done % len(names)  # nobody always follows the same one
        for name in names[first:] + names[:first]:
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


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
