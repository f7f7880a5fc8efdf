"""What the command-line tests share: a user's folder and a way to type commands in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from normwise.cli.app import main

DOCS = Path(__file__).parents[2] / "docs"
_NUMBERS = count()
_SOURCE = '''
from __future__ import annotations

import torch
from torch import nn

from normwise import Task


class Tiny(nn.Module):
    """A convolution whose bias a norm cancels (NW101), and a classifier."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def make(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return trained(Tiny(width))


def trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(8):
        for x, y in loader():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 - step / 8)
            optimizer.step()
    return model.eval()


def stale() -> nn.Module:
    """The same with running statistics of something else: an error on the data."""
    model = make()
    model.norm.running_mean += 6 * model.norm.running_var.sqrt()
    return model


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def loud() -> nn.Module:
    print("building a model")
    return make()


def loader(batches: int = 8, size: int = 16, scale: float = 1.0):
    """Two classes that differ in the mean of their pixels."""
    g = torch.Generator().manual_seed(1)
    pairs = []
    for _ in range(batches):
        y = torch.randint(0, 2, (size,), generator=g)
        noise = torch.randn(size, 3, 8, 8, generator=g)
        pairs.append((scale * (noise + 0.3 * (2.0 * y - 1).view(-1, 1, 1, 1)), y))
    return pairs


def bad(value: float):
    return [(x.masked_fill(x > 1, value), y) for x, y in loader()]


tiny = Tiny()
tuples = loader()
dicts = [{"x": x, "labels": y} for x, y in tuples]
images = [x for x, _ in tuples]
raw = [{"image": x} for x, _ in tuples]
empty = []
wrong = [torch.randn(8, 5, 8, 8), torch.randn(8, 5, 8, 8)]
flat = [torch.randn(8, 3)]
task = Task(forward=lambda model, batch: model(batch["image"]))
number = 3


class models:
    make = staticmethod(make)


def needy(width: int, depth: int) -> nn.Module:
    return make(width * depth)


def gives_text() -> str:
    return "model"


def fails() -> nn.Module:
    return 1 / 0
'''


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


class Workshop:
    """A user's folder: `module` names the module file in it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.module = f"mine{next(_NUMBERS)}"
        self.write(f"{self.module}.py", _SOURCE)

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def run(self, *arguments: str) -> Result:
        """Type `normwise ARGUMENTS`; `@name` stands for a name in the module."""
        self._capture.readouterr()
        given = [f"{self.module}:{one[1:]}" if one.startswith("@") else one for one in arguments]
        with pytest.raises(SystemExit) as stopped:
            main(given)
        said = self._capture.readouterr()
        return Result(int(stopped.value.code or 0), said.out, said.err)

    def contents(self) -> dict[str, bytes]:
        """Everything in the folder, but for what Python compiles."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def refused(self, *arguments: str) -> str:
        """Run what must fail: return the one line that says why; nothing may change on disk."""
        before = self.contents()
        result = self.run(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith("normwise: error: ")
        assert self.contents() == before
        return result.err
