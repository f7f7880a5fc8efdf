"""Values of real images: digits' pixels and features, and photographs cut into patches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from normwise.errors import MissingExtraError
from normwise.studies.data import digits

_VARIED = 0.05  # variance of a pixel in [0, 1] below which nearly every digit has the same
_SIDE = 8  # pixels


def pixels() -> Tensor:
    """Return digits' pixels that vary, `(n, pixels)`."""
    values = digits()[0].flatten(1)
    return values[:, values.var(0) > _VARIED]


def features() -> Tensor:
    """Return digits after a random convolution and ReLU, `(n, channels, positions)`."""
    images, _ = digits()
    weight = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.relu(functional.conv2d(images - images.mean(), weight, padding=1)).flatten(2)


def patches() -> Tensor:
    """Return scikit-learn's two photographs, a temple and a flower, in patches `(n, colours, positions)` of 8 x 8."""
    try:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
    except ImportError as error:
        raise MissingExtraError("pillow", "studies", "photographs") from error
    cut = [functional.unfold(_planes(photograph), _SIDE, stride=_SIDE)[0].T for photograph in photographs]
    return torch.cat(cut).unflatten(1, (3, _SIDE**2))


def _planes(photograph: np.ndarray) -> Tensor:
    return torch.as_tensor(photograph.copy(), dtype=torch.float32).permute(2, 0, 1).unsqueeze(0) / 255


def excess_kurtosis(values: Tensor) -> Tensor:
    """Return that of `(n, c)` values, `(c,)`."""
    deviations = values.double() - values.double().mean(0)
    return deviations.pow(4).mean(0) / deviations.square().mean(0).square() - 3


def standardised(values: Tensor) -> Tensor:
    """Return `(n, c, l)` values with mean 0 and variance 1 of each channel over everything."""
    centred = values.double() - values.double().mean((0, 2), keepdim=True)
    return centred / centred.square().mean((0, 2), keepdim=True).sqrt()


def moments(values: Tensor) -> dict[str, list[float]]:
    """Return, by channel, moments of each image's mean and mean square: of standardised values `(n, c, l)`."""
    mean, square = values.mean(2), values.square().mean(2)
    return {
        "means": mean.square().mean(0).tolist(),
        "squares": square.var(0, unbiased=False).tolist(),
        "shared": ((square - 1) * mean.square()).mean(0).tolist(),
        "fourth": mean.pow(4).mean(0).tolist(),
    }


def correlation(values: Tensor) -> float:
    """Return the mean correlation of two positions of an image, over channels, of standardised values `(n, c, l)`."""
    size = values.shape[2]
    return float(((size * values.mean(2).square().mean(0) - 1) / (size - 1)).mean())
