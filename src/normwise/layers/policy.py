"""Which statistics a layer uses and whether it updates its own, in each mode, in words that survive `train()`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """Where the statistics a layer normalises with come from."""

    BATCH = "batch"
    RUNNING = "running"


@dataclass(frozen=True)
class StatisticsPolicy:
    """Which statistics are used in training and in evaluation, and whether training updates the running ones.

    The default is batch normalization as everybody knows it. `model.train()` and `model.eval()` choose between
    `training` and `evaluation`, and change neither.
    """

    training: Source = Source.BATCH
    evaluation: Source = Source.RUNNING
    update: bool = True

    @property
    def frozen(self) -> bool:
        """Whether training leaves the running statistics alone and uses them."""
        return self.training is Source.RUNNING and not self.update


DEFAULT = StatisticsPolicy()
FROZEN = StatisticsPolicy(training=Source.RUNNING, update=False)
