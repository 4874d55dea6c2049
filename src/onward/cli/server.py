"""`onward server`: what its administrator does where it runs, beside starting it."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from onward.cli.options import duration, json_option, write_json, write_lines
from onward.cli.serve import PACKAGES, server_option
from onward.cli.text import count, size
from onward.errors import UsageError


@click.group()
def server() -> None:
    """Back up a server, restore it, clean it; rebuild its index; make a token if all are lost."""


@server.command()
@click.argument("file", type=click.Path(path_type=Path))
@server_option("--folder", type=click.Path(path_type=Path), help="The server's folder.")
@server_option("--database", metavar="URL", help="As `onward serve` has it.")
@click.option("--with-secrets", "secrets", is_flag=True, help="Also the secrets, in clear text.")
@click.option("--without-logs", is_flag=True, help="Leave out logs and metrics of attempts.")
@json_option
def backup(file: Path, secrets: bool, without_logs: bool, as_json: bool, **given: Any) -> None:
    """Write all that a server has beside outputs into one new FILE, while it serves.

    Outputs are not in it: they are where they are, and are their own truth.
    """
    parts = _part("backup").back_up(_settings(given), file, secrets=secrets, logs=not without_logs)
    _tell(as_json, "backed up", file, parts)


@server.command()
@click.argument("file", type=click.Path(path_type=Path))
@server_option("--folder", type=click.Path(path_type=Path), help="A new folder.")
@server_option("--database", metavar="URL", help="An empty one, as `onward serve` will have it.")
@json_option
def restore(file: Path, as_json: bool, **given: Any) -> None:
    """Put a backup into a new folder, from where `onward serve` goes on."""
    parts = _part("backup").restore(_settings(given), file)
    _tell(as_json, "restored", file, parts)


@server.command()
@server_option("--folder", type=click.Path(path_type=Path), help="The server's folder.")
@server_option("--database", metavar="URL", help="As `onward serve` has it; it may be empty.")
@click.option(
    "--storage", "storages", multiple=True, metavar="ALIAS=URL",
    help="Register this place first, if it is not; may be repeated.",
)  # fmt: skip
@click.option(
    "--secret", "secrets", multiple=True, metavar="ALIAS:VARIABLE=NAME",
    help="The secret that a variable of such a storage gets; may be repeated.",
)  # fmt: skip
@json_option
def rebuild(
    storages: tuple[str, ...], secrets: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Make the index of models again from the outputs in storages; stop the server first.

    Models, checkpoints and lineage come back. Jobs, schedules, tokens and the audit log were only
    in the database: `onward server backup` keeps these.
    """
    places = dict(_pair(text, "--storage ALIAS=URL") for text in storages)
    variables: dict[str, dict[str, str]] = {}
    for text in secrets:
        place, name = _pair(text, "--secret ALIAS:VARIABLE=NAME")
        alias, _, variable = place.partition(":")
        variables.setdefault(alias, {})[variable] = name
    done = _part("models.rebuilding").rebuild_index(
        _settings(given), storages=places, secrets=variables,
        say=(lambda _: None) if as_json else click.echo,
    )  # fmt: skip
    if as_json:
        write_json(done.document())
    else:
        click.echo(
            f"{len(done.models):,} models with {done.checkpoints:,} checkpoints"
            + (f"; {len(done.problems):,} places cannot be read" if done.problems else "")
        )


@server.command()
@click.option(
    "--older-than", "older_than_s", required=True, callback=duration, metavar="DURATION",
    help="How long ago their jobs ended, such as 90d; 1d at least.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@server_option("--folder", type=click.Path(path_type=Path), help="The server's folder.")
@server_option("--database", metavar="URL", help="As `onward serve` has it.")
@json_option
def clean(older_than_s: float, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Free logs, metrics and copies of code of attempts whose jobs ended long ago.

    Jobs, their timelines and how they ended stay, and so do outputs and pinned code. Attempts that
    committed what was not pushed are left. The server may run. Nothing is ever freed by itself.
    """
    done = _part("cleaning").clean(
        _settings(given), older_than_s, now_s=time.time(), dry_run=dry_run
    )
    if as_json:
        write_json(
            {"attempts": done.attempts, "freed_bytes": done.freed_bytes, "left": done.left,
             "dry_run": dry_run}
        )  # fmt: skip
        return
    would = "would free" if dry_run else "freed"
    write_lines(
        [*(f"{attempt} is left as it is: {why}" for attempt, why in done.left.items()),
         f"{would} {size(done.freed_bytes)} of {count(len(done.attempts), 'attempt')}"]
    )  # fmt: skip


@server.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="admin",
              show_default=True, help="What whoever has it may do.")  # fmt: skip
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it is good.")
@server_option("--folder", type=click.Path(path_type=Path), help="The server's folder.")
@server_option("--database", metavar="URL", help="As `onward serve` has it.")
@json_option
def token(name: str, scope: str, days: float | None, as_json: bool, **given: Any) -> None:
    """Make a token called NAME without having one: whoever has the server's folder may.

    For when the first one is lost. The server may run. The audit log says so.
    """
    text = _part("security.first").token_from_folder(
        _settings(given), name, scope, lifetime_s=days * 86_400 if days is not None else None
    )
    if as_json:
        write_json({"token": text})
    else:
        click.echo(text)


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{text!r} is not understood", do=f"write {form}")
    return name, value


def _part(name: str) -> Any:
    """A part of the server, whose packages may not be here."""
    try:
        return import_module(f"onward.server.{name}")
    except ImportError as error:
        raise UsageError(
            "the server's packages are missing", why=str(error), do=PACKAGES
        ) from error


def _settings(given: dict[str, Any]) -> Any:
    from onward.server.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value})


def _tell(as_json: bool, done: str, file: Path, parts: list[str]) -> None:
    if as_json:
        write_json({"file": str(file), "parts": parts})
    else:
        click.echo(f"{done} {file}: {', '.join(parts)}")
