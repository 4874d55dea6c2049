"""Which server, and by which token: options, the environment, or the file of `onward login`."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from onward.errors import UsageError

SERVER = "ONWARD_SERVER"
TOKEN = "ONWARD_TOKEN"
PLAIN_HTTP = "ONWARD_PLAIN_HTTP"


@dataclass(frozen=True, slots=True)
class Login:
    """A server's address and a token for it. `plain_http`: it is known that others can listen."""

    server: str
    token: str = field(repr=False)
    plain_http: bool = False


def find_login(server: str = "", variables: Mapping[str, str] | None = None) -> Login:
    """What was given, else the environment, else the file. Raises `UsageError` if one is missing.

    A token of the file goes to the server of the file alone.
    """
    found = os.environ if variables is None else variables
    saved = _read(login_file(found))
    address = server or found.get(SERVER, "") or (saved.server if saved else "")
    if not address:
        raise UsageError(
            "no server is known",
            why=f"there is no --server, no {SERVER}, and nobody logged in",
            do="onward login http://127.0.0.1:8420",
        )
    address = checked_address(address)
    known = saved if saved is not None and saved.server == address else None
    token = found.get(TOKEN, "") or (known.token if known else "")
    if not token:
        raise UsageError(
            f"no token for {address} is known",
            why=f"there is no {TOKEN}, and nobody logged in there",
            do=f"onward login {address}",
        )
    plain = bool(found.get(PLAIN_HTTP)) or bool(known and known.plain_http)
    login = Login(address, token, plain)
    check_secrecy(login)
    return login


def save_login(login: Login, variables: Mapping[str, str] | None = None) -> Path:
    """Keeps it for the next commands, in a file that nobody else can read."""
    path = login_file(os.environ if variables is None else variables)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    document = {"server": login.server, "token": login.token, "plain_http": login.plain_http}
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file)
    os.replace(temporary, path)
    return path


def login_file(variables: Mapping[str, str]) -> Path:
    """Where it is kept: in `ONWARD_HOME`, or the user's folder of settings."""
    home = variables.get("ONWARD_HOME")
    folder = Path(home) if home else Path(platformdirs.user_config_dir("onward"))
    return folder / "login.json"


def checked_address(address: str) -> str:
    """Without a slash at its end. Raises `UsageError` for what is no server's address."""
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an end, a port that is none
        is_one = False
    if not is_one or parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{address!r} is no address of a server", do="such as https://onward.lan")
    return address.rstrip("/")


def check_secrecy(login: Login) -> None:
    """Raises `UsageError` where the token would be sent so that others can read it."""
    parts = urlsplit(login.server)
    if parts.scheme == "https" or login.plain_http or _is_here(parts.hostname or ""):
        return
    raise UsageError(
        f"{login.server} is not encrypted",
        why="whoever is on the way could read the token and use it",
        do=f"use https, or say that the network is safe: onward login --plain-http, {PLAIN_HTTP}=1",
    )


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> Login | None:
    try:
        found = json.loads(path.read_text())
        return Login(found["server"], found["token"], found.get("plain_http") is True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read", why=str(error), do="log in again: onward login URL"
        ) from error
