"""How good drawn digits are: what a classifier of real ones says of them, beside real ones that nobody learnt from.

A distance between samples is that of their distributions and more, the fewer the samples: of 500 real digits from 500
others it is not 0. So all sets, drawn or real, are held against the same reference, the digits held back, and are as
many as these; the score of real digits that were learnt from says what is left when nothing is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.errors import NormwiseError
from normwise.layers import BatchNorm
from normwise.studies.data import TRAINED

CLASSES = 10
_FEATURES, _BATCH = 32, 64
_COVERED = 0.2  # of its fair share of samples, above which a class counts as covered


@dataclass(frozen=True)
class DigitScores:
    """A classifier of digits, and those that neither it nor a generator learns from. Images are `(n, 1, 8, 8)` in [0, 1]."""

    body: nn.Module
    head: nn.Module
    held: Tensor

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what the classifier sees last, `(n, 32)`."""
        return self.body(images).double()

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Return the class of each image, `(n,)`."""
        return self.head(self.body(images)).argmax(1)

    def shares(self, images: Tensor) -> Tensor:
        """Return the share of each class, `(10,)`."""
        return torch.bincount(self.classes(images), minlength=CLASSES).double() / len(images)

    def distance(self, images: Tensor) -> float:
        """Return the Frechet distance of features to those of the digits held back; `images` are as many as these."""
        if len(images) != len(self.held):
            raise NormwiseError(
                f"images must be as many as the {len(self.held)} held back, got {len(images)}; a distance depends on it"
            )
        return frechet(self.features(images), self.features(self.held))


def train_scores(images: Tensor, labels: Tensor, *, epochs: int, generator: torch.Generator) -> DigitScores:
    """Train a small convolutional classifier on most real digits; the caller seeds torch for its initial weights."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), BatchNorm(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), BatchNorm(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(128, _FEATURES), nn.ReLU(),
    )  # fmt: skip
    head = nn.Linear(_FEATURES, CLASSES)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 3e-3)
    for _ in range(epochs * TRAINED // _BATCH):
        chosen = torch.randint(TRAINED, (_BATCH,), generator=generator)
        loss = functional.cross_entropy(head(body(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return DigitScores(body.eval(), head.eval(), images[TRAINED:])


def frechet(first: Tensor, second: Tensor) -> float:
    r"""Return the Frechet distance between Gaussians with the moments of two sets of features `(n, d)`.

    :math:`|\mu_1 - \mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2})`.

    Reference: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6.
    """
    covariances = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    means = (first.mean(0) - second.mean(0)).square().sum()
    return float(means + covariances[0].trace() + covariances[1].trace() - 2 * shared)


def covered(shares: Tensor) -> int:
    """Return how many classes have at least a fifth of their fair share."""
    return int((shares >= _COVERED / CLASSES).sum())


def diversity(images: Tensor, labels: Tensor) -> float:
    """Return the mean distance in pixels between two images of one class, over the classes."""
    distances = []
    for label in labels.unique():
        members = images[labels == label].flatten(1)
        distances.append(torch.pdist(members).mean())
    return float(torch.stack(distances).mean())
