"""`onward import`: an output that begins with a file from elsewhere."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import click

from onward import _version
from onward.cli.options import json_option, single_writer_option, write_json
from onward.cli.safetensors_file import read_safetensors
from onward.cli.text import clean, count, size
from onward.cli.torch_support import torch_files
from onward.errors import UsageError
from onward.facts.contents import RESERVED
from onward.facts.outputs import label
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_ckpt import read_ckpt
from onward.frameworks.mindspore_entries import parts_of
from onward.frameworks.torch_indices import guess_type, to_names
from onward.frameworks.translation import MINDSPORE, PYTORCH, of_kind
from onward.repository import Facts, Repository, open_or_create
from onward.stores import open_store
from onward.stores.os_errors import looked_up

# What a model has beside its parameters, as far as names and dtypes tell.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_TRAINABLE = frozenset(["F32", "F64", "F16", "BF16", "C64", "C128"])


@dataclass(slots=True)
class _Given:
    """What the file holds: the state to store, its place in training, what is not taken."""

    state: dict[str, Any]
    epoch: int = 0
    step: int = 0
    left_out: list[str] = field(default_factory=list)
    optimizer: str = ""
    framework: str = "torch"


@click.command("import")
@click.argument("file", metavar="FILE")
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--only",
    type=click.Choice(["weights", "all"]),
    default="all",
    help="Only the weights, or the optimizer too (default).",
)
@click.option(
    "--optimizer-type",
    default="",
    metavar="CLASS",
    help="The optimizer's class, such as AdamW, where the file does not tell.",
)
@click.option("--model", default="model", metavar="NAME", help="onward.open(…, NAME=model).")
@click.option(
    "--optimizer", default="optimizer", metavar="NAME", help="onward.open(…, NAME=optimizer)."
)
@single_writer_option
@json_option
def import_(
    file: str,
    output: str,
    only: str,
    optimizer_type: str,
    model: str,
    optimizer: str,
    single_writer: bool,
    as_json: bool,
) -> None:
    """Begin an output with a file from elsewhere.

    FILE is a .pth with the weights under net, model, state_dict or model_state_dict (or nothing but
    them), the optimizer under optimizer or optimizer_state_dict, epoch, and step; a .ckpt of
    MindSpore, of a network alone or with its optimizer; or a safetensors file. Code in it never
    runs. OUTPUT must hold no checkpoint yet.

    The optimizer's state is numbered in a .pth. Number k is taken for the k-th parameter of the
    model in the order of its state dict, buffers left aside; where counts or shapes do not fit, the
    import is refused. Names are kept as they are: a branch translates them where the other
    framework goes on.
    """
    path = Path(file)
    with looked_up(f"could not read {file}"):
        if not path.is_file():
            raise UsageError(f"there is no file {file}")
    for name in (model, optimizer):
        if name in RESERVED or not name.isidentifier():
            raise UsageError(f"{name!r} cannot be an object's name", do="use a Python name")
    store = open_store(output)
    with looked_up(f"could not read {file}"):
        given = _given(path, model, optimizer, optimizer_type, weights_only=only == "weights")
    repository = open_or_create(store, single_writer=single_writer)
    _check_empty(repository)
    who = f"{socket.gethostname()} pid {os.getpid()} (onward import)"
    writer = repository.claim(who)
    _check_empty(repository)  # somebody may have begun it meanwhile
    commit = writer.commit(given.state, _facts(path, given))
    repository.refresh()
    _say(repository, commit.checkpoint, given, as_json=as_json)


def _given(
    path: Path, model: str, optimizer: str, optimizer_type: str, *, weights_only: bool
) -> _Given:
    if path.suffix == ".safetensors":
        return _from_safetensors(path, model)
    read = _from_ckpt if path.suffix == ".ckpt" else _from_pth
    return read(path, model, optimizer, optimizer_type, weights_only=weights_only)


def _from_safetensors(path: Path, model: str) -> _Given:
    leaves, metadata = read_safetensors(path)
    framework = MINDSPORE if metadata.get("format") == "ms" else PYTORCH
    leaves = {name: of_kind(leaf, framework) for name, leaf in leaves.items()}
    epoch, step = (metadata.get(key, "0") for key in ("epoch", "step"))
    return _Given({model: leaves}, epoch=_counted(epoch), step=_counted(step), framework=framework)


def _from_ckpt(
    path: Path, model: str, optimizer: str, optimizer_type: str, *, weights_only: bool
) -> _Given:
    found = read_ckpt(path)
    parts = parts_of(found.tensors, model=model, weights_only=weights_only)
    given = _Given({model: parts.net}, epoch=parts.epoch or 0, step=parts.step or 0)
    given.framework = MINDSPORE
    given.left_out = [*parts.left_out, *found.left_out]
    if parts.optimizer is None:
        return given
    given.optimizer = optimizer_type or parts.optimizer["type"]
    if not given.optimizer:
        slots = {slot for values in parts.optimizer["state"].values() for slot in values}
        raise UsageError(
            f"{path} does not tell which optimizer it holds",
            why="several keep these for each parameter: " + (", ".join(sorted(slots)) or "nothing"),
            do="name its class, such as --optimizer-type AdamWeightDecay, or take --only weights",
        )
    given.state[optimizer] = {**parts.optimizer, "type": given.optimizer}
    return given


def _from_pth(
    path: Path, model: str, optimizer: str, optimizer_type: str, *, weights_only: bool
) -> _Given:
    found = torch_files().read_pth(path)
    given = _Given({model: found.net}, epoch=found.epoch or 0, left_out=list(found.left_out))
    given.step = found.step or 0
    if found.optimizer is None:
        return given
    given.step = found.step or _steps(found.optimizer)
    if weights_only:
        given.left_out.append("the optimizer")
        return given
    given.optimizer = optimizer_type or guess_type(found.optimizer)
    if not given.optimizer:
        raise UsageError(
            f"{path} does not tell which optimizer it holds",
            why="several have these hyperparameters: "
            + ", ".join(sorted(str(key) for key in found.optimizer["param_groups"][0])),
            do="name its class, such as --optimizer-type AdamW, or take --only weights",
        )
    parameters = parameters_of(found.net, count=_numbered(found.optimizer))
    named = [(f"{model}.{name}", leaf.shape) for name, leaf in parameters]
    given.state[optimizer] = to_names(found.optimizer, named, kind=given.optimizer)
    return given


def parameters_of(net: Mapping[str, TensorLeaf], *, count: int) -> list[tuple[str, TensorLeaf]]:
    """The entries of a state dict that are parameters, in order.

    All of them if an optimizer counts as many; else without tied repetitions, tensors of whole
    numbers and the buffers of normalisation layers.
    """
    if len(net) == count:
        return list(net.items())
    seen: set[object] = set()
    chosen = []
    for name, leaf in net.items():
        if leaf.identity is not None and leaf.identity in seen:
            continue
        seen.add(leaf.identity)
        if leaf.dtype in _TRAINABLE and name.rpartition(".")[2] not in _BUFFERS:
            chosen.append((name, leaf))
    return chosen


def _numbered(optimizer: Mapping[str, Any]) -> int:
    return sum(len(group["params"]) for group in optimizer["param_groups"])


def _steps(optimizer: Mapping[str, Any]) -> int:
    """The optimizer's own count of steps, where it keeps one."""
    most = 0
    for values in optimizer["state"].values():
        step = values.get("step") if isinstance(values, Mapping) else None
        if isinstance(step, TensorLeaf) and step.dtype == "F32" and step.shape == ():
            assert step.data is not None
            step = float(step.data.view("<f4")[0])
        if isinstance(step, int | float) and 0 <= step < 1 << 53:
            most = max(most, int(step))
    return most


def _counted(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _check_empty(repository: Repository) -> None:
    history = repository.history
    if history.commits:
        raise UsageError(
            f"{repository.store.url} holds {count(len(history.commits), 'checkpoint')} already",
            why="an import begins an output",
            do="give another output",
        )


def _facts(path: Path, given: _Given) -> Facts:
    try:
        version = installed_version(given.framework)
    except PackageNotFoundError:
        version = ""
    about = {
        "onward": _version.__version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "imported": {"file": str(path.absolute()), "size_bytes": path.stat().st_size},
    }
    return Facts(
        step=given.step,
        epoch=given.epoch,
        increment=1,
        parent=None,
        finished=True,
        reason=f"imported from {path.name}"[:200],
        verb="fresh",
        framework=given.framework,
        framework_version=version,
        about=about,
    )


def _say(repository: Repository, id_: str, given: _Given, *, as_json: bool) -> None:
    history = repository.history
    commit = history.commits[id_]
    net = next(iter(given.state.values()))
    size_bytes = sum(leaf.size_bytes for leaf in net.values())
    if as_json:
        write_json(
            {
                "output": repository.store.url,
                "checkpoint": id_,
                "step": commit.step,
                "epoch": commit.epoch,
                "tensors": len(net),
                "size_bytes": size_bytes,
                "optimizer": given.optimizer or None,
                "left_out": given.left_out,
            }
        )
        return
    what = f"{count(len(net), 'tensor')}, {size(size_bytes)}"
    what += f", optimizer {given.optimizer}" if given.optimizer else ", no optimizer"
    where = clean(repository.store.url)
    click.echo(f"{where}: {label(history, commit)} with {what}, step {commit.step:,}")
    if given.left_out:
        click.echo(f"left out: {', '.join(map(clean, given.left_out))}")
