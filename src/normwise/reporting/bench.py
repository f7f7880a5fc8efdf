"""The benchmark's document in words: rows of a table, and what was measured how."""

from __future__ import annotations

from typing import Any

HEADINGS = ("case", "forward", "forward + backward", "ms", "saved", "target")
OURS = "normwise"
FLOOR = "floor"
HOW_TO_READ = (
    "forward, forward + backward: time over that of the case's first row, median of the ratios within a round "
    "[quartiles]; ms: forward and backward together; saved: bytes kept for the backward pass over the input's; floor: "
    "sum and copy, then dot and add, of the first row's tensors"
)


def conditions(document: dict[str, Any]) -> str:
    """Say on what, and how, it was measured."""
    threads, load = document["threads"], document["load"]
    return (
        f"{document['cpu']}, {document['cores']} cores, {threads} thread{'s' if threads > 1 else ''} "
        f"({document['clock']}), load {'unknown' if load[0] is None else f'{load[0]} to {load[1]}'}; {document['system']}, "
        f"Python {document['python']}, torch {document['torch']}, normwise {document['normwise']}; memory "
        f"{document['allocator']}"
    )


def rows(case: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of a case's contenders, under `HEADINGS`."""
    return [
        (
            one["name"] if one["equal"] else f"{one['name']} (does less)",
            f"{one['forward']['median']:.2f}",
            "1" if one["name"] == case["baseline"] else spread(one["total"]),
            f"{one['total_ms']:.3g}",
            "" if one["saved"] is None else f"{one['saved']:.1f}",
            "; ".join(target(judged) for judged in case["targets"] if _stands_at(judged, case, one["name"])),
        )
        for one in case["contenders"]
    ]


def _stands_at(judged: dict[str, Any], case: dict[str, Any], name: str) -> bool:
    """Return whether a target is said in this contender's row: ours, or that of the rival it names."""
    return name == (OURS if judged["against"] == case["baseline"] else judged["against"])


def spread(ratio: dict[str, float]) -> str:
    """Say a median and its quartiles."""
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def target(judged: dict[str, Any]) -> str:
    """Say what came, what was asked, and whether that is met."""
    verdict = {True: "met", False: "MISSED", None: "not measured"}[judged["met"]]
    came = "" if judged["ratio"] is None else f"{judged['ratio']['median']:.2f} "
    return f"{came}<= {judged['limit']:.2f}: {verdict}"


def absent(document: dict[str, Any]) -> list[str]:
    """Say which peers were not there to be measured."""
    return [f"not measured: {name}; pip install {package}" for name, package in document["missing"].items()]
