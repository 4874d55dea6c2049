"""Checkpoints as documents."""

from __future__ import annotations

from typing import Any

import msgspec

from onward.facts.contents import contents, own_packs, plain
from onward.facts.outputs import Found
from onward.repository import Commit, History


def checkpoint_document(
    history: History, versions: dict[str, int], commit: Commit
) -> dict[str, Any]:
    """One checkpoint as `--json` shows it, in every command."""
    return {
        "checkpoint": commit.checkpoint,
        "version": versions[commit.checkpoint],
        "step": commit.step,
        "epoch": commit.epoch,
        "increment": commit.increment,
        "finished": commit.finished,
        "reason": commit.reason,
        "time": commit.time,
        "parent": commit.parent,
        "parent_dropped": commit.parent in history.dropped,
        "generation": commit.generation,
        "stored_bytes": commit.stored,
        "metrics": commit.metrics,
        "scores": msgspec.to_builtins(commit.row),
        "missed": [{"step": missed.step, "why": missed.why} for missed in commit.failed_before],
        "aliases": history.names_of(commit.checkpoint) if history.aliases else [],
        "pinned": commit.checkpoint in history.pins,
    }


def shown_document(found: Found) -> dict[str, Any]:
    """What made one checkpoint and what it holds: `onward show --json`."""
    history, manifest = found.repository.history, found.manifest
    own = own_packs(found.repository, found.commit, manifest)
    held = contents(manifest)
    return {
        "output": found.repository.store.url,
        **checkpoint_document(history, history.versions(), found.commit),
        "verb": manifest.verb,
        "origin": manifest.origin,
        "framework": {"name": manifest.framework.name, "version": manifest.framework.version},
        "about": manifest.about,
        "size_bytes": manifest.size_bytes(),
        "packs": {
            pack: {"size_bytes": ref.size, "own": pack in own}
            for pack, ref in manifest.packs.items()
        },
        "tensors": [
            {
                "path": path,
                "kind": tensor.kind,
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "size_bytes": tensor.size_bytes,
                "digest": tensor.digest,
                "packs": list(dict.fromkeys(part.pack for part in tensor.ranges())),
                "inherited": not any(part.pack in own for part in tensor.ranges()),
            }
            for path, tensor in held.tensors.items()
        ],
        "values": {path: plain(value) for path, value in held.values.items()},
    }
