"""Small nets that learn mixed digits, what their batch norms remember of them, and what those do to clean ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.care.recalibrate import recalibrate
from normwise.core.moments import Moments
from normwise.layers import BatchNorm
from normwise.studies.data import TRAINED

_WIDTH, BATCH = 64, 128  # channels, digits in a batch
_EPOCHS = {"tiny": 1, "quick": 5, "full": 20}
SETTLING = {"tiny": 15, "quick": 60, "full": 300}  # batches that running statistics are averaged over
WHEN = ("as trained", "recalibrated")
_TEMPERATURES = torch.logspace(-1, 0.3, 100, dtype=torch.float64)


def beta(count: int, generator: torch.Generator) -> Tensor:
    """Draw mixing weights from Beta(1, 1), which is uniform."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


def trained(images: Tensor, labels: Tensor, size: str, generator: torch.Generator) -> dict[str, Any]:
    """Train on mixed digits, and return what the batch norms remember and do to clean ones."""
    first = BatchNorm(_WIDTH)
    dense = nn.Sequential(
        nn.Flatten(), nn.Linear(64, _WIDTH), first, nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), BatchNorm(_WIDTH),
        nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), BatchNorm(_WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 10),
    )  # fmt: skip
    convolutional = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), BatchNorm(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip
    train, held = slice(0, TRAINED), slice(TRAINED, None)
    found: dict[str, Any] = {}
    for model in (dense, convolutional):
        _fit(model, images[train], labels[train], size, generator)
    features = convolutional[0](images[train]).detach().double().flatten(2)
    clean = Moments.of(features.permute(0, 2, 1).flatten(0, 1)).variance
    weights = clean / clean.sum()  # of channels, so that the prediction's share of the mean image is the mean share
    ratio = convolutional[1].get_buffer("running_var").double() / clean
    found["running, convolutional"] = float((ratio * weights).sum())
    found["share of the mean image"] = float((_share_of_mean_image(features) * weights).sum())
    dense_clean = Moments.of(dense[1](images[train].flatten(1)).detach()).variance
    found["running, dense"] = float((first.get_buffer("running_var").double() / dense_clean).mean())
    found["eps over the variance"] = (first.eps / dense_clean).tolist()
    for when in WHEN:
        if when == WHEN[1]:
            recalibrate(dense, [images[train]])
        found[f"variance, {when}"] = _outputs(dense, images[train])
        scores = _scores(dense, images[held], labels[held])
        found |= {f"{score}, {when}": value for score, value in scores.items()}
    return found


def _fit(model: nn.Module, x: Tensor, y: Tensor, size: str, generator: torch.Generator) -> None:
    """Train with Mixup, then let the running statistics settle on mixed digits with the weights at rest."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    targets = functional.one_hot(y, 10).double()
    for epoch in range(_EPOCHS[size] + 1):
        settling = epoch == _EPOCHS[size]
        if settling:
            for norm in (module for module in model.modules() if isinstance(module, BatchNorm)):
                norm.reset_running_stats()
                norm.momentum = None
        for _ in range(SETTLING[size] if settling else len(x) // BATCH):
            chosen = torch.randint(len(x), (BATCH,), generator=generator)
            other = torch.randint(len(x), (BATCH,), generator=generator)
            weight = beta(BATCH, generator).unsqueeze(1)
            image_weight = weight.float().view(-1, 1, 1, 1)
            mixed = x[chosen] + (x[other] - x[chosen]) * image_weight
            with torch.set_grad_enabled(not settling):
                loss = functional.cross_entropy(
                    model(mixed).double(), targets[chosen] + (targets[other] - targets[chosen]) * weight
                )
            if not settling:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def _share_of_mean_image(features: Tensor) -> Tensor:
    """Return, by channel, the share of the pooled variance that the mean image has over its positions: it is not mixed."""
    return features.mean(0).var(1, unbiased=False) / features.permute(1, 0, 2).flatten(1).var(1, unbiased=False)


@torch.no_grad()
def _outputs(model: nn.Sequential, x: Tensor) -> list[float]:
    """Return the variance of each norm's standardised output in evaluation, over the clean batch."""
    model.eval()
    found = []
    for layer in model:
        if isinstance(layer, BatchNorm):
            variance = Moments.of(x).variance / (layer.get_buffer("running_var").double() + layer.eps)
            found.append(float(variance.mean()))
        x = layer(x)
    model.train()
    return found


@torch.no_grad()
def _scores(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return in evaluation the accuracy, how sure the network is, its cross-entropy, and both at the best temperature.

    The temperature is what logits are divided by; below 1 the network was less sure than it could be.
    """
    logits = model.eval()(x).double()
    model.train()
    losses = torch.stack([functional.cross_entropy(logits / temperature, y) for temperature in _TEMPERATURES])
    return {
        "accuracy": float((logits.argmax(1) == y).double().mean()),
        "confidence": float(logits.softmax(1).amax(1).mean()),
        "loss": float(functional.cross_entropy(logits, y)),
        "best loss": float(losses.min()),
        "temperature": float(_TEMPERATURES[losses.argmin()]),
    }
