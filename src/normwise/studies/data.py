"""Real data that comes inside packages: nothing is downloaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from normwise.errors import MissingDataError, MissingExtraError

TRAINED = 1300  # digits that networks learn from; the other 497 are held back


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


def packaged(file: str, *, package: str, purpose: str) -> Path:
    """Return where a file that comes inside a package lies, without importing the package.

    `file` is the path below a folder of packages (`graphdatascience/resources/cora/nodes.parquet.gzip`), looked for in
    the folder `NORMWISE_DATA` names and on the import path. Raises `MissingDataError`, which names `package`.
    """
    for folder in (os.environ.get("NORMWISE_DATA"), *sys.path):
        if folder and (path := Path(folder) / file).is_file():
            return path
    raise MissingDataError(package, purpose)
