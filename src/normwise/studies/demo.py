"""The demo: a small ResNet on real digits, what happens to people's models, and the audit that finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.audit.report import Report
from normwise.audit.run import audit
from normwise.models.preserve import preserved_random_state
from normwise.studies.data import digits

Batches = list[tuple[Tensor, Tensor]]
_EPOCHS, _BATCH, _TINY = 15, 64, 2
_TRAIN, _TEST = 800, 397
_BATCHES = 300


class Block(nn.Module):
    """A residual block with two convolutions, post-activation."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        """Use a projection where shapes change."""
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        same = stride == 1 and width_in == width_out
        self.skip = nn.Identity() if same else nn.Conv2d(width_in, width_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the skip."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.skip(x))


class DigitNet(nn.Module):
    """A ResNet for 8x8 digits; its stem has the bias that people forget to switch off."""

    def __init__(self, width: int = 16) -> None:
        """Build a stem and three blocks."""
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores `(n, 10)` of images `(n, 1, 8, 8)`."""
        return self.head(self.blocks(functional.relu(self.norm(self.stem(x)))).mean((2, 3)))


@dataclass(frozen=True)
class Situation:
    """One thing that happens to people: its story, the audit, what was applied, accuracy before and after."""

    name: str
    story: str
    report: Report
    applied: list[str]
    before: float
    after: float


def run_demo(*, seed: int = 0, tell: Callable[[str], None] = lambda _: None) -> list[Situation]:
    """Train, break, audit and repair; the random state of the caller is left as it was."""
    with preserved_random_state():
        torch.manual_seed(seed)
        images, labels = digits(seed=seed)
        images = (images - 0.305) / 0.376
        tell("training a small ResNet on 800 digits")
        model = DigitNet()
        _train(model, _batches(images[:_TRAIN], labels[:_TRAIN], _BATCH), epochs=_EPOCHS, rate=3e-3)
        test, test_labels = images[-_TEST:], labels[-_TEST:]
        yours, yours_labels = images[_TRAIN:-_TEST], labels[_TRAIN:-_TEST]
        sound = accuracy(model, test, test_labels)
        tell(f"test accuracy {sound:.1%}; fine-tuning it in batches of {_TINY}, class after class")
        order = yours_labels.argsort(stable=True)
        tiny = _batches(yours[order], yours_labels[order], _TINY)
        _freeze_half(model)
        _train(model, tiny, epochs=1, rate=1e-4)
        data = [tiny[i] for i in torch.randperm(len(tiny))[:_BATCHES].tolist()]
        first = _situation(
            "fine-tune on tiny batches",
            f"The trained model ({sound:.1%}) was fine-tuned on {len(yours)} new digits in batches of {_TINY}, sorted by "
            "class, its norms' weights 'frozen' with requires_grad=False.",
            model,
            (test, test_labels),
            lambda: audit(model, data, max_batches=_BATCHES, progress=tell),
        )
        camera, camera_test = _camera(yours), _camera(test)
        target = _batches(camera, yours_labels, _BATCH // 2)
        known = _batches(images[:_TRAIN], labels[:_TRAIN], _BATCH)
        second = _situation(
            "a new camera",
            "The repaired model meets a camera with another gain, a veil of stray light and a softer lens.",
            model,
            (camera_test, test_labels),
            lambda: audit(model, known, target=target, progress=tell),
        )
    return [first, second]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images a model in evaluation mode gets right."""
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


def _situation(
    name: str, story: str, model: nn.Module, test: tuple[Tensor, Tensor], look: Callable[[], Report]
) -> Situation:
    before = accuracy(model, *test)
    model.train()
    report = look()
    applied = report.apply(model, unsafe=True)
    return Situation(name, story, report, applied, before, accuracy(model, *test))


def _batches(images: Tensor, labels: Tensor, size: int) -> Batches:
    return list(zip(images.split(size), labels.split(size), strict=True))


def _train(model: nn.Module, batches: Batches, *, epochs: int, rate: float) -> None:
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def _freeze_half(model: nn.Module) -> None:
    """Do what many do: freeze the norms' parameters and think that is all."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def _camera(images: Tensor) -> Tensor:
    """Soften, dim and veil."""
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return 0.45 * (0.5 * images + 0.5 * soft) + 0.9
