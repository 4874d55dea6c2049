"""Torn versions: what must not lie in an output when a script looks for the newest.

Mostly a version is a file. Where it is a folder, such as `checkpoint-500/`, one torn file makes all
of it useless; only where the files in it are numbered themselves each of them is a version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onward.jobs.numbers import choose_latest
from onward.jobs.series import version_of
from onward.jobs.torn import why_torn
from onward.stores import LocalStore


def torn_versions(
    store: LocalStore, keys: Iterable[str], *, all_keys: Collection[str]
) -> dict[str, str]:
    """Of these files the torn ones and why, or the folders that they make useless.

    `all_keys` is everything that lies there. Names of folders end with a slash.
    """
    torn: dict[str, str] = {}
    for key in keys:
        why = why_torn(store.path(key))
        if not why:
            continue
        name = version_of(key).name
        if name == key or _numbered_within(name, key, all_keys):
            torn[key] = why
        else:
            torn[name] = f"{key.removeprefix(name)}: {why}"
    return torn


def newest_torn(store: LocalStore, keys: Iterable[str]) -> dict[str, str]:
    """The torn versions among the newest of their numbers, each with the reason.

    For a folder whose files a script reads at its start: a torn `ckpt_101.pth` must not hide
    `ckpt_100.pth`.
    """
    left = set(keys)
    torn: dict[str, str] = {}
    while True:
        found = torn_versions(store, choose_latest(left).chosen, all_keys=left)
        if not found:
            return torn
        torn |= found
        left = without(left, found)


def without(keys: Iterable[str], versions: Collection[str]) -> set[str]:
    """The keys that are not of these versions."""
    return {key for key in keys if key not in versions and version_of(key).name not in versions}


def _numbered_within(folder: str, key: str, all_keys: Collection[str]) -> bool:
    """Whether there are other versions of this file in the folder."""
    ours = version_of(key.removeprefix(folder))
    others = (version_of(k.removeprefix(folder)) for k in all_keys if k.startswith(folder))
    return any(other.series == ours.series and other.order != ours.order for other in others)
