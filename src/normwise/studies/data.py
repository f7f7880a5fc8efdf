"""Real data that comes inside packages: nothing is downloaded."""

from __future__ import annotations

import torch
from torch import Tensor

from normwise.errors import MissingExtraError


def digits(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's 1797 handwritten digits, shuffled: images `(n, 1, 8, 8)` in [0, 1] and labels `(n,)`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "studies", "the digits data set") from error
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    x = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return x[order], torch.as_tensor(labels, dtype=torch.long)[order]
