"""Residual nets of one block repeated, and the gradient's growth through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Mix = Callable[[Tensor, Tensor], Tensor]  # what weights do to activations: a product, or a convolution
SIDE = 8  # pixels
_CLASSES = 10


def _norm(x: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, training=True)


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply `(n, c)` by `(c, c)`."""
    return x @ weight


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve `(n, c, h, w)` on a torus, where every position has as many neighbours."""
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), weight)


BLOCKS: dict[str, Callable[[Tensor, Mix, Tensor], Tensor]] = {
    "pre": lambda x, mix, w: x + mix(torch.relu(_norm(x)), w),
    "post": lambda x, mix, w: _norm(x + mix(torch.relu(x), w)),
    "no skip": lambda x, mix, w: torch.relu(_norm(mix(x, w))),
    "no BN": lambda x, mix, w: x + mix(torch.relu(x), w),
    "neither": lambda x, mix, w: torch.relu(mix(x, w)),
    "post, by second moment": lambda x, mix, w: (y := x + mix(torch.relu(x), w)) / y.square().mean().sqrt(),
}


@dataclass(frozen=True)
class Form:
    """The form of a block's weights: what they do, their shape, how many inputs an output has, one sample's shape."""

    mix: Mix
    weight: tuple[int, ...]
    fan_in: int
    sample: tuple[int, ...]


def dense_form(width: int) -> Form:
    """Return the form of dense blocks."""
    return Form(dense, (width, width), width, (width,))


def convolutional_form(channels: int) -> Form:
    """Return the form of 3x3 convolutional blocks."""
    return Form(convolve, (channels, channels, 3, 3), 9 * channels, (channels, SIDE, SIDE))


def draw(shape: Sequence[int], fan_in: int, generator: torch.Generator) -> Tensor:
    """Draw weights of variance 1 over the number of inputs."""
    return torch.randn(*shape, generator=generator) / math.sqrt(fan_in)


def factors(kind: str, mix: Mix, weights: Sequence[Tensor], x: Tensor, pull: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Return, block by block, the squared norm of the gradient at its input over that at its output.

    `pull` makes of the last output the scalar whose gradient is followed.
    """
    ends = []
    x = x.requires_grad_()
    for weight in weights:
        y = BLOCKS[kind](x, mix, weight)
        ends.append((x, y))
        x = y
    stages = [stage for pair in ends for stage in pair]
    squared = [float(g.double().square().sum()) for g in torch.autograd.grad(pull(x), stages)]
    return np.array([at_input / at_output for at_input, at_output in zip(squared[::2], squared[1::2], strict=True)])


def random_factors(kind: str, *, form: Form, samples: int, depth: int, seed: int, alone: bool = False) -> np.ndarray:
    """Return the factors of one draw of a net, of Gaussian inputs and of a gradient that knows nothing of it.

    With `alone`, every block has Gaussian input and gradient of its own, as if nothing came before or after it.
    """
    generator = torch.Generator().manual_seed(seed)

    def gaussian() -> Tensor:
        return torch.randn(samples, *form.sample, generator=generator)

    def run(weights: Sequence[Tensor]) -> np.ndarray:
        gradient = gaussian()
        return factors(kind, form.mix, weights, gaussian(), lambda y: (y * gradient).sum())

    weights = [draw(form.weight, form.fan_in, generator) for _ in range(depth)]
    return np.concatenate([run([weight]) for weight in weights]) if alone else run(weights)


def digit_factors(
    kind: str, *, form: Form, depth: int, seed: int, data: tuple[Tensor, Tensor], steps: int
) -> np.ndarray:
    """Return the factors `(2, depth)` of the loss on 256 unseen images, before and after some steps of Adam on the others."""
    images, labels = data
    seen, unseen = len(images) - 256, torch.arange(len(images) - 256, len(images))
    generator = torch.Generator().manual_seed(seed)
    convolutional = len(form.sample) > 1
    x = (images - images.mean()) / images.std()
    x, fan_in = (x, 9) if convolutional else (x.flatten(1), SIDE**2)
    stem = draw((form.sample[0], 1, 3, 3) if convolutional else (fan_in, *form.sample), fan_in, generator)
    weights = [draw(form.weight, form.fan_in, generator) for _ in range(depth)]
    head = draw((form.sample[0], _CLASSES), form.sample[0], generator)
    optimizer = torch.optim.Adam([tensor.requires_grad_() for tensor in (stem, *weights, head)], 1e-3)

    def loss(y: Tensor, batch: Tensor) -> Tensor:
        features = torch.relu(y).mean((2, 3)) if convolutional else torch.relu(y)
        return functional.cross_entropy(features @ head, labels[batch])

    def measured() -> np.ndarray:
        first = _norm(form.mix(x[unseen], stem)).detach()
        return factors(kind, form.mix, weights, first, lambda y: loss(y, unseen))

    before = measured()
    for _ in range(steps):
        batch = torch.randint(seen, (64,), generator=generator)
        y = _norm(form.mix(x[batch], stem))
        for weight in weights:
            y = BLOCKS[kind](y, form.mix, weight)
        optimizer.zero_grad()
        loss(y, batch).backward()
        optimizer.step()
    return np.array([before, measured()])
