"""What every framework's `Maths` must promise; each framework's test inherits it.

The values that are wanted are computed by NumPy, so that frameworks agree with each other too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onward.errors import Mismatch, UsageError
from onward.learning.maths import Maths

Array = npt.NDArray[Any]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def weights_of_mlp(seed: int = 0, outputs: int = 4) -> dict[str, Array]:
    """Of six inputs, eight hidden units with ReLU, and the outputs: by name."""
    draw = np.random.Generator(np.random.Philox(seed))
    shapes = {"0.weight": (8, 6), "0.bias": (8,), "2.weight": (outputs, 8), "2.bias": (outputs,)}
    return {name: draw.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def rows(count: int, *, seed: int = 1) -> Array:
    """Inputs of the networks here."""
    draw = np.random.Generator(np.random.Philox(seed))
    return draw.normal(0, 1, (count, 6)).astype(np.float32)


def mlp_by_hand(weights: Mapping[str, Array], inputs: Array) -> tuple[Array, Array]:
    """Hidden units and outputs, in double precision."""
    double = {name: value.astype(np.float64) for name, value in weights.items()}
    hidden = np.maximum(inputs @ double["0.weight"].T + double["0.bias"], 0)
    return hidden, hidden @ double["2.weight"].T + double["2.bias"]


def log_softmax_by_hand(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class MathsContract(ABC):
    """A framework gives the adapters; the tests are here."""

    maths: Maths

    @abstractmethod
    def tensor(self, array: Array, dtype: str = "float32") -> Any:
        """A constant of this dtype."""

    @abstractmethod
    def parameter(self, array: Array, dtype: str = "float32") -> Any:
        """One that learns."""

    @abstractmethod
    def dtype(self, tensor: Any) -> str:
        """Its plain name."""

    @abstractmethod
    def gradients(self, function: Callable[[], Any], parameters: Sequence[Any]) -> list[Any]:
        """Of the scalar that `function` gives, as a loop of this framework takes them."""

    @abstractmethod
    def mlp(self, weights: Mapping[str, Array]) -> Any:
        """The network of `weights_of_mlp`, in training mode."""

    @abstractmethod
    def noisy(self) -> Any:
        """A network that takes `x` by keyword and answers `{"logits": …}`.

        Dense, batch normalisation and dropout, in training mode but for the second of these.
        """

    @abstractmethod
    def modes(self, model: Any) -> list[bool]:
        """Of each part of the model, whether it is in training mode."""

    @abstractmethod
    def odd(self, answer: Callable[..., Any]) -> Any:
        """A model that answers with what the function gives."""

    @abstractmethod
    def tied(self) -> Any:
        """A model in which two layers, of three inputs and outputs each, share their weight."""

    @abstractmethod
    def random_state(self) -> Any:
        """What the framework's randomness goes on from, comparable by repr."""

    def state(self, model: Any) -> dict[str, Array]:
        """A copy of all weights."""
        return {name: self.maths.array(t) for name, t in self.maths.weights(model).items()}

    # Penalties.

    def test_the_pull_and_its_gradients_are_those_of_the_formula(self) -> None:
        """strength · Σ amount · (θ - anchor)², for tensors of any shape, empty ones too."""
        draw = np.random.Generator(np.random.Philox(2))
        shapes: list[tuple[int, ...]] = [(3, 4), (5,), (), (0, 2)]
        values, anchors, amounts = (
            [np.array(draw.random(shape), np.float32) for shape in shapes] for _ in range(3)
        )
        parameters = [self.parameter(value) for value in values]

        def pull() -> Any:
            return 3 * self.maths.pull(
                parameters,
                anchors=[self.tensor(value) for value in anchors],
                amounts=[self.tensor(value) for value in amounts],
                strength=0.7,
            )

        terms = zip(values, anchors, amounts, strict=True)
        wanted = 3 * 0.7 * sum(float((by * (v - a) ** 2).sum()) for v, a, by in terms)
        np.testing.assert_allclose(self.maths.array(pull()), wanted, rtol=1e-5)
        assert tuple(pull().shape) == ()
        found = self.gradients(pull, parameters)
        for got, v, a, by in zip(found, values, anchors, amounts, strict=True):
            wanted_gradient = 3 * 0.7 * 2 * by * (v - a)
            np.testing.assert_allclose(self.maths.array(got), wanted_gradient, **CLOSE)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_a_pull_on_low_precision_gives_gradients_of_their_dtype(self, dtype: str) -> None:
        """Amounts are kept in single precision, whatever the parameters are."""
        parameter = self.parameter(np.ones(3), dtype)
        amount = self.maths.zeros(like=parameter) + 2
        anchor = self.tensor(np.zeros(3), dtype)

        def pull() -> Any:
            return self.maths.pull([parameter], anchors=[anchor], amounts=[amount], strength=0.5)

        assert self.dtype(amount) == self.dtype(pull()) == "float32"
        (gradient,) = self.gradients(pull, [parameter])
        assert self.dtype(gradient) == dtype
        assert self.maths.array(gradient).tolist() == [2.0, 2.0, 2.0]

    def test_squared_gradients_are_those_of_each_row_and_output(self) -> None:
        """Σ over rows and outputs of weight · (gradient of the log probability)²."""
        stored, inputs = weights_of_mlp(), rows(3)
        shares = np.random.Generator(np.random.Philox(3)).random((3, 4))
        shares[1, 2] = 0
        model = self.mlp(stored)
        found = self.maths.squared_gradients(model, self.tensor(inputs), weights=shares)
        hidden, logits = mlp_by_hand(stored, inputs)
        probable = np.exp(log_softmax_by_hand(logits))
        wanted = {name: np.zeros(value.shape) for name, value in stored.items()}
        for row in range(3):
            for output in range(4):
                off = np.eye(4)[output] - probable[row]
                back = (off @ stored["2.weight"]) * (hidden[row] > 0)
                by = shares[row, output]
                wanted["2.weight"] += by * np.outer(off, hidden[row]) ** 2
                wanted["2.bias"] += by * off**2
                wanted["0.weight"] += by * np.outer(back, inputs[row]) ** 2
                wanted["0.bias"] += by * back**2
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(self.maths.array(found[name]), value, rtol=1e-4, atol=1e-6)
        assert all(self.modes(model))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_logarithms_are_taken_at_least_in_single_precision(self, dtype: str) -> None:
        """A divergence of bfloat16 logarithms would be noise, below zero as often as above."""
        logits = np.array([[1.0, 2.0, -3.0]])
        low = self.maths.log_softmax(self.tensor(logits, dtype))
        assert self.dtype(low) == "float32"
        np.testing.assert_allclose(self.maths.array(low), log_softmax_by_hand(logits), **CLOSE)
        high = self.maths.log_softmax(self.tensor(logits, "float64"))
        assert self.dtype(high) == "float64"
        among = self.maths.tensor(np.array([True, True, False]), like=low)
        total = self.maths.logsumexp(self.tensor(logits, dtype), among=among)
        assert self.dtype(total) == "float32"
        np.testing.assert_allclose(
            self.maths.array(total), [np.log(np.exp(1) + np.exp(2))], **CLOSE
        )

    def test_outputs_that_are_not_among_those_chosen_get_no_gradient(self) -> None:
        """And none that is not a number."""
        logits = self.parameter(np.array([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0]]))
        among = self.maths.tensor(np.array([True, False, True]), like=logits)
        (found,) = self.gradients(lambda: self.maths.logsumexp(logits, among=among).sum(), [logits])
        ratio = 1 / (1 + np.exp(-4.0))
        wanted = [[ratio, 0, 1 - ratio], [0.5, 0, 0.5]]
        np.testing.assert_allclose(self.maths.array(found), wanted, **CLOSE)

    def test_a_path_follows_the_parameters(self) -> None:
        """Whether or not gradients were left, `previous` is where the parameters are."""
        moved = self.parameter(np.array([1.0, 2.0]))
        previous = [self.tensor(np.array([2.0, 0.0]))]
        path = [self.maths.zeros(like=moved) + 1]
        assert not self.maths.integrate([moved], previous=previous, path=path)
        assert self.maths.array(previous[0]).tolist() == [1, 2]
        assert self.maths.array(path[0]).tolist() == [1, 1]
        self.maths.assign(moved, self.tensor(np.array([7.0, 7.0])))
        assert self.maths.array(previous[0]).tolist() == [1, 2]

    # The model.

    def test_outputs_are_those_of_the_model(self) -> None:
        """By hand the same."""
        stored, inputs = weights_of_mlp(), rows(5)
        found = self.maths.outputs(self.mlp(stored), self.tensor(inputs))
        np.testing.assert_allclose(self.maths.array(found), mlp_by_hand(stored, inputs)[1], **CLOSE)

    def test_asking_for_outputs_leaves_no_trace(self) -> None:
        """Modes, statistics and randomness are as they were."""
        model = self.noisy()
        before, modes, randomness = self.state(model), self.modes(model), self.random_state()
        assert set(modes) == {True, False}
        first = self.maths.outputs(model, {"x": self.tensor(rows(8))})
        second = self.maths.outputs(model, {"x": self.tensor(rows(8))})
        assert np.array_equal(self.maths.array(first), self.maths.array(second))
        assert repr(randomness) == repr(self.random_state())
        assert modes == self.modes(model)
        after = self.state(model)
        assert before.keys() == after.keys()
        assert all(np.array_equal(after[name], value) for name, value in before.items())

    def test_modes_come_back_where_the_model_fails(self) -> None:
        """An evaluation that raised must not leave a model that no longer drops out."""
        model = self.noisy()
        modes = self.modes(model)
        with pytest.raises(Exception):  # noqa: B017 - each framework has its own
            self.maths.outputs(model, {"x": self.tensor(np.ones((2, 99)))})
        assert modes == self.modes(model)

    def test_several_inputs_are_given_as_arguments(self) -> None:
        """A tuple is what a model of users and items takes."""
        model = self.odd(lambda users, items: users * items)
        two, three = self.tensor(np.array(2)), self.tensor(np.array(3))
        assert float(self.maths.outputs(model, (two, three))) == 6

    def test_an_answer_without_outputs_is_refused(self) -> None:
        """The error says what the model must return."""
        with pytest.raises(UsageError, match="no outputs are found"):
            self.maths.outputs(self.odd(lambda x: "yes"), self.tensor(np.zeros(1)))

    def test_what_does_not_learn_is_a_weight_but_no_parameter(self) -> None:
        """Statistics of batch normalisation are state, and have no importance."""
        model = self.noisy()
        parameters, weights = self.maths.parameters(model), self.maths.weights(model)
        assert len(parameters) == 4
        assert parameters.keys() < weights.keys()
        assert all(weights[name] is value for name, value in parameters.items())

    def test_a_frozen_copy_stands_still(self) -> None:
        """It shares no memory, wants no gradients, and is in evaluation mode."""
        stored, inputs = weights_of_mlp(), rows(4)
        model = self.mlp(stored)
        twin = self.maths.frozen(model)
        for target in self.maths.weights(model).values():
            self.maths.assign(target, self.maths.zeros(like=target))
        found = self.maths.outputs(twin, self.tensor(inputs))
        np.testing.assert_allclose(self.maths.array(found), mlp_by_hand(stored, inputs)[1], **CLOSE)
        assert self.maths.parameters(twin) == {}
        assert list(self.maths.weights(twin)) == list(self.maths.weights(model))
        assert not any(self.modes(twin))
        assert all(self.modes(model))
        assert len(self.maths.parameters(model)) == 4

    def test_shared_weights_are_shared_in_the_frozen_copy(self) -> None:
        """Or its weights had other names than the model's."""
        model = self.tied()
        twin = self.maths.frozen(model)
        assert list(self.maths.weights(twin)) == list(self.maths.weights(model))
        weight = self.maths.weights(twin)["a.weight"]
        self.maths.assign(weight, self.maths.zeros(like=weight))
        assert not self.maths.array(self.maths.outputs(twin, self.tensor(np.ones((1, 3))))).any()

    def test_loading_names_every_difference_and_changes_nothing(self) -> None:
        """Names and shapes are compared first."""
        model = self.mlp(weights_of_mlp())
        given = weights_of_mlp(5)
        given["0.weight"] = np.zeros((2, 2), np.float32)
        given["new"] = given.pop("2.bias")
        with pytest.raises(Mismatch) as caught:
            self.maths.load(model, given)
        assert len(caught.value.differences) == 3
        after = self.state(model)
        assert all(np.array_equal(after[n], value) for n, value in weights_of_mlp().items())

    def test_arrays_and_tensors_are_loaded(self) -> None:
        """By name, into the same live weights."""
        model, given = self.mlp(weights_of_mlp()), weights_of_mlp(5)
        live = self.maths.weights(model)
        self.maths.load(model, {**given, "0.bias": self.tensor(given["0.bias"])})
        assert all(self.maths.weights(model)[name] is value for name, value in live.items())
        assert all(np.array_equal(self.maths.array(live[n]), v) for n, v in given.items())

    # Tensors.

    @pytest.mark.parametrize("name", ["uint8", "int64", "bool", "float16", "float32", "float64"])
    @pytest.mark.parametrize("shape", [(), (2, 3), (0, 2)])
    def test_arrays_become_tensors_and_arrays_again(
        self, name: str, shape: tuple[int, ...]
    ) -> None:
        """With their shape, that of a single number too, their dtype and their values."""
        array = (np.arange(int(np.prod(shape))) % 2).astype(name).reshape(shape)
        for tensor in (
            self.maths.host_tensor(array),
            self.maths.tensor(array, like=self.tensor(np.zeros(1))),
        ):
            assert tuple(tensor.shape) == shape
            back = self.maths.array(tensor)
            assert back.dtype == array.dtype
            assert np.array_equal(back, array)

    def test_copies_share_no_memory(self) -> None:
        """Neither a copy nor an array changes with the tensor."""
        parameter = self.parameter(np.ones(3))
        copied, array = self.maths.copied(parameter), self.maths.array(parameter)
        self.maths.assign(parameter, self.tensor(np.zeros(3)))
        assert self.maths.array(parameter).tolist() == [0, 0, 0]
        assert self.maths.array(copied).tolist() == array.tolist() == [1, 1, 1]

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_zeros_are_at_least_in_single_precision_and_a_zero_is_not(self, dtype: str) -> None:
        """Sums need the digits; what is added to the loss must not change its dtype."""
        like = self.parameter(np.ones((2, 3)), dtype)
        zeros, zero = self.maths.zeros(like=like), self.maths.zero(like=like)
        assert self.dtype(zeros) == ("float64" if dtype == "float64" else "float32")
        assert tuple(zeros.shape) == (2, 3)
        assert not self.maths.array(zeros).any()
        assert (self.dtype(zero), tuple(zero.shape), float(zero)) == (dtype, (), 0)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_what_grows_begins_with_what_was(self, dtype: str) -> None:
        """Along every axis, in the dtype of what it becomes; a single number has no axis."""
        small = self.tensor(np.ones((2, 1)))
        grown = self.maths.grown(small, like=self.tensor(np.zeros((3, 2)), dtype))
        assert self.dtype(grown) == dtype
        assert self.maths.array(grown).tolist() == [[1, 0], [1, 0], [0, 0]]
        single = self.maths.grown(self.tensor(np.array(3)), like=self.tensor(np.array(0)))
        assert float(single) == 3

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_what_is_assigned_takes_the_dtype_of_its_target(self, dtype: str) -> None:
        """Sums in single precision go into parameters of a lower one."""
        parameter = self.parameter(np.ones(3), dtype)
        self.maths.assign(parameter, self.tensor(np.full(3, 2.5)))
        assert self.dtype(parameter) == dtype
        assert self.maths.array(parameter).tolist() == [2.5, 2.5, 2.5]
