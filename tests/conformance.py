"""What every normalization layer must do: a layer registers one `LayerCase` and inherits `LayerConformance`.

class TestMyNorm(LayerConformance):
    case = LayerCase(create=MyNorm, oracle=my_oracle_in_loops)

A layer with side information also gives `side` (from the input), `trivial_side` (the one that makes it plain batch
normalization) and `groups` (the group of each value, -1 where it belongs to none). Whatever parameters and buffers a
layer has, the suite reads, randomises and compares them all.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import itertools
import pickle
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from normwise.core.kernels import use_backend
from normwise.errors import ShapeError
from normwise.layers import Source, StatisticsPolicy

BACKENDS = ("native", "reference", "cpu")
EPS = 1e-5
Side = tuple[Tensor | int, ...]  # by sample, or a number of groups
State = dict[str, np.ndarray]  # float64
TWINS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
hypothesis_settings = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def no_side(x: Tensor) -> Side:
    """The layer takes x alone."""
    return ()


def one_group(x: Tensor, side: Side) -> Tensor:
    """All values of a channel are one group; shape `(n, 1, *)`."""
    return torch.zeros_like(x[:, :1], dtype=torch.long)


@dataclass(frozen=True)
class Refusal:
    """An input a layer of three channels must refuse in training, and words of the message.

    side: the side information, if not the case's own.
    """

    message: str
    shape: tuple[int, ...] = (4, 3, 2)
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    side: Callable[[Tensor], Side] | None = None


BAD_INPUT = (
    Refusal("3 channels", (4, 5, 2)),
    Refusal("must be", (3,)),
    Refusal("floating dtype", dtype=torch.int64),
    Refusal("dtype", dtype=torch.float32),
    Refusal("device", device="meta"),
)
TOO_FEW_VALUES = tuple(Refusal("more than 1 value per channel", shape) for shape in ((1, 3), (1, 3, 1, 1), (0, 3, 4)))


@dataclass(frozen=True)
class LayerCase:
    """How to make a layer and what it must compute.

    create(channels, *, momentum, dtype): the layer; without `running` (running statistics), momentum is not passed.
    oracle(x, side, state, momentum): the output and the floating buffers after one training step, in plain float64
    loops; `state` holds all parameters and buffers before it, `momentum` is a number or, for a layer that counts
    batches by group, with momentum None, one number a group. A counter of which it says nothing is expected to rise by
    one. evaluate(x, side, state): the output in evaluation mode.

    trivial(channels, ...), trivial_side(x), trivial_shapes: the layer, the side information and the inputs that make it
    plain batch normalization, tables reshaped; `trivial_side` None where nothing does. offset_shape: the shape of many
    values for it. groups_are_centred: whether input gradients sum to zero over each group. exchangeable: whether
    permuting samples permutes the output. twin: whether the state dict is torch's.
    """

    create: Callable[..., nn.Module]
    oracle: Callable[[np.ndarray, Side, State, float | np.ndarray], tuple[np.ndarray, State]]
    evaluate: Callable[[np.ndarray, Side, State], np.ndarray] | None = None
    shapes: tuple[tuple[int, ...], ...] = ((7, 3), (4, 3, 5), (3, 2, 3, 4), (2, 2, 2, 3, 2))
    side: Callable[[Tensor], Side] = no_side
    groups: Callable[[Tensor, Side], Tensor] = one_group
    trivial: Callable[..., nn.Module] | None = None
    trivial_side: Callable[[Tensor], Side] | None = no_side
    trivial_shapes: tuple[tuple[int, ...], ...] | None = None
    offset_shape: tuple[int, ...] = (64, 4, 50)
    refusals: tuple[Refusal, ...] = BAD_INPUT + TOO_FEW_VALUES
    running: bool = True
    groups_are_centred: bool = True
    exchangeable: bool = True
    twin: bool = True

    def variant(self, **changes: Any) -> LayerCase:
        """The same case but for some of it."""
        return replace(self, **changes)


def randomise(layer: nn.Module) -> nn.Module:
    """Give every table a value that could not be there by default."""
    with torch.no_grad():
        for name, table in (*layer.named_parameters(), *layer.named_buffers()):
            if not table.is_floating_point():
                table.random_(1, 9)
            elif name.endswith(("weight", "scale")):
                table.uniform_(0.5, 1.5)
            elif name.endswith("var"):
                table.uniform_(0.5, 2.0)
            else:
                table.normal_()
    return layer


def state_of(layer: nn.Module) -> State:
    """Read all parameters and buffers of a layer."""
    named = (*layer.named_parameters(), *layer.named_buffers())
    return {name: table.detach().double().numpy().copy() for name, table in named}


def buffers(layer: nn.Module) -> dict[str, Tensor]:
    """Copy a layer's buffers."""
    return {name: value.clone() for name, value in layer.named_buffers()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of buffers are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def forward_fresh(layer: nn.Module, side: Side, x: Tensor, *parameters: Tensor) -> Tensor:
    """Run a copy of the layer, so that one call's buffers are not the next one's."""
    names = [name for name, _ in layer.named_parameters()]
    return functional_call(copy.deepcopy(layer), dict(zip(names, parameters, strict=True)), (x, *side))


def leaves_of(layer: nn.Module) -> list[Tensor]:
    """Copy a layer's parameters, to differentiate by."""
    return [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]


@contextmanager
def shapes_unchecked():
    """As in a user's program: no test instrument looks at annotations, so that the package's own checks speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@contextmanager
def dataclasses_as_written():
    """Take the test instrument off the methods of dataclasses: `torch.compile` cannot trace it on objects it makes."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("normwise.core", "normwise.layers"))]
    classes = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    with pytest.MonkeyPatch.context() as patch:
        for kind in filter(dataclasses.is_dataclass, classes):
            for name, member in list(vars(kind).items()):
                if isinstance(member, property):
                    patch.setattr(kind, name, property(inspect.unwrap(member.fget)))
                elif inspect.isfunction(member):
                    patch.setattr(kind, name, inspect.unwrap(member))
        yield


near = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)


def root_mean_square(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


def only_if(applies: Callable[[LayerCase], bool]) -> Callable[[Any], Any]:
    """Leave a test out of the suites of layers it says nothing about."""

    def mark(test: Any) -> Any:
        test.applies = applies
        return test

    return mark


class LayerConformance:
    """The suite; `case` is all a subclass sets."""

    case: LayerCase

    def __init_subclass__(cls) -> None:
        for name, test in vars(LayerConformance).items():
            if hasattr(test, "applies") and not test.applies(cls.case):
                setattr(cls, name, None)

    @pytest.fixture(autouse=True, params=BACKENDS)
    def backend(self, request):
        with use_backend(request.param):
            yield request.param

    def make(
        self,
        channels: int,
        *,
        dtype: torch.dtype = torch.float64,
        momentum: float | None = 0.1,
        create: Callable[..., nn.Module] | None = None,
    ) -> nn.Module:
        options = {"momentum": momentum} if self.case.running else {}
        return randomise((create or self.case.create)(channels, dtype=dtype, **options))

    def inputs(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Side]:
        x = torch.randn(shape, dtype=dtype) * 2 + 0.5
        return x, self.case.side(x)

    # --- the mathematics

    def test_output_and_buffers_equal_the_loop_oracle(self):
        for momentum, shape in itertools.product((0.1, 1.0, None) if self.case.running else (0.1,), self.case.shapes):
            layer = self.make(shape[1], momentum=momentum)
            for _ in range(3):
                (x, side), before = self.inputs(shape), state_of(layer)
                counter = before.get("num_batches_tracked")
                weight_of_batch = 1 / (counter + 1) if momentum is None else momentum
                y, expected = self.case.oracle(x.numpy(), side, before, weight_of_batch)
                near(layer(x, *side).detach().numpy(), y)
                expected = expected if counter is None else {"num_batches_tracked": counter + 1, **expected}
                after = {name: buffer.double().numpy() for name, buffer in layer.named_buffers()}
                assert after.keys() == expected.keys()
                for name in expected:
                    near(after[name], expected[name])

    @only_if(lambda case: case.evaluate is not None)
    def test_evaluation_equals_the_loop_oracle(self):
        for shape in self.case.shapes:
            layer, (x, side) = self.make(shape[1]).eval(), self.inputs(shape)
            before = state_of(layer)
            near(layer(x, *side).detach().numpy(), self.case.evaluate(x.numpy(), side, before))
            for name, table in state_of(layer).items():
                assert np.array_equal(table, before[name])

    @pytest.mark.parametrize("training", [True, False])
    def test_first_and_second_derivatives(self, training):
        for shape in self.case.shapes:
            layer = self.make(shape[1]).train(training)
            x, side = self.inputs(shape)
            run, leaves = partial(forward_fresh, layer, side), (x.requires_grad_(), *leaves_of(layer))
            assert gradcheck(run, leaves, fast_mode=True)
            assert gradgradcheck(run, leaves, fast_mode=True)

    def test_gradient_equals_finite_differences_of_the_oracle(self):
        shape = self.case.shapes[0]
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        before, upstream, step = state_of(layer), torch.randn(shape, dtype=torch.float64).numpy(), 1e-6
        layer(x.requires_grad_(), *side).backward(torch.from_numpy(upstream))
        values = x.detach().numpy()
        for place in np.ndindex(*shape):
            ends = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * step
                ends.append((self.case.oracle(moved, side, before, 0.1)[0] * upstream).sum())
            assert x.grad[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)

    @only_if(lambda case: case.groups_are_centred)
    def test_input_gradients_of_each_group_sum_to_zero(self):
        for shape in self.case.shapes:
            x, side = self.inputs(shape)
            x.requires_grad_()
            self.make(shape[1])(x, *side).backward(torch.randn(shape, dtype=torch.float64))
            groups = self.case.groups(x, side).expand_as(x)
            for group in groups.unique():
                total = torch.where(groups == group, x.grad, 0.0).transpose(0, 1).flatten(1)
                bound = x.grad.abs() if group < 0 else total.abs().sum(1).max() * 1e-10 + 1e-12
                assert (total.sum(1).abs() <= (0 if group < 0 else bound)).all()

    @only_if(lambda case: case.trivial_side is not None)
    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
    def test_trivial_grouping_equals_torch_over_training(self, momentum, dtype, tolerance):
        def compare(ours: Tensor, theirs: Tensor):
            torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=tolerance, atol=tolerance)

        for shape in self.case.trivial_shapes or self.case.shapes:
            ours = self.make(shape[1], dtype=dtype, momentum=momentum, create=self.case.trivial)
            twin = TWINS[len(shape)](shape[1], momentum=momentum, dtype=dtype, track_running_stats=self.case.running)
            known = ours.state_dict()
            twin.load_state_dict({name: known[name].reshape(table.shape) for name, table in twin.state_dict().items()})
            for _ in range(4):
                x, upstream = self.inputs(shape, dtype)[0], torch.randn(shape, dtype=dtype)
                a, b = (x.clone().requires_grad_() for _ in range(2))
                y, expected = ours(a, *self.case.trivial_side(a)), twin(b)
                y.backward(upstream)
                expected.backward(upstream)
                compare(y, expected)
                compare(a.grad, b.grad)
                for name, parameter in twin.named_parameters():
                    compare(ours.get_parameter(name).grad, parameter.grad)
                for layer in (ours, twin):
                    with torch.no_grad():
                        layer.weight -= 0.1 * layer.weight.grad
                        layer.bias -= 0.1 * layer.bias.grad
                    layer.zero_grad()
                for name, buffer in twin.named_buffers():
                    compare(ours.get_buffer(name), buffer)
            compare(ours.eval()(x, *self.case.trivial_side(x)), twin.eval()(x))

    # --- properties

    @only_if(lambda case: case.exchangeable)
    @hypothesis_settings
    @given(data=st.data())
    def test_permuting_samples_permutes_the_output(self, data):
        shape = data.draw(st.sampled_from(self.case.shapes))
        order = torch.tensor(data.draw(st.permutations(range(shape[0]))))
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        other = copy.deepcopy(layer)
        y, permuted = (
            layer(x, *side),
            other(x[order], *(part[order] if isinstance(part, Tensor) else part for part in side)),
        )
        torch.testing.assert_close(permuted, y[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(buffers(other), buffers(layer))

    @hypothesis_settings
    @given(filler=st.sampled_from([float("nan"), float("inf"), -1e30, 0.0]))
    def test_values_outside_all_groups_do_not_matter(self, filler):
        for shape in self.case.shapes:
            layer, (x, side) = self.make(shape[1]), self.inputs(shape)
            outside = (self.case.groups(x, side) < 0).expand_as(x)
            other, spoiled = copy.deepcopy(layer), x.masked_fill(outside, filler).requires_grad_()
            y, z = layer(x.requires_grad_(), *side), other(spoiled, *side)
            upstream = torch.randn_like(y)
            for create_graph in (False, True):
                a, b = (torch.autograd.grad(out, leaf, upstream, retain_graph=True, create_graph=create_graph)[0]
                        for out, leaf in ((y, x), (z, spoiled)))  # fmt: skip
                assert torch.equal(a, b)
            assert torch.equal(y, z)
            assert (y[outside] == 0).all()
            assert same(buffers(layer), buffers(other))

    # --- degenerate and hostile input

    @pytest.mark.parametrize("channels", [slice(0, 1), slice(None)])
    def test_constant_channels_give_the_oracle_and_a_finite_gradient(self, channels):
        for shape in self.case.shapes:
            layer, (x, side) = self.make(shape[1]), self.inputs(shape)
            x[:, channels] = 3.0
            expected, _ = self.case.oracle(x.numpy(), side, state_of(layer), 0.1)
            y = layer(x.requires_grad_(), *side)
            y.backward(torch.randn_like(y))
            np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
            assert x.grad.isfinite().all()

    def test_refusals_precede_every_change(self):
        for bad in self.case.refusals:
            layer = self.make(3)
            before, x = buffers(layer), torch.ones(bad.shape, dtype=bad.dtype)
            side = (bad.side or self.case.side)(x)
            with shapes_unchecked(), pytest.raises(ShapeError, match=bad.message):
                layer(x.to(bad.device), *side)
            assert same(before, buffers(layer)), bad

    def test_evaluation_takes_one_sample_and_none(self):
        for samples, shape in itertools.product((1, 0), self.case.shapes):
            layer, (x, side) = self.make(shape[1]).eval(), self.inputs((samples, *shape[1:]))
            before = buffers(layer)
            assert layer(x, *side).shape == x.shape
            assert same(before, buffers(layer))

    # --- precision

    @only_if(lambda case: case.trivial_side is not None)
    def test_a_large_offset_costs_no_more_than_in_torch(self):
        """Errors against float64 on the same float32 input, over many values so that the comparison is not luck."""
        x, upstream = torch.randn(self.case.offset_shape) + 1e6, torch.randn(self.case.offset_shape)
        side, twin_class = self.case.trivial_side(x), TWINS[x.ndim]
        exact, ours = twin_class(4, dtype=torch.float64), (self.case.trivial or self.case.create)(4)
        errors = []
        for layer, values in ((exact, x.double()), (twin_class(4), x), (ours, x)):
            leaf = values.clone().requires_grad_()
            y = layer(leaf, *side) if layer is ours else layer(leaf)
            y.backward(upstream.to(y.dtype))
            results = [y.detach(), leaf.grad, *([layer.running_var] if self.case.running else [])]
            if layer is exact:
                expected = results
            else:
                errors.append([root_mean_square(a.double() - b) for a, b in zip(results, expected, strict=True)])
        rounding = [2**-24 * 1e6, 2**-24, 2**-24]  # of y: x * scale + shift at a magnitude of 1e6; else one float32's
        for theirs, mine, floor in zip(*errors, rounding):
            assert mine <= max(theirs, floor)

    @pytest.mark.parametrize("whole", [True, False])
    def test_bfloat16(self, whole):
        shape = self.case.shapes[1]
        x, side = self.inputs(shape, torch.bfloat16)
        layer = self.make(shape[1], dtype=torch.bfloat16 if whole else torch.float32)
        y, tables = self.case.oracle(x.double().numpy(), side, state_of(layer), 0.1)
        leaf = x.requires_grad_()
        result = layer(leaf, *side)
        result.float().square().sum().backward()
        assert result.dtype == leaf.grad.dtype == torch.bfloat16
        half_ulp = 2**-8  # bfloat16 keeps 8 bits; a few roundings in a layer that is bfloat16 throughout
        tolerance = (4 if whole else 1.01) * half_ulp
        np.testing.assert_allclose(result.detach().double().numpy(), y, rtol=tolerance, atol=tolerance)
        tolerance = 2 * half_ulp if whole else 1e-5
        for name, table in tables.items():
            np.testing.assert_allclose(layer.get_buffer(name).double().numpy(), table, rtol=tolerance, atol=tolerance)

    # --- life in a program

    @only_if(lambda case: case.twin)
    @pytest.mark.parametrize("twin_class", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
    def test_state_dict_goes_both_ways(self, twin_class):
        ours, twin = self.make(3), twin_class(3, dtype=torch.float64)
        assert list(ours.state_dict()) == list(twin.state_dict())
        twin.load_state_dict(ours.state_dict())
        fresh = self.case.create(3, dtype=torch.float64)
        fresh.load_state_dict(twin.state_dict())
        assert same(dict(fresh.state_dict()), dict(ours.state_dict()))

    def test_its_own_state_dict_restores_it(self):
        shape = self.case.shapes[0]
        layer, fresh, (x, side) = self.make(shape[1]).eval(), self.make(shape[1]).eval(), self.inputs(shape)
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(x, *side), layer(x, *side))

    @only_if(lambda case: case.running)
    def test_checkpoints_from_before_the_counter_load(self):
        layer = self.make(3)
        current = layer.state_dict()
        plain = {name: value for name, value in current.items() if name != "num_batches_tracked"}
        self.case.create(3, dtype=torch.float64).load_state_dict(plain)
        del current["num_batches_tracked"]  # of today's version, as its metadata says: torch reports it too
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            layer.load_state_dict(current)

    def test_pickle_deepcopy_and_torch_save(self):
        layer = self.make(self.case.shapes[0][1])
        if self.case.running:
            layer.policy = StatisticsPolicy(evaluation=Source.BATCH)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        copies = [pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), torch.load(file, weights_only=False)]
        x, side = self.inputs(self.case.shapes[0])
        expected = layer(x, *side)
        for other in copies:
            assert not self.case.running or other.policy == layer.policy
            assert torch.equal(other(x, *side), expected)
            assert same(buffers(other), buffers(layer))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("backend", ["native"], indirect=True)  # a traced layer knows no other
    @pytest.mark.parametrize("training", [True, False])
    def test_compiles(self, training):
        torch._dynamo.reset()
        layer, (x, side) = self.make(self.case.shapes[1][1]).train(training), self.inputs(self.case.shapes[1])
        other = copy.deepcopy(layer)
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        with shapes_unchecked(), dataclasses_as_written():
            y, z = layer(a, *side), compiled(b, *side)
        y.square().sum().backward()
        z.square().sum().backward()
        torch.testing.assert_close(z, y)
        torch.testing.assert_close(b.grad, a.grad)
        for theirs, ours in zip(layer.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(buffers(other), buffers(layer))

    @only_if(lambda case: case.running)
    @pytest.mark.parametrize("training", list(Source))
    @pytest.mark.parametrize("evaluation", list(Source))
    @pytest.mark.parametrize("update", [True, False])
    def test_the_policy_holds_through_train_and_eval(self, training, evaluation, update):
        shape = self.case.shapes[1]
        layer = self.make(shape[1])
        layer.policy = StatisticsPolicy(training=training, evaluation=evaluation, update=update)
        for mode in (True, False, True):
            layer.train(mode)
            (x, side), before = self.inputs(shape), buffers(layer)
            references = {}
            for source in Source:  # the same tables in a layer that leaves no choice
                plain = copy.deepcopy(layer)
                plain.policy = StatisticsPolicy()
                references[source] = plain.train(source is Source.BATCH)(x, *side)
            y = layer(x.requires_grad_(), *side)
            assert torch.equal(y, references[training if mode else evaluation])
            assert same(before, buffers(layer)) == (not (mode and update))
            loss = y.square().sum()  # statistics may have been updated since: gradients are of those that were used
            simple, differentiable = (
                torch.autograd.grad(loss, x, retain_graph=True, create_graph=c)[0] for c in (0, 1)
            )
            torch.testing.assert_close(differentiable, simple)
