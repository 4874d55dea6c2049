"""`.pth` files in the form {"net", "optimizer", "epoch"}: written, and read with suspicion."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from onward.errors import StateError, Unstorable
from onward.frameworks.base import TensorLeaf, fetched
from onward.frameworks.torch_indices import to_indices
from onward.frameworks.torch_modules import plain_name
from onward.frameworks.torch_tensors import leaf_of, thaw, view

NET_KEYS = ("net", "model", "state_dict", "model_state_dict")
OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict")
STEP_KEYS = ("step", "global_step")

_MOST_VALUES = 5_000_000
_DEEPEST = 8
_NAMED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|([\w.]+) (?:was not|is not) an allowed")
_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.Size)


@dataclass(slots=True)
class Pth:
    """What a file holds. Leaves may share memory with the file, which must stay meanwhile."""

    net: dict[str, TensorLeaf]
    optimizer: dict[str, Any] | None = None
    """As `Optimizer.state_dict()` gives it, numbered, with leaves for tensors."""
    epoch: int | None = None
    step: int | None = None
    left_out: list[str] = field(default_factory=list)


# Writing.


def write_pth(
    file: IO[bytes],
    *,
    net: Mapping[str, Any],
    optimizers: Mapping[str, Mapping[str, Any]],
    extra: Mapping[str, int],
) -> None:
    """Writes {"net": …, "optimizer": …, "epoch": …} so that `weights_only=True` reads it.

    `net` and `optimizers` are entries of a state tree; a single optimizer is called `optimizer`,
    several keep their names. Raises `Unstorable` for a value that such a file cannot hold.
    """
    document: dict[str, Any] = {"net": _tensors(net)}
    for name, tree in optimizers.items():
        key = "optimizer" if len(optimizers) == 1 else name
        document[key] = _loadable(thaw(to_indices(tree), view), key)
    document.update(extra)
    torch.save(document, file)


def _tensors(net: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[object, torch.Tensor] = {}
    state: dict[str, Any] = {}
    for name, value in net.items():
        if not isinstance(value, TensorLeaf):
            state[name] = _loadable(thaw(value, view), name)
            continue
        if value.identity is None or value.identity not in made:
            made[value.identity] = view(value)
        state[name] = made[value.identity]
    return state


def _loadable(value: Any, path: str) -> Any:
    match value:
        case torch.Tensor():
            return value
        case np.ndarray():
            return torch.from_numpy(value)
        case np.generic():
            return value.item()
        case dict():
            return {key: _loadable(child, f"{path}.{key}") for key, child in value.items()}
        case list() | tuple():
            return type(value)(_loadable(child, f"{path}[{i}]") for i, child in enumerate(value))
        case _ if isinstance(value, _PLAIN):
            return value
    raise Unstorable(
        f"{path} is a {type(value).__qualname__}",
        why="a .pth file that is read with weights_only=True cannot hold it",
        do="export without the optimizer: --only weights",
    )


# Reading.


def read_pth(path: Path) -> Pth:
    """Reads a file that nobody vouches for: tensors, names and numbers, never code.

    Raises `StateError` saying why for anything else, `Unstorable` for tensors that no output holds.
    """
    size_bytes = path.stat().st_size
    loaded = _load(path)
    if not isinstance(loaded, Mapping):
        raise _unreadable(path, f"it holds a {type(loaded).__qualname__}, not a table of names")
    take = _Taking(path, size_bytes)
    net_key = next((key for key in NET_KEYS if isinstance(loaded.get(key), Mapping)), None)
    if net_key is None:
        if not any(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise _unreadable(
                path, f"it has no model: neither one of {', '.join(NET_KEYS)}, nor tensors itself"
            )
        net, left_out = take.net(loaded)
        return Pth(net, left_out=left_out)
    net, left_out = take.net(loaded[net_key])
    found = Pth(net, left_out=left_out)
    for key, value in loaded.items():
        if key == net_key:
            continue
        if key in OPTIMIZER_KEYS and found.optimizer is None and _is_optimizer(value):
            found.optimizer = take.value(value, str(key))
        elif key == "epoch" and _is_count(value):
            found.epoch = value
        elif key in STEP_KEYS and found.step is None and _is_count(value):
            found.step = value
        else:
            found.left_out.append(str(key))
    return found


def _load(path: Path) -> Any:
    try:
        archived = zipfile.is_zipfile(path)
        if archived:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archived or None)
    except StateError:
        raise
    except Exception as error:  # whatever a hostile file makes the reader raise
        # PyTorch's own advice is to read it without weights_only: that is what must not be done.
        named = _NAMED_GLOBAL.search(str(error))
        why = "it is no file of torch.save, or not a whole one"
        if named:
            why = f"it asks for {named[1] or named[2]}, and a checkpoint must not run code"
        raise _unreadable(path, why) from error


def _check_archive(path: Path) -> None:
    size_bytes = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _unreadable(path, "parts of it are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size_bytes:
        raise _unreadable(path, "it says that it is larger than it is")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return (
        isinstance(groups, list)
        and bool(groups)
        and all(isinstance(group, Mapping) for group in groups)
        and all(isinstance(group.get("params"), list) for group in groups)
        and all(type(number) is int for group in groups for number in group["params"])
    )


class _Taking:
    """Turns loaded values into leaves; counts, so that a small file cannot grow without end."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._values = 0

    def net(self, loaded: Mapping[Any, Any]) -> tuple[dict[str, TensorLeaf], list[str]]:
        """The tensors by name, wrappers' prefixes taken off; and the names of what is no tensor."""
        if not all(isinstance(name, str) for name in loaded):
            raise _unreadable(self._path, "a parameter's name is no text")
        names = [name for name, value in loaded.items() if isinstance(value, torch.Tensor)]
        wrapped = bool(names) and all(name.startswith("module.") for name in names)
        leaves = {}
        for name in names:
            plain = plain_name(name.removeprefix("module.") if wrapped else name)
            leaves[plain] = self._leaf(loaded[name], name)
        if not leaves:
            raise _unreadable(self._path, "its model has no tensors")
        return leaves, [name for name in loaded if name not in set(names)]

    def value(self, value: Any, path: str, depth: int = 0) -> Any:
        self._values += 1
        if depth > _DEEPEST or self._values > _MOST_VALUES:
            raise _unreadable(self._path, f"{path[:80]} is too deep or too large")
        match value:
            case torch.Tensor():
                return self._leaf(value, path)
            case _ if isinstance(value, bool | int | float | complex | str | type(None)):
                return value
            case Mapping():
                if not all(isinstance(key, str | int) for key in value):
                    raise _unreadable(self._path, f"{path[:80]} has a key that is no name")
                return {
                    key: self.value(child, f"{path}.{key}", depth + 1)
                    for key, child in value.items()
                }
            case list() | tuple():
                return type(value)(
                    [self.value(child, f"{path}[{i}]", depth + 1) for i, child in enumerate(value)]
                )
        raise _unreadable(self._path, f"{path[:80]} is a {type(value).__qualname__}")

    def _leaf(self, tensor: torch.Tensor, path: str) -> TensorLeaf:
        if tensor.layout == torch.strided and tensor.device.type != "meta":
            # A tensor may repeat a few bytes endlessly (strides of 0): storing it would not end.
            held = tensor.untyped_storage().nbytes()
            if tensor.numel() * tensor.element_size() > held or held > self._size_bytes:
                raise _unreadable(
                    self._path, f"{path[:80]} claims {tensor.numel():,} elements in {held:,} bytes"
                )
        return fetched(leaf_of(tensor, path))


def _unreadable(path: Path, why: str) -> StateError:
    return StateError(
        f"{path} cannot be imported",
        why=why,
        do='save it anew where it comes from, in a script that you trust: torch.save({"net": '
        'model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, path)',
    )
