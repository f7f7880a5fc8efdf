"""What one call of `convert` knows: the model, what was found of its layers, what is to be told and done at the end."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from normwise.errors import ModelError
from normwise.layers.batch_norm_act import BatchNormAct
from normwise.layers.graph_instance_norm import GraphInstanceNorm
from normwise.layers.policy import DEFAULT, StatisticsPolicy
from normwise.models.form import EvaluationForm, TrainingForm, evaluation_form, training_form
from normwise.models.replace import FREEZE
from normwise.models.walk import NormLayer, core
from normwise.models.wiring import Wiring, find_wiring

NOT_EXACT = "not exact: {}; running statistics are dropped, weight and bias kept; train the model on"
NEW_PARAMETERS = "some parameters are new objects; make the optimizer anew"
TAKES_IN_BETWEEN = "the running variance now takes in the variance between batches"
LEAVES_OUT_BETWEEN = "the running variance no longer takes in the variance between batches"
_ORIGIN = "_normwise_origin"  # the class, torch's or PyG's, a layer of ours was converted from


class Exchange:
    """One call of `convert`. `last`: what is done to the model once nothing can be refused any more.

    run: runs the model once, where its wiring cannot be read from its code.
    """

    def __init__(self, model: nn.Module, run: Callable[[], object] | None = None) -> None:
        """Start with nothing to tell and nothing to do."""
        self.model, self.run = model, run
        self.notes: dict[str, list[str]] = {}
        self.last: list[Callable[[], object]] = []
        self._wiring: Wiring | None = None
        self._in_training: Wiring | None = None

    def note(self, layer: NormLayer, text: str) -> None:
        """Remember what is not exact."""
        self.notes.setdefault(text, []).append(layer.name)

    def form(self, layer: NormLayer) -> EvaluationForm:
        """Return what the layer computes in evaluation, or refuse it."""
        if parametrize.is_parametrized(layer.module):
            raise refusal(layer, "is parametrized, which would be lost; remove the parametrization, or leave it out")
        if isinstance(layer.module, BatchNormAct):
            raise refusal(layer, 'fuses an activation, which would be lost; convert(model, "torch") splits it first')
        form = evaluation_form(layer)
        if form is None:
            raise refusal(
                layer,
                "does more than normalise, such as a fused activation, which would be lost; split it into a norm and "
                "the rest, or leave it out with where=",
            )
        return form

    def training(self, layer: NormLayer, form: EvaluationForm) -> TrainingForm:
        """Return how the layer trains, or refuse it."""
        per_graph = isinstance(layer.module, GraphInstanceNorm)
        training = None if per_graph else training_form(layer, form)
        if training is None or (form.batch and layer.statistics is not None):
            raise refusal(
                layer,
                "uses or updates its statistics in a way that batch normalization does not; leave it out with where=",
            )
        return training

    def check_policy(self, layer: NormLayer, policy: StatisticsPolicy) -> None:
        """Refuse a freeze that torch's layers cannot hold, or note what becomes of fixed statistics in them."""
        if policy == DEFAULT:
            return
        if FREEZE in vars(core(layer.module)):
            raise ModelError(
                f"model: layer '{layer.name}' is frozen in a way torch's layers cannot be; call "
                "normwise.unfreeze(model), convert, and freeze again"
            )
        self.note(layer, "the statistics were fixed and train() now uses and updates them; call normwise.freeze")

    def note_local(self, layer: NormLayer) -> None:
        """Note that what was synchronised is not any more."""
        if isinstance(layer.module, nn.SyncBatchNorm):
            self.note(layer, "batch statistics are no longer synchronised between processes")

    @property
    def wiring(self) -> Wiring:
        """Who feeds whom, from a symbolic trace or a run; empty where the model's Python code allows no trace."""
        if self._wiring is None:
            self._wiring = find_wiring(self.model, self.run)
        return self._wiring

    def follower(self, name: str) -> str | None:
        """Return the module that alone reads a norm's output, in evaluation and in training, and nothing else."""
        follower = self.wiring.followers.get(name)
        if follower is not None and self._in_training is None:
            self._in_training = find_wiring(self.model, self.run, training=True)
        same = self._in_training is not None and self._in_training.followers.get(name) == follower
        return follower if same else None

    def wired_rank(self, name: str) -> int | None:
        """Return the number of dimensions of a norm's input that the convolution in front of it proves."""
        producer = self.wiring[name].producer
        module = None if producer is None else self.model.get_submodule(producer)
        return module.weight.ndim if isinstance(module, _ConvNd) else None


def refusal(layer: NormLayer, reason: str) -> ModelError:
    """Return the error for a layer that cannot be converted."""
    return ModelError(f"model: layer '{layer.name}' ({type(layer.module).__name__}) {reason}")


def origin(module: nn.Module) -> type[nn.Module] | None:
    """Return the class, torch's or PyG's, that a layer of ours was converted from; None for one built as it is."""
    return vars(module).get(_ORIGIN)


def remember(module: nn.Module, kind: type[nn.Module] | None) -> None:
    """Remember the class that a layer of ours was converted from."""
    if kind is not None:
        vars(module)[_ORIGIN] = kind
