"""A job as commands are told of it: a file or a script, options, and the code that goes with it."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onward.cli.server_options import data_input
from onward.errors import UsageError

if TYPE_CHECKING:
    from onward.client import Client

F = TypeVar("F", bound=Callable[..., Any])

_SPECS = (".toml", ".yaml", ".yml", ".json")


def job_options(function: F) -> F:
    """What may be said of a job beside SPEC|SCRIPT, and ARGUMENTS for the script."""
    function = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(function)
    function = click.option(
        "--secret", multiple=True, metavar="NAME=SECRET",
        help="A variable that gets a secret of the server; repeatable.",
    )(function)  # fmt: skip
    function = click.option(
        "--env", multiple=True, metavar="NAME=VALUE", help="For the script; repeatable."
    )(function)
    function = click.option(
        "--predownload", default="", metavar="no|latest|all|CHECKPOINT",
        help="What is fetched from the output before the script starts.",
    )(function)  # fmt: skip
    function = click.option(
        "--output", default="", metavar="LOCATION", help="Of the training output."
    )(function)
    function = click.option(
        "--data", default="", metavar="LOCATION", help="Of the data, such as team:digits."
    )(function)
    function = click.option(
        "--code", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
        help="Sent to the server; in a git repository what git knows. By default the folder of "
        "SPEC, or this one.",
    )(function)  # fmt: skip
    function = click.option("--name", default="", help="For people; by default the script's name.")(
        function
    )
    return function


def read_job(what: str, given: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The job's document, and the folder of its code where the document does not say it."""
    spec, folder = _spec(what)
    _change(spec, given)
    if "code" in spec and given["code"] is None:
        folder = None
    elif given["code"] is not None:
        folder = given["code"]
    return spec, folder


def send_code(client: Client, spec: dict[str, Any], folder: Path | None) -> None:
    """Stores the code on the server and names it in the document."""
    if folder is not None:
        spec["code"] = {"digest": _upload(client, folder, str(spec.get("name", "")))}


def _spec(what: str) -> tuple[dict[str, Any], Path | None]:
    """The document so far, and the folder of its code if nothing else says so."""
    path = Path(what)
    if path.suffix.lower() not in _SPECS:
        return {"name": path.stem, "command": [what]}, Path(".")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} cannot be read", why=str(error)) from error
    document = _parsed(path, text)
    if not isinstance(document, dict):
        raise UsageError(f"{what} is no job", why="it holds no names with values")
    return document, path.parent


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        if path.suffix.lower() == ".json":
            return json.loads(text)
        return _yaml(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be understood", why=str(error)) from error


def _yaml(text: str) -> Any:
    """Raises `ValueError`."""
    try:
        import yaml
    except ImportError as error:
        raise UsageError(
            "a package for YAML is missing", do="pip install 'onward[client]', or use TOML"
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _change(spec: dict[str, Any], given: dict[str, Any]) -> None:
    if given["name"]:
        spec["name"] = given["name"]
    if given["arguments"]:
        command = spec.get("command") or []
        if not isinstance(command, list):
            raise UsageError("command of the job is no list", do='command = ["train.py", …]')
        spec["command"] = [*command[:1], *given["arguments"]]
    if given["data"]:
        inputs = _part(spec, "inputs")
        _part(inputs, data_input(inputs))["location"] = given["data"]
    if given["output"]:
        _part(spec, "output")["location"] = given["output"]
    if given["predownload"]:
        _part(spec, "output")["predownload"] = given["predownload"]
    for option, part in (("env", "environment"), ("secret", "secrets")):
        for pair in given[option]:
            name, equals, value = pair.partition("=")
            if not equals or not name:
                raise UsageError(f"--{option} {name} has no value", do=f"--{option} NAME=VALUE")
            _part(spec, part)[name] = value


def _part(spec: dict[str, Any], name: str) -> dict[str, Any]:
    part = spec.setdefault(name, {})
    if not isinstance(part, dict):
        raise UsageError(f"{name} of the job is no table")
    return part


def _upload(client: Client, folder: Path, name: str) -> str:
    from onward.client.packing import pack_code

    with tempfile.TemporaryFile() as archive:
        pack_code(folder, archive)
        digest: str = client.upload_code(archive, name=name[:200])["digest"]
        return digest
