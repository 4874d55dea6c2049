"""Labels that the model has no output for are refused before they do harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import DataError, UnknownLabel

_SHOWN = 10


def check_labels(labels: npt.NDArray[Any], outputs: int) -> None:
    """Raises `UnknownLabel`, with the labels, unless each is in 0 … outputs - 1.

    `labels`: whole numbers of any shape; `DataError` if they are something else.
    """
    found = np.asarray(labels)
    if found.size == 0:
        return
    if found.dtype.kind not in "iu":
        raise DataError(
            f"labels are of the type {found.dtype}",
            why="a label is the number of an output",
            do="give each class a whole number from 0 on",
        )
    if found.min() >= 0 and found.max() < outputs:
        return
    outside = np.unique(found[(found < 0) | (found >= outputs)])
    shown = ", ".join(str(label) for label in outside[:_SHOWN].tolist())
    more = f" and {len(outside) - _SHOWN} more" if len(outside) > _SHOWN else ""
    raise UnknownLabel(
        f"the data has labels that the model has no output for: {shown}{more}",
        labels=outside.tolist(),
        why=f"the head has {outputs} outputs, for labels 0 … {outputs - 1}",
        do=" ".join(_ways_out(int(outside.min()), int(outside.max()), outputs)),
    )


def _ways_out(lowest: int, highest: int, outputs: int) -> list[str]:
    ways = []
    if highest >= outputs:
        ways.append(
            f"grow the head (grow=…) to at least {highest + 1} outputs, or number the classes anew."
        )
    if lowest < 0:
        ways.append("Leave items with labels below 0 out of the data.")
    return ways
