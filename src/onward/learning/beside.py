"""A row of outputs beside each slot of a memory, such as the logits that a model once gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices
from onward.errors import UsageError

Rows = npt.NDArray[np.floating[Any]]


class Beside:
    """Outputs by slot: an array [slots, C] and how many of the C each slot really has.

    C grows with the head of the model; what was written for fewer outputs stays, with zeros after
    it, and `outputs` says how many count, so that later classes can be masked. A slot that gets
    another sample loses its row.
    """

    def __init__(self, slots: int) -> None:
        self.outputs = np.zeros(slots, np.int64)
        """int64 [slots]: how many outputs each slot's row has; 0 where there is none."""
        self._rows: Rows = np.zeros((slots, 0), np.float32)
        self._shared = False

    @property
    def width(self) -> int:
        """C: the most outputs that any row had."""
        return int(self._rows.shape[1])

    def write(self, slots: Indices, rows: Rows) -> None:
        """Row i of `rows`, floats of shape [len(slots), C], belongs to `slots[i]` from now on.

        The dtype of the first rows is kept. Raises `UsageError` for other shapes.
        """
        if rows.ndim != 2 or len(rows) != len(slots) or not rows.shape[1]:
            raise UsageError(
                f"rows of shape {list(rows.shape)} for {len(slots)} slots of the memory",
                do="give one row of outputs for each slot",
            )
        if not len(slots):
            return
        if not self.width:
            self._rows, self._shared = np.zeros((len(self.outputs), 0), rows.dtype), False
        self._own()
        if rows.shape[1] > self.width:
            more = np.zeros((len(self.outputs), rows.shape[1] - self.width), self._rows.dtype)
            self._rows = np.concatenate([self._rows, more], axis=1)
        self._rows[slots] = 0
        self._rows[slots, : rows.shape[1]] = rows
        self.outputs[slots] = rows.shape[1]

    def read(self, slots: Indices) -> Rows:
        """A copy of the rows of these slots, of shape [len(slots), C]; see `outputs`."""
        return self._rows[slots]

    def clear(self, slots: Indices) -> None:
        """Leaves nothing of the rows of these slots."""
        self._own()
        self._rows[slots] = 0
        self.outputs[slots] = 0

    def rearrange(self, origins: Indices) -> None:
        """Slot i becomes what slot `origins[i]` was, or empty where that is -1."""
        self._rows, self.outputs, self._shared = self._rows[origins], self.outputs[origins], False
        self.clear(np.flatnonzero(origins < 0))

    @property
    def size_bytes(self) -> int:
        """What the written rows hold."""
        return int(np.count_nonzero(self.outputs)) * self._rows[:1].nbytes

    def state_dict(self) -> dict[str, Any]:
        """The rows, and how many outputs of each count; never changed afterwards."""
        self._shared = True
        return {"rows": self._rows, "outputs": self.outputs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned."""
        self._rows = np.array(state_dict["rows"])
        self.outputs = np.array(state_dict["outputs"], np.int64)
        self._shared = False

    def _own(self) -> None:
        if self._shared:
            self._rows, self.outputs = self._rows.copy(), self.outputs.copy()
            self._shared = False
