"""Report documents of every shape: empty, one layer, many, with a target, with holes, with hostile names."""

from __future__ import annotations

import math
from typing import Any

HOSTILE = '<script>alert("x")</script>&|`*[bold]{{7*7}}'


def quantiles(middle: float, spread: float) -> list[float]:
    return [middle + spread * step for step in (-2.0, -0.7, 0.0, 0.7, 2.0)]


def layer(
    name: str, *, shift: float | None = 0.1, log_ratio: float = 0.05, target: float | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "kind": "BatchNorm2d", "channels": 32, "values": 128}
    for prefix, size in (("", shift), ("target_", target)):
        known = size is not None
        row[f"{prefix}shift"] = abs(size) if known else None
        row[f"{prefix}log_ratio"] = log_ratio if known else None
        row[f"{prefix}shift_quantiles"] = quantiles(size, 0.1 + abs(size) / 3) if known else None
        row[f"{prefix}log_ratio_quantiles"] = quantiles(log_ratio * (1 if not prefix else 4), 0.2) if known else None
    return row


def finding(code: str, severity: str, where: str, **evidence: Any) -> dict[str, Any]:
    return {
        "code": code,
        "name": "train-eval-gap",
        "severity": severity,
        "layer": where,
        "message": f"data: mean {len(where) / 10:.2f} sd off the running one",
        "evidence": evidence or {"mean_shift": 0.8, "variance_ratio": 2.4, "channels": [1, 2, 3]},
        "fix": {
            "description": "recalibrate the running statistics",
            "command": "normwise recalibrate M",
            "exact": False,
        },
    }


def cause(code: str, recovered: float, *, before: float = 0.55, sign: int = 1, half: float = 0.03) -> dict[str, Any]:
    return {
        "code": code,
        "codes": [code, "NW205"],
        "name": "train-eval-gap",
        "title": f"Cause {code}: the running statistics do not describe the data",
        "message": f"Cause {code}: the running statistics do not describe the data: much comes back.",
        "layers": ["layer1.bn1", "layer2.bn1"],
        "minimal_layers": ["layer2.bn1"],
        "before": before,
        "after": before + sign * recovered,
        "recovered": recovered,
        "low": recovered - half,
        "high": recovered + half,
        "share": 0.9,
        "description": "recalibrate the running statistics",
        "command": f"normwise recalibrate MODEL --data {code} --output recalibrated.safetensors",
        "exact": False,
    }


def together(causes: list[dict[str, Any]]) -> dict[str, float]:
    return {key: causes[0][key] for key in ("before", "after", "recovered", "low", "high")}


def document(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "schema": "normwise-report/1",
        "version": "0.1.0",
        "model": {"name": "ResNet", "parameters": 1234567, "norm_layers": len(changes.get("layers", []))},
        "data": {"batches": 8, "samples": 256, "batch_size": 32},
        "target": None,
        "metric": {"name": "accuracy", "unit": "points", "higher_is_better": True, "samples": 128},
        "baseline": 0.55,
        "causes": [],
        "together": None,
        "findings": [],
        "layers": [],
        "notes": [],
    }
    made = base | changes
    severities = [f["severity"] for f in made["findings"]]
    made.setdefault("summary", {level: severities.count(level) for level in ("error", "warning", "info")})
    return made


def empty() -> dict[str, Any]:
    return document(data=None, metric=None, baseline=None, notes=["no data given"])


def one_layer() -> dict[str, Any]:
    return document(layers=[layer("bn")], findings=[finding("NW101", "info", "bn")])


def many_layers(count: int = 49, *, target: bool = False) -> dict[str, Any]:
    names = [f"layer{1 + i // 12}.{i % 12}.conv_block.bn{1 + i % 2}" for i in range(count)]
    layers = [
        layer(name, shift=1.4 * (i / count) ** 2, log_ratio=math.sin(i / 5), target=2.5 * i / count if target else None)
        for i, name in enumerate(names)
    ]
    causes = [cause("NW201", 0.312), cause("NW205", 0.12), cause("NW111", 0.004)]
    findings = [finding("NW201", "error", name, mean_shift=i / count) for i, name in enumerate(names[::-1])]
    findings += [finding("NW203", "warning", name) for name in names[:3]] + [finding("NW302", "info", names[0])]
    described = {"batches": 4, "samples": 128, "batch_size": 32} if target else None
    return document(
        layers=layers,
        causes=causes,
        together=together(causes),
        findings=findings,
        target=described,
        notes=["one", "two"],
    )


def by_loss() -> dict[str, Any]:
    causes = [cause("NW201", 0.8, before=2.1, sign=-1, half=0.2), cause("NW104", 0.01, before=2.1, sign=-1, half=0.2)]
    metric = {"name": "loss", "unit": "", "higher_is_better": False, "samples": 64}
    return document(metric=metric, baseline=2.1, causes=causes, together=together(causes), layers=[layer("bn")])


def holes() -> dict[str, Any]:
    """A model whose output is NaN: nothing that was measured is a number."""
    broken = cause("NW105", 0.3) | dict.fromkeys(("before", "recovered", "low", "high"))
    nothing = layer("bn2", shift=None)
    gaps = layer("bn3") | {"shift_quantiles": [None, 0.0, 0.1, 0.2, None], "log_ratio_quantiles": [None] * 5}
    return document(
        baseline=None,
        causes=[broken],
        together=dict.fromkeys(("before", "after", "recovered", "low", "high")),
        findings=[finding("NW105", "error", "bn", mean=math.nan, variance=math.inf, table=[1.0, math.nan])],
        layers=[layer("bn"), nothing, gaps],
    )


def hostile() -> dict[str, Any]:
    bad = cause("NW201", 0.3) | {key: HOSTILE for key in ("title", "message", "description", "command")}
    bad |= {"layers": [HOSTILE, "b"], "minimal_layers": [HOSTILE]}
    found = finding("NW201", "error", HOSTILE, **{HOSTILE: HOSTILE}) | {"message": HOSTILE}
    found["fix"] = {"description": HOSTILE, "command": HOSTILE, "exact": False}
    return document(
        model={"name": HOSTILE, "parameters": 1, "norm_layers": 1},
        causes=[bad],
        findings=[found],
        layers=[layer(HOSTILE)],
        notes=[HOSTILE],
    )


EXAMPLES = {
    "empty": empty,
    "one-layer": one_layer,
    "49-layers": many_layers,
    "150-layers-target": lambda: many_layers(150, target=True),
    "loss": by_loss,
    "holes": holes,
    "hostile": hostile,
}
