"""`onward export`: a checkpoint as one ordinary file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onward import _version
from onward.cli.export_files import Exported, echo, export_native, layers_of
from onward.cli.export_mlflow import register, say
from onward.cli.options import best_options, json_option, output_argument, write_json
from onward.cli.safetensors_file import SafetensorsStream
from onward.cli.target import Target
from onward.cli.text import clean, count, size
from onward.errors import UsageError
from onward.facts.contents import RESERVED, contents, top
from onward.facts.outputs import Found, open_output, using
from onward.frameworks.translation_by_shape import KINDS
from onward.repository import Tensor
from onward.trackers.mlflow_registry import Registered

# What safetensors files say under "format", for their framework's own loader.
_FORMATS = {"torch": "pt", "mindspore": "ms"}
_BY_SUFFIX = {".pth": "pth", ".pt": "pth", ".ckpt": "ckpt"}


@click.command()
@output_argument
@click.argument("rest", metavar="[CHECKPOINT] FILE", nargs=-1)
@best_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["safetensors", "pth", "ckpt"]),
    help="By default what the name of FILE says, else safetensors.",
)
@click.option(
    "--only",
    type=click.Choice(["weights", "all"]),
    help="By default all in a .pth or .ckpt (net, optimizer, epoch), weights in safetensors.",
)
@click.option("--model", default="", metavar="NAME", help="Which model, where there are several.")
@click.option(
    "--mlflow", metavar="[NAME]", is_flag=False, flag_value="",
    help="Instead of FILE, register it in MLflow's registry as a version of the model NAME.",
)  # fmt: skip
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME=KIND",
    help="What a layer is, where another framework's names and shapes do not tell: "
    + ", ".join(KINDS)
    + ".",
)
@click.option(
    "--keep-names",
    is_flag=True,
    help="Translate no names: layers of mindspore.mint have PyTorch's.",
)
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
    layers: tuple[str, ...],
    keep_names: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a checkpoint (by default the latest) to one ordinary file.

    A safetensors file holds tensors under the names that the model gives them; with several
    models, or --only all, other names say where in the state they are. Its metadata name the
    checkpoint. A .pth file has the form {"net", "optimizer", "epoch"}, where epoch counts those
    completed; torch.load reads it with weights_only=True. A .ckpt file is written by MindSpore's
    save_checkpoint, with the optimizer's state as in its own files. FILE may be a URL. It appears
    whole or not at all.

    A .ckpt of a checkpoint made with PyTorch, or a .pth of one made with MindSpore, holds the
    weights under the other framework's names, as far as names and shapes tell which layer is
    which; what they do not tell is kept and listed.

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
    suffix = "." + file.lower().rpartition(".")[2]
    format_ = format_ or _BY_SUFFIX.get(suffix, "safetensors")
    said = None if keep_names else layers_of(layers)
    if (keep_names and layers) or (said != {} and format_ == "safetensors"):
        raise UsageError(
            "--layer and --keep-names are for .pth and .ckpt files, and one goes without the other",
            do="leave them out",
        )
    target = Target(file, force=force)

    def export_it(found: Found) -> tuple[Found, Exported]:
        models = models_in(found, model)
        if format_ == "safetensors":
            whole = only == "all"
            return found, _export_safetensors(found, models, target, whole=whole, hidden=as_json)
        return found, export_native(
            found,
            _only_one(found, models, format_),
            _optimizers(found),
            target,
            format_=format_,
            whole=only != "weights",
            layers=said,
            hidden=as_json,
        )

    repository = open_output(output)
    found, done = using(repository, checkpoint, export_it, metric=metric, lowest=lowest)
    _say(found, file, done, format_, as_json=as_json)


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
) -> Exported:
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
    return Exported(len(named), stream.size_bytes, left_out)


def _name_in_file(path: str, models: list[str]) -> str:
    """A parameter's own name where there is one model; else with the model's name before it."""
    model, _, name = path.partition("/")
    if model not in models:
        return path
    return name if len(models) == 1 else f"{model}.{name}"


def _metadata(found: Found) -> dict[str, str]:
    commit, manifest = found.commit, found.manifest
    return {
        "format": _FORMATS.get(manifest.framework.name, "np"),
        "made_by": f"onward {_version.__version__}",
        "repository": manifest.repository,
        "checkpoint": commit.checkpoint,
        "step": str(commit.step),
        "epoch": str(commit.epoch),
        "increment": str(commit.increment),
        "time": commit.time,
    }


def _only_one(found: Found, models: list[str], format_: str) -> str:
    _check_any(found, models)
    if len(models) > 1:
        raise UsageError(
            f"checkpoint {found.label} holds {len(models)} models: {', '.join(models)}",
            why=f"a .{format_} file has room for one",
            do="choose one with --model, or export to safetensors",
        )
    return models[0]


def _optimizers(found: Found) -> list[str]:
    return [name for name, entry in found.manifest.state.items() if _is_optimizer(entry)]


def _say(found: Found, file: str, done: Exported, format_: str, *, as_json: bool) -> None:
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
                **done.document(),
            }
        )
        return
    what = f"{count(done.tensors, 'tensor')}, {size(done.size_bytes)}"
    click.echo(f"{clean(file)}: {what} of {found.label}, step {found.commit.step:,}")
    echo(done)
