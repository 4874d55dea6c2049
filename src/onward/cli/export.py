"""`onward export`: a checkpoint as one ordinary file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onward import _version
from onward.cli.contents import RESERVED, contents, top
from onward.cli.export_mlflow import register, say
from onward.cli.options import best_options, json_option, output_argument, write_json
from onward.cli.outputs import Found, open_output, using
from onward.cli.progress import byte_progress
from onward.cli.safetensors_file import SafetensorsStream
from onward.cli.target import FileChunks, Target
from onward.cli.text import clean, count, size
from onward.cli.torch_support import torch_files
from onward.errors import StateError, UsageError
from onward.repository import Tensor, read_state
from onward.trackers.mlflow_registry import Registered

_PTH = (".pth", ".pt")


@dataclass(frozen=True, slots=True)
class _Exported:
    tensors: int
    size_bytes: int
    left_out: list[str]


@click.command()
@output_argument
@click.argument("rest", metavar="[CHECKPOINT] FILE", nargs=-1)
@best_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["safetensors", "pth"]),
    help="By default what the name of FILE says, else safetensors.",
)
@click.option(
    "--only",
    type=click.Choice(["weights", "all"]),
    help="By default all in a .pth (net, optimizer, epoch), weights in safetensors.",
)
@click.option("--model", default="", metavar="NAME", help="Which model, where there are several.")
@click.option(
    "--mlflow", metavar="[NAME]", is_flag=False, flag_value="",
    help="Instead of FILE, register it in MLflow's registry as a version of the model NAME.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def export(
    output: str,
    rest: tuple[str, ...],
    metric: str,
    lowest: bool,
    format_: str | None,
    only: str | None,
    model: str,
    mlflow: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a checkpoint (by default the latest) to one ordinary file.

    A safetensors file holds tensors under the names that the model gives them; with several
    models, or --only all, other names say where in the state they are. Its metadata name the
    checkpoint. A .pth file has the form {"net", "optimizer", "epoch"}, where epoch counts those
    completed; torch.load reads it with weights_only=True. FILE may be a URL. It appears whole or
    not at all.

    With --mlflow, the weights go to MLflow (MLFLOW_TRACKING_URI) as a safetensors file, with the
    checkpoint's aliases; one that is registered already gets only these. NAME is by default the
    last part of OUTPUT.
    """
    if mlflow is not None:
        _register(
            output, rest, mlflow, model, as_json=as_json, metric=metric, lowest=lowest,
            refused=format_ or only or force,
        )  # fmt: skip
        return
    if not 1 <= len(rest) <= 2:
        raise UsageError(
            f"export takes an output, a checkpoint and a file, not {1 + len(rest)} arguments",
            do="onward export OUTPUT [CHECKPOINT] FILE",
        )
    checkpoint, file = rest if len(rest) == 2 else ("latest", rest[0])
    as_pth = format_ == "pth" or (format_ is None and file.lower().endswith(_PTH))
    target = Target(file, force=force)

    def export_it(found: Found) -> tuple[Found, _Exported]:
        models = models_in(found, model)
        if as_pth:
            whole = only != "weights"
            return found, _export_pth(found, models, target, whole=whole, hidden=as_json)
        whole = only == "all"
        return found, _export_safetensors(found, models, target, whole=whole, hidden=as_json)

    repository = open_output(output)
    found, done = using(repository, checkpoint, export_it, metric=metric, lowest=lowest)
    _say(found, file, done, "pth" if as_pth else "safetensors", as_json=as_json)


def _register(
    output: str,
    rest: tuple[str, ...],
    name: str,
    model: str,
    *,
    as_json: bool,
    metric: str,
    lowest: bool,
    refused: Any,
) -> None:
    if len(rest) > 1 or refused:
        raise UsageError(
            "--mlflow writes no file, and takes no option of one",
            do="onward export OUTPUT [CHECKPOINT] --mlflow [NAME]",
        )

    def register_it(found: Found) -> tuple[Found, Registered]:
        models = models_in(found, model)

        def to_file(path: Path) -> None:
            target = Target(str(path), force=False)
            _export_safetensors(found, models, target, whole=False, hidden=as_json)

        return found, register(found, name, to_file)

    checkpoint = rest[0] if rest else "latest"
    found, done = using(open_output(output), checkpoint, register_it, metric=metric, lowest=lowest)
    say(found, done, as_json=as_json)


def models_in(found: Found, wanted: str = "") -> list[str]:
    """The entries of the state that are models: those that its optimizers train.

    Without an optimizer, every entry that is a flat table of tensors. Raises `UsageError` where
    `wanted` is none of them.
    """
    state = found.manifest.state if isinstance(found.manifest.state, dict) else {}
    flat = [name for name, entry in state.items() if name not in RESERVED and _is_flat(entry)]
    if wanted:
        if wanted not in flat:
            raise UsageError(
                f"checkpoint {found.label} has no model {wanted!r}",
                do=f"use one of {', '.join(flat)}" if flat else "leave --model out",
            )
        return [wanted]
    trained = {
        str(name).partition(".")[0]
        for entry in state.values()
        if _is_optimizer(entry)
        for group in entry["param_groups"]
        for name in group.get("params", [])
    }
    return [name for name in flat if name in trained] or flat


def _check_any(found: Found, models: list[str]) -> None:
    if not models:
        raise UsageError(
            f"checkpoint {found.label} holds no model",
            why="no entry of its state is a table of tensors",
            do="export every tensor to a safetensors file with --only all",
        )


def _is_flat(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() == {"device", "state"}:  # a generator
        return False
    return any(isinstance(value, dict) and "$tensor" in value for value in entry.values())


def _is_optimizer(entry: Any) -> bool:
    groups = entry.get("param_groups") if isinstance(entry, dict) else None
    return isinstance(groups, list) and all(isinstance(group, dict) for group in groups)


def _export_safetensors(
    found: Found, models: list[str], target: Target, *, whole: bool, hidden: bool
) -> _Exported:
    if not whole:
        _check_any(found, models)
    held = contents(found.manifest)
    named: dict[str, Tensor] = {}
    for path, tensor in held.tensors.items():
        if top(path) in models or whole:
            named[_name_in_file(path, models)] = tensor
    left_out = [path for path in held.values if top(path) in models]
    stream = SafetensorsStream(found.repository.store, named, _metadata(found))
    target.write(stream, stream.size_bytes, hidden=hidden)
    return _Exported(len(named), stream.size_bytes, left_out)


def _name_in_file(path: str, models: list[str]) -> str:
    """A parameter's own name where there is one model; else with the model's name before it."""
    model, _, name = path.partition("/")
    if model not in models:
        return path
    return name if len(models) == 1 else f"{model}.{name}"


def _metadata(found: Found) -> dict[str, str]:
    commit, manifest = found.commit, found.manifest
    return {
        "format": "pt" if manifest.framework.name == "torch" else "np",
        "made_by": f"onward {_version.__version__}",
        "repository": manifest.repository,
        "checkpoint": commit.checkpoint,
        "step": str(commit.step),
        "epoch": str(commit.epoch),
        "increment": str(commit.increment),
        "time": commit.time,
    }


def _export_pth(
    found: Found, models: list[str], target: Target, *, whole: bool, hidden: bool
) -> _Exported:
    _check_any(found, models)
    if len(models) > 1:
        raise UsageError(
            f"checkpoint {found.label} holds {len(models)} models: {', '.join(models)}",
            why="a .pth file has room for one",
            do="choose one with --model, or export to safetensors",
        )
    if found.manifest.framework.name != "torch":
        raise StateError(
            f"checkpoint {found.label} was made with {found.manifest.framework.name}",
            why="a .pth file is PyTorch's",
            do="export to safetensors",
        )
    state = found.manifest.state
    optimizers = [name for name, entry in state.items() if _is_optimizer(entry)] if whole else []
    keys = [models[0], *optimizers]
    total = sum(t.size_bytes for p, t in contents(found.manifest).tensors.items() if top(p) in keys)
    with byte_progress("reading", lambda: total, hidden=hidden) as progress:
        tree = read_state(found.repository.store, found.manifest, keys=keys, progress=progress)
    with target.scratch() as scratch:
        torch_files().write_pth(
            scratch,
            net=tree[models[0]],
            optimizers={name: tree[name] for name in optimizers},
            extra={"epoch": found.commit.epoch, "step": found.commit.step},
        )
        size_bytes = scratch.tell()
        target.write(FileChunks(scratch), size_bytes, hidden=hidden)
    left_out = [name for name in state if name not in (*keys, *RESERVED)] if whole else []
    return _Exported(len(tree[models[0]]), size_bytes, left_out)


def _say(found: Found, file: str, done: _Exported, format_: str, *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "file": file,
                "format": format_,
                "checkpoint": found.commit.checkpoint,
                "step": found.commit.step,
                "epoch": found.commit.epoch,
                "tensors": done.tensors,
                "size_bytes": done.size_bytes,
                "left_out": done.left_out,
            }
        )
        return
    what = f"{count(done.tensors, 'tensor')}, {size(done.size_bytes)}"
    click.echo(f"{clean(file)}: {what} of {found.label}, step {found.commit.step:,}")
    if done.left_out:
        click.echo(f"left out: {', '.join(map(clean, done.left_out))}")
