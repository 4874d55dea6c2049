"""What a framework's file must offer, and the leaf that state trees share.

A *state tree* is nested dicts, lists and tuples of plain values, with `TensorLeaf` for tensors.
It belongs to no framework, so the repository can store it without importing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onward.frameworks.growth import Tables

ITEM_BYTES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8, "C128": 16,
}  # fmt: skip
"""Bytes of one element by dtype name. The names are those of safetensors (and C128)."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorLeaf:
    """One tensor of a state tree, detached from its framework.

    `data` is its raw little-endian, row-major bytes as a one-dimensional uint8 array; it may share
    memory with the live tensor, so whoever stores it must be done before training goes on. `None`
    where only the description is known (a manifest read without its packs). `kind` names what to
    rebuild: `torch`, `numpy` or `mindspore`. `identity` is equal for leaves that share memory, so
    that tied weights are stored once. `private` data begins at a multiple of 64, can be written,
    and belongs to this leaf alone: whoever restores may keep it instead of copying it, once.
    """

    dtype: str
    shape: tuple[int, ...]
    kind: str
    data: npt.NDArray[np.uint8] | None = None
    identity: object = None
    private: bool = False

    @property
    def size_bytes(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count * ITEM_BYTES[self.dtype]


class Source(Protocol):
    """Where the bytes of a tensor are that do not lie on the host, or not in order."""

    piecewise: bool
    """Whether some of it costs only some of the time."""

    def fetch(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes `start` to `stop`, to be read before this thread fetches again.

        Raises `Unsettled` if the tensor has changed since it was captured.
        """


@dataclass(frozen=True, slots=True, eq=False)
class DistantLeaf(TensorLeaf):
    """A leaf whose bytes must be fetched; it carries no data.

    `settled` says that only an optimizer's step changes the tensor, so that it may be fetched
    until the next one begins.
    """

    source: Source | None = None
    settled: bool = False


def fetched(leaf: TensorLeaf) -> TensorLeaf:
    """The leaf with its bytes in host memory of their own, if they are not on the host yet."""
    if not isinstance(leaf, DistantLeaf) or leaf.source is None:
        return leaf
    data = leaf.source.fetch(0, leaf.size_bytes).copy()
    return TensorLeaf(leaf.dtype, leaf.shape, leaf.kind, data, leaf.identity)


@dataclass(frozen=True, slots=True)
class Tagged:
    """A small framework value, such as `Tagged("torch.dtype", "float32")`, kept as plain data."""

    tag: str
    value: Any


class Stateful(Protocol):
    """Anything whose state is names, numbers, text and tensors."""

    def state_dict(self) -> Any:
        """Its whole state."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Becomes what `state_dict` once returned."""


class LayerSeeds(Protocol):
    """Layers whose random numbers are made to follow from the step."""

    def at_step(self, step: int) -> None:
        """So many optimizer steps of the model's life are done."""

    def out_of_reach(self) -> list[str]:
        """The layers that keep to numbers of their own, so that a resume is not exact for them."""


class Framework(Protocol):
    """The verbs that every framework's file offers (`frameworks/torch.py` and its equals)."""

    name: str

    def version(self) -> str:
        """The installed version, for the record."""

    def capture(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        """The state tree of the named live objects. Leaves share memory where that is possible.

        Raises `Unstorable` for an object that is neither of the framework nor `Stateful`.
        """

    def differences(self, objects: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
        """Every reason why `tree` (leaves may lack data) does not fit the live objects."""

    def differences_for_new_budget(
        self, objects: Mapping[str, Any], tree: Mapping[str, Any]
    ) -> list[str]:
        """Every reason against `restore_for_new_budget`: schedules do not matter to it."""

    def differences_in_weights(
        self, objects: Mapping[str, Any], tree: Mapping[str, Any]
    ) -> list[str]:
        """Every reason against `restore_weights`: only models matter to it."""

    def destinations(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        """A tree like that of `capture`, of only such leaves whose data is live memory itself.

        What is written there becomes the live objects' value where each of the verbs to restore
        would only copy; a leaf with that same data is then passed over by them.
        """

    def grown(
        self, objects: Mapping[str, Any], tree: Mapping[str, Any], tables: Tables
    ) -> dict[str, Any]:
        """`tree` with these tables, and what optimizers keep for them, as long as the live ones.

        Rows go where their table says. New rows of a table are as they are in the live objects,
        new rows of an optimizer's slot are as it begins them. Leaves may lack data; those that
        are not concerned are the same objects. Live objects are not touched.
        """

    def differences_in_growth(
        self, objects: Mapping[str, Any], tree: Mapping[str, Any], tables: Tables
    ) -> list[str]:
        """Every reason why the optimizers' part of `grown` cannot be done."""

    def names_of_weights(self, objects: Mapping[str, Any]) -> list[str]:
        """The names of the objects that `restore_weights` loads, and needs in its tree."""

    def restore(self, objects: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
        """Loads `tree` into the live objects, bit for bit. Call `differences` first."""

    def restore_for_new_budget(self, objects: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
        """Like `restore`, but schedules and the optimizer's hyperparameters stay as they are live.

        For *continue*: weights, moments and everything learned, under this increment's own
        learning-rate curve.
        """

    def restore_weights(self, objects: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
        """Loads only the models. For *branch*. Raises `Mismatch` with every difference."""

    def after_optimizer_step(
        self, value: Any, call: Callable[[], None]
    ) -> Callable[[], None] | None:
        """Has `call` called after each step of `value`; returns what ends that.

        None if `value` is not an optimizer of this framework.
        """

    def before_optimizer_step(
        self, value: Any, call: Callable[[], None]
    ) -> Callable[[], None] | None:
        """Has `call` called before each step of `value`; returns what ends that.

        None if `value` is not an optimizer of this framework.
        """

    def optimizer_steps(self, value: Any) -> int | None:
        """How many steps an optimizer has counted by itself.

        None for one that tells through `after_optimizer_step`, or neither counts nor tells.
        """

    def layer_seeds(
        self, objects: Mapping[str, Any], derive_seed: Callable[[str, int], int]
    ) -> LayerSeeds | None:
        """Takes over what layers draw by themselves; None where generators are all there is.

        `derive_seed(path, step)` gives 64 bits.
        """

    def learning_rates(self, value: Any) -> list[float]:
        """The present learning rates if `value` is an optimizer, else an empty list."""

    def set_learning_rates(self, value: Any, rates: Sequence[float]) -> None:
        """Sets the learning rate of each parameter group of an optimizer."""

    def forget_moments(self, value: Any) -> None:
        """Lets an optimizer begin anew: nothing remembered for any parameter, rates as they are."""

    def has_schedule(self, objects: Mapping[str, Any]) -> bool:
        """Whether one of the objects decides on learning rates."""

    def evaluating(self, objects: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Models in evaluation mode and no gradients, as they were before afterwards."""

    def capture_randomness(self) -> dict[str, Any]:
        """The state of every global random generator: Python's, NumPy's, the framework's."""

    def restore_randomness(self, tree: Mapping[str, Any]) -> None:
        """Sets every global random generator as captured."""
