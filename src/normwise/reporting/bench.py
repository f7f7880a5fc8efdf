"""The benchmark's document in words: rows of a table, and what was measured how."""

from __future__ import annotations

from typing import Any

HEADINGS = ("case", "forward", "forward + backward", "ms", "saved", "target")


def conditions(document: dict[str, Any]) -> str:
    """Say on what, and how, it was measured."""
    threads = document["threads"]
    return (
        f"{document['cpu']}, {document['cores']} cores, {threads} thread{'s' if threads > 1 else ''} "
        f"({document['clock']}), load {document['load'][0]} to {document['load'][1]}; {document['system']}, Python "
        f"{document['python']}, torch {document['torch']}, normwise {document['normwise']}; memory {document['allocator']}"
    )


def rows(case: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of a case's contenders, under `HEADINGS`: times over the baseline's, with quartiles."""
    return [
        (
            one["name"] + ("" if one["equal"] or one["name"] == case["baseline"] else " (does less)"),
            f"{one['forward']['median']:.2f}",
            "1" if one["name"] == case["baseline"] else spread(one["total"]),
            f"{one['total_ms']:.3g}",
            "" if one["saved"] is None else f"{one['saved']:.1f}",
            "; ".join(map(target, case["targets"])) if one["name"] == "normwise" else "",
        )
        for one in case["contenders"]
    ]


def spread(ratio: dict[str, float]) -> str:
    """Say a median and its quartiles."""
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def target(judged: dict[str, Any]) -> str:
    """Say what was asked, and whether it is met."""
    asked = f"<= {judged['limit']:.2f}"
    if judged["against"].startswith("PyG"):
        asked += f" of {judged['against']}"
    if judged["met"] is None:
        return f"{asked}: not measured"
    return f"{asked}: {'met' if judged['met'] else 'MISSED'}"


def notes(document: dict[str, Any]) -> list[str]:
    """Say how to read the table, and what is missing from it."""
    lines = [
        "forward, forward + backward: time over that of the case's first row, median of the ratios within a round "
        "[quartiles]. ms: forward and backward together. saved: bytes kept for the backward pass over the input's. "
        "floor: sum and copy, then dot and add, of the first row's tensors."
    ]
    for name, package in document["missing"].items():
        lines.append(f"not measured: {name}; pip install {package}")
    return lines
