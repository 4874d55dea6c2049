"""Torn versions: what must not lie in an output when a script looks for the newest.

Mostly a version is a file. Where it is a folder, such as `checkpoint-500/`, one torn file makes all
of it useless; only where the files in it are numbered themselves each of them is a version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from onward.jobs.numbers import choose_latest
from onward.jobs.series import version_of
from onward.jobs.torn import why_torn
from onward.stores import LocalStore


def versions(keys: Iterable[str]) -> dict[str, str]:
    """For each file the version that is whole or torn with it: itself, or a folder with a slash."""
    names: dict[str, str] = {}
    orders: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    within: dict[str, tuple[str, str]] = {}
    for key in keys:
        names[key] = name = version_of(key).name
        if name != key:
            inner = version_of(key.removeprefix(name))
            within[key] = (name, inner.series)
            orders.setdefault(within[key], set()).add(inner.order)
    return {
        key: key if key in within and len(orders[within[key]]) > 1 else name
        for key, name in names.items()
    }


def torn_versions(
    store: LocalStore, keys: Iterable[str], names: Mapping[str, str]
) -> dict[str, str]:
    """Of these files the torn ones and why, or the folders that they make useless.

    `names` are the `versions` of everything that lies there.
    """
    torn: dict[str, str] = {}
    for key in keys:
        if why := why_torn(store.path(key)):
            name = names[key]
            torn[name] = why if name == key else f"{key.removeprefix(name)}: {why}"
    return torn


def newest_torn(store: LocalStore, keys: Iterable[str]) -> dict[str, str]:
    """The torn versions among the newest of their numbers, each with the reason.

    For a folder whose files a script reads at its start: a torn `ckpt_101.pth` must not hide
    `ckpt_100.pth`.
    """
    left = set(keys)
    names = versions(left)
    torn: dict[str, str] = {}
    while True:
        found = torn_versions(store, choose_latest(left).chosen, names)
        if not found:
            return torn
        torn |= found
        left = without(left, found)


def without(keys: Iterable[str], torn: Collection[str]) -> set[str]:
    """The keys that are not of these versions."""
    return {key for key in keys if key not in torn and version_of(key).name not in torn}
