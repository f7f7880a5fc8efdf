"""`Task`: how to run a model on a batch, and what its output is worth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from normwise.errors import DataError, ModelError, NormwiseError
from normwise.layers.info import BatchInfo
from normwise.models.batch import describe, tensors_in, to_device
from normwise.models.walk import device_of

_LABELS = ("labels", "label")
_PREDICTIONS = ("logits", "out", "output", "prediction", "predictions")
_PAIR = 2
_VOID = 255  # the label of pixels that do not count, in many segmentation sets


@dataclass(frozen=True)
class Task:
    """How to run this model on a batch.

    forward: `(model, batch) -> output`. loss: `(output, batch) -> (n,)` loss of each sample.
    info: `batch -> BatchInfo`. time_axis: axis of time in the inputs, None to infer.

    Defaults: a tensor is the input; `(inputs, labels)`, the inputs possibly a tuple or a dict of several; a dict is
    passed by name, its labels kept for the loss unless the model takes them. Integer labels give cross-entropy,
    floating ones squared error.
    """

    forward: Callable[[nn.Module, Any], Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    info: Callable[[Any], BatchInfo] | None = None
    time_axis: int | None = None

    def run(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on a batch; raise `DataError` in one line if the two do not fit."""
        batch = to_device(batch, device_of(model), copy=True)  # a model may work on its input in place
        try:
            with self.info(batch) if self.info is not None else BatchInfo.current():
                if self.forward is not None:
                    return self.forward(model, batch)
                inputs, _ = split_batch(model, batch)
                if isinstance(inputs, Mapping):
                    return model(**inputs)
                return model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        except NormwiseError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(
                f"data: {type(model).__name__} does not run on a batch of {describe(batch)} ({type(error).__name__}: "
                f"{reason}); pass batches the model takes, or a Task with a forward of your own"
            ) from error

    def labels(self, model: nn.Module, batch: Any) -> Tensor | None:
        """Return the labels of a batch on the model's device, or None."""
        if isinstance(batch, Mapping):
            found = next((batch[key] for key in _LABELS if isinstance(batch.get(key), Tensor)), None)
        elif isinstance(batch, (Tensor, tuple, list)):
            found = split_batch(model, batch)[1]
        else:
            found = next((getattr(batch, name) for name in _LABELS if hasattr(batch, name)), None)
        return found.to(device_of(model)) if isinstance(found, Tensor) else None

    def losses(self, model: nn.Module, output: Any, batch: Any) -> Tensor | None:
        """Return the loss of each sample, `(n,)`, differentiable, or None where nothing is known of labels."""
        if self.loss is not None:
            return self.loss(output, to_device(batch, device_of(model)))
        labels = self.labels(model, batch)
        return None if labels is None else default_loss(prediction(output), labels)

    def correct(self, model: nn.Module, output: Any, batch: Any) -> Tensor | None:
        """Return for each sample the share of its labels predicted right, `(n,)`, or None for no class labels."""
        labels = self.labels(model, batch)
        if labels is None or labels.is_floating_point() or labels.dtype == torch.bool:
            return None
        scores, labels = classes_last(prediction(output), labels)
        if scores is None:
            return None
        right = (scores.argmax(-1) == labels) & ~scores.isnan().any(-1)
        return mean_of_known(right.double(), labels >= 0)


def prediction(output: Any) -> Tensor:
    """Return the tensor a model predicts with: itself, a field called logits or the like, or the first floating one."""
    if isinstance(output, Tensor):
        return output
    named = (
        output if isinstance(output, Mapping) else {n: getattr(output, n) for n in _PREDICTIONS if hasattr(output, n)}
    )
    for name in _PREDICTIONS:
        if isinstance(named.get(name), Tensor):
            return named[name]
    for tensor in tensors_in(output):
        if tensor.is_floating_point():
            return tensor
    raise ModelError(
        f"model: expected an output with a floating tensor, got {type(output).__name__}; pass a Task with a forward "
        "that returns one"
    )


def split_batch(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Return (inputs, labels or None) of a batch: a tensor, a tuple for several positional ones, or a dict of named ones."""
    if isinstance(batch, Tensor):
        return batch, None
    names, required = _signature(model)
    if isinstance(batch, Mapping):
        keys = [key for key in _LABELS if key in batch and key not in names]
        known = {k: v for k, v in batch.items() if k in names or (k not in keys and any(True for _ in tensors_in(v)))}
        return known, next((batch[key] for key in keys), None)
    if not isinstance(batch, (tuple, list)) or not len(batch):
        raise DataError(
            f"data: a batch must be a tensor, (inputs, labels) or a dict, got {type(batch).__name__}; pass a Task"
        )
    if len(batch) == 1:
        return batch[0], None
    if len(batch) == _PAIR and not (required == _PAIR and isinstance(batch[0], Tensor)):
        inputs, labels = batch
        return (tuple(inputs) if isinstance(inputs, list) else inputs), labels
    return (tuple(batch), None) if required == len(batch) else (tuple(batch[:-1]), batch[-1])


def _signature(model: nn.Module) -> tuple[set[str], int]:
    """Return the names of forward's arguments, and how many positional ones it needs."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty]
    return {p.name for p in parameters}, len(needed)


def classes_last(scores: Tensor, labels: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return scores as `(*labels, classes)`; None if they hold no class axis that fits the labels.

    Labels below 0 are unknown, as are 255 where there are not so many classes. A single logit for labels 0 and 1 is
    the second of two classes, the first one's logit being 0.
    """
    if scores.numel() == labels.numel() and 0 <= int(labels.min()) and int(labels.max()) <= 1:
        logit = scores.reshape(labels.shape)
        return torch.stack([torch.zeros_like(logit), logit], -1), labels
    if labels.ndim > 1 and labels.shape[-1] == 1 and scores.ndim == labels.ndim:
        labels = labels.squeeze(-1)
    if scores.ndim != labels.ndim + 1:
        return None, labels
    if scores.shape[:1] + scores.shape[2:] == labels.shape:
        scores = scores.movedim(1, -1)
    labels = torch.where((labels == _VOID) & (scores.shape[-1] <= _VOID), -1, labels)
    fits = scores.shape[:-1] == labels.shape and (not labels.numel() or int(labels.max()) < scores.shape[-1])
    return (scores if fits else None), labels


def default_loss(scores: Tensor, labels: Tensor) -> Tensor | None:
    """Return cross-entropy (integer labels, unknown ones left out) or squared error by sample; None if shapes misfit."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if labels.is_floating_point():
        if labels.numel() != scores.numel():
            return None
        return (scores.reshape(len(labels), -1) - labels.reshape(len(labels), -1)).square().mean(1)
    by_class, labels = classes_last(scores, labels.long())
    if by_class is None:
        return None
    known = labels >= 0
    loss = functional.cross_entropy(by_class.flatten(0, -2), labels.clamp_min(0).flatten(), reduction="none")
    return mean_of_known(loss.view(labels.shape), known)


def mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Return each sample's mean over its known labels; samples without one are left out."""
    values, known = values.reshape(len(values), -1), known.reshape(len(known), -1)
    count = known.sum(1)
    return ((values * known).sum(1) / count.clamp_min(1))[count > 0]
