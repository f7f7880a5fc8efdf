"""What every normalization layer must do: a layer registers one `LayerCase` and inherits `LayerConformance`.

class TestMyNorm(LayerConformance):
    case = LayerCase(create=MyNorm, oracle=my_oracle_in_loops)

A layer with side information also gives `side` (from the input), `trivial_side` (the one that makes it plain batch
normalization) and `groups` (the group of each value, -1 where it belongs to none).
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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

EPS = 1e-5
Side = tuple[Tensor, ...]
TWINS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
hypothesis_settings = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Tables:
    """A layer's parameters and buffers as float64 arrays, for an oracle."""

    weight: np.ndarray
    bias: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray


def no_side(x: Tensor) -> Side:
    """The layer takes x alone."""
    return ()


def one_group(x: Tensor, side: Side) -> Tensor:
    """All values of a channel are one group; shape `(n, 1, *)`."""
    return torch.zeros_like(x[:, :1], dtype=torch.long)


@dataclass(frozen=True)
class LayerCase:
    """How to make a layer and what it must compute.

    create(channels, *, momentum, affine, dtype): the layer. oracle(x, side, tables, momentum): output and the two
    running tables after one training step, in plain float64 loops. twin: whether the state dict is torch's.
    """

    create: Callable[..., nn.Module]
    oracle: Callable[[np.ndarray, Side, Tables, float], tuple[np.ndarray, np.ndarray, np.ndarray]]
    shapes: tuple[tuple[int, ...], ...] = ((7, 3), (4, 3, 5), (3, 2, 3, 4), (2, 2, 2, 3, 2))
    side: Callable[[Tensor], Side] = no_side
    trivial_side: Callable[[Tensor], Side] = no_side
    groups: Callable[[Tensor, Side], Tensor] = one_group
    twin: bool = True


def randomise(layer: nn.Module) -> nn.Module:
    """Give every table a value that could not be there by default."""
    with torch.no_grad():
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_()
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return layer


def tables(layer: nn.Module) -> Tables:
    """Read a layer's tables."""
    names = ("weight", "bias", "running_mean", "running_var")
    return Tables(*(getattr(layer, name).detach().double().numpy().copy() for name in names))


def buffers(layer: nn.Module) -> dict[str, Tensor]:
    """Copy a layer's buffers."""
    return {name: value.clone() for name, value in layer.named_buffers()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of buffers are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def forward_fresh(layer: nn.Module, side: Side, names: tuple[str, ...], x: Tensor, *values: Tensor) -> Tensor:
    """Run a copy of the layer, so that one call's buffers are not the next one's."""
    return functional_call(copy.deepcopy(layer), dict(zip(names, values, strict=True)), (x, *side))


@contextmanager
def shapes_unchecked():
    """As in a user's program: no test instrument looks at annotations, so that the package's own checks speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def root_mean_square(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


class LayerConformance:
    """The suite; `case` is all a subclass sets."""

    case: LayerCase

    @pytest.fixture(autouse=True, params=["native", "reference"])
    def backend(self, request):
        with use_backend(request.param):
            yield request.param

    def make(self, channels: int, *, dtype: torch.dtype = torch.float64, momentum: float | None = 0.1) -> nn.Module:
        return randomise(self.case.create(channels, dtype=dtype, momentum=momentum))

    def inputs(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Side]:
        x = torch.randn(shape, dtype=dtype) * 2 + 0.5
        return x, self.case.side(x)

    # --- the mathematics

    @pytest.mark.parametrize("momentum", [0.1, 1.0, None])
    def test_output_and_buffers_equal_the_loop_oracle(self, momentum):
        for shape in self.case.shapes:
            layer = self.make(shape[1], momentum=momentum)
            for step in range(1, 4):
                x, side = self.inputs(shape)
                weight_of_batch = 1 / step if momentum is None else momentum
                y, mean, variance = self.case.oracle(x.numpy(), side, tables(layer), weight_of_batch)
                np.testing.assert_allclose(layer(x, *side).detach().numpy(), y, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-9, atol=1e-9)
                assert int(layer.num_batches_tracked) == step

    @pytest.mark.parametrize("training", [True, False])
    def test_first_and_second_derivatives(self, training):
        for shape in self.case.shapes:
            layer = self.make(shape[1]).train(training)
            x, side = self.inputs(shape)
            run = partial(forward_fresh, layer, side, ("weight", "bias"))
            leaves = (x.requires_grad_(), *(p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias)))
            assert gradcheck(run, leaves, fast_mode=True)
            assert gradgradcheck(run, leaves, fast_mode=True)

    def test_gradient_equals_finite_differences_of_the_oracle(self):
        shape = self.case.shapes[0]
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        before, upstream, step = tables(layer), torch.randn(shape, dtype=torch.float64).numpy(), 1e-6
        layer(x.requires_grad_(), *side).backward(torch.from_numpy(upstream))
        values = x.detach().numpy()
        for place in np.ndindex(*shape):
            ends = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * step
                ends.append((self.case.oracle(moved, side, before, 0.1)[0] * upstream).sum())
            assert x.grad[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)

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

    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
    def test_trivial_grouping_equals_torch_over_training(self, momentum, dtype, tolerance):
        near = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
        for shape in self.case.shapes:
            ours = self.make(shape[1], dtype=dtype, momentum=momentum)
            twin = TWINS[len(shape)](shape[1], momentum=momentum, dtype=dtype)
            twin.load_state_dict(ours.state_dict())
            for _ in range(4):
                x, upstream = self.inputs(shape, dtype)[0], torch.randn(shape, dtype=dtype)
                a, b = (x.clone().requires_grad_() for _ in range(2))
                y, expected = ours(a, *self.case.trivial_side(a)), twin(b)
                y.backward(upstream)
                expected.backward(upstream)
                near(y, expected)
                near(a.grad, b.grad)
                for name, parameter in twin.named_parameters():
                    near(ours.get_parameter(name).grad, parameter.grad)
                for layer in (ours, twin):
                    with torch.no_grad():
                        layer.weight -= 0.1 * layer.weight.grad
                        layer.bias -= 0.1 * layer.bias.grad
                    layer.zero_grad()
                for name, buffer in twin.named_buffers():
                    near(ours.get_buffer(name), buffer)
            near(ours.eval()(x, *self.case.trivial_side(x)), twin.eval()(x))

    # --- properties

    @hypothesis_settings
    @given(data=st.data())
    def test_permuting_samples_permutes_the_output(self, data):
        shape = data.draw(st.sampled_from(self.case.shapes))
        order = torch.tensor(data.draw(st.permutations(range(shape[0]))))
        layer, (x, side) = self.make(shape[1]), self.inputs(shape)
        other = copy.deepcopy(layer)
        y, permuted = layer(x, *side), other(x[order], *(part[order] for part in side))
        torch.testing.assert_close(permuted, y[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other.running_var, layer.running_var)

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

    def test_a_constant_channel_gives_the_bias_and_a_finite_gradient(self):
        for shape in self.case.shapes:
            layer, (x, side) = self.make(shape[1]), self.inputs(shape)
            x[:, 0] = 3.0
            x.requires_grad_()
            y = layer(x, *side)
            y.backward(torch.randn_like(y))
            inside = (self.case.groups(x, side) >= 0).expand_as(x)[:, 0]
            torch.testing.assert_close(y[:, 0][inside], layer.bias[0].expand_as(y[:, 0])[inside], rtol=0, atol=1e-12)
            assert x.grad.isfinite().all()

    @pytest.mark.parametrize(
        ("shape", "dtype", "message"),
        [
            ((1, 3), torch.float64, "more than 1 value per channel"),
            ((1, 3, 1, 1), torch.float64, "more than 1 value per channel"),
            ((0, 3, 4), torch.float64, "more than 1 value per channel"),
            ((4, 5, 2), torch.float64, "3 channels"),
            ((3,), torch.float64, "must be"),
            ((4, 3, 2), torch.int64, "floating dtype"),
            ((4, 3, 2), torch.float32, "dtype"),
        ],
    )
    def test_refusals_precede_every_change(self, shape, dtype, message):
        layer = self.make(3)
        before = buffers(layer)
        x = torch.ones(shape, dtype=dtype)
        with shapes_unchecked(), pytest.raises(ShapeError, match=message):
            layer(x, *self.case.trivial_side(x))
        assert same(before, buffers(layer))

    def test_evaluation_takes_one_sample_and_none(self):
        layer = self.make(3).eval()
        before = buffers(layer)
        for samples in (1, 0):
            x = torch.randn(samples, 3, 2, dtype=torch.float64)
            assert layer(x, *self.case.trivial_side(x)).shape == x.shape
        assert same(before, buffers(layer))

    # --- precision

    def test_a_large_offset_costs_no_more_than_in_torch(self):
        """Errors against float64 on the same float32 input, over many values so that the comparison is not luck."""
        x, upstream = torch.randn(64, 4, 50) + 1e6, torch.randn(64, 4, 50)
        exact = nn.BatchNorm1d(4, dtype=torch.float64)
        errors = []
        runs = [(exact, x.double()), (nn.BatchNorm1d(4), x), (self.case.create(4, dtype=torch.float32), x)]
        for layer, values in runs:
            leaf = values.clone().requires_grad_()
            side = () if isinstance(layer, nn.BatchNorm1d) else self.case.trivial_side(leaf)
            y = layer(leaf, *side)
            y.backward(upstream.to(y.dtype))
            results = (y.detach(), leaf.grad, layer.running_var)
            if layer is exact:
                expected = results
            else:
                errors.append([root_mean_square(a.double() - b) for a, b in zip(results, expected, strict=True)])
        rounding = [2**-24 * 1e6, 2**-24, 2**-24]  # of y: x * scale + shift at a magnitude of 1e6; else one float32's
        for theirs, ours, floor in zip(*errors, rounding, strict=True):
            assert ours <= max(theirs, floor)

    @pytest.mark.parametrize("whole", [True, False])
    def test_bfloat16(self, whole):
        shape = self.case.shapes[1]
        x, side = self.inputs(shape, torch.bfloat16)
        layer = self.make(shape[1], dtype=torch.bfloat16 if whole else torch.float32)
        y, mean, variance = self.case.oracle(x.double().numpy(), side, tables(layer), 0.1)
        leaf = x.requires_grad_()
        result = layer(leaf, *side)
        result.float().square().sum().backward()
        assert result.dtype == leaf.grad.dtype == torch.bfloat16
        half_ulp = 2**-8  # bfloat16 keeps 8 bits; a few roundings in a layer that is bfloat16 throughout
        tolerance = (4 if whole else 1.01) * half_ulp
        np.testing.assert_allclose(result.detach().double().numpy(), y, rtol=tolerance, atol=tolerance)
        tolerance = 2 * half_ulp if whole else 1e-5
        np.testing.assert_allclose(layer.running_mean.double().numpy(), mean, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(layer.running_var.double().numpy(), variance, rtol=tolerance)

    # --- life in a program

    @pytest.mark.parametrize("twin_class", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
    def test_state_dict_goes_both_ways(self, twin_class):
        if not self.case.twin:
            pytest.skip("the layer keeps tables torch has no name for")
        ours, twin = self.make(3), twin_class(3, dtype=torch.float64)
        ours.num_batches_tracked.fill_(7)
        assert list(ours.state_dict()) == list(twin.state_dict())
        twin.load_state_dict(ours.state_dict())
        fresh = self.case.create(3, dtype=torch.float64)
        fresh.load_state_dict(twin.state_dict())
        assert same(dict(fresh.state_dict()), dict(ours.state_dict()))

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
        layer.policy = StatisticsPolicy(evaluation=Source.BATCH)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        copies = [pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), torch.load(file, weights_only=False)]
        x, side = self.inputs(self.case.shapes[0])
        expected = layer(x, *side)
        for other in copies:
            assert other.policy == layer.policy
            assert torch.equal(other(x, *side), expected)
            assert same(buffers(other), buffers(layer))

    @pytest.mark.filterwarnings("ignore")
    def test_compiles(self):
        torch._dynamo.reset()
        layer, (x, side) = self.make(self.case.shapes[1][1]), self.inputs(self.case.shapes[1])
        other = copy.deepcopy(layer)
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        with shapes_unchecked():
            y, z = layer(a, *side), compiled(b, *side)
        y.square().sum().backward()
        z.square().sum().backward()
        torch.testing.assert_close(z, y)
        torch.testing.assert_close(b.grad, a.grad)
        torch.testing.assert_close(other.running_var, layer.running_var)

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
            assert torch.equal(layer(x, *side), references[training if mode else evaluation])
            assert same(before, buffers(layer)) == (not (mode and update))
