"""Another checkpoint's weights in the live model for a moment, to see how it would have done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from onward.frameworks.base import Framework, TensorLeaf, fetched
from onward.repository import Commit, Repository, description, read_state


@contextmanager
def weights_of(
    commit: Commit, repository: Repository, *, framework: Framework, objects: Mapping[str, Any]
) -> Iterator[bool]:
    """Within, the models have the weights of that checkpoint; afterwards their own, to the bit.

    Gives False, and changes nothing, where they do not fit: a head that has grown since.
    """
    models = {name: objects[name] for name in framework.names_of_weights(objects)}
    manifest = repository.manifest(commit)
    if framework.differences_in_weights(models, description(manifest)):
        yield False
        return
    tree = read_state(repository.store, manifest, keys=models)
    own = _copied(framework.capture(models))
    framework.restore_weights(models, tree)
    try:
        yield True
    finally:
        framework.restore_weights(models, own)


def _copied(tree: Any) -> Any:
    """The tree in memory of its own: what is captured shares that of the live model."""
    match tree:
        case TensorLeaf():
            leaf = fetched(tree)
            return replace(leaf, data=None if leaf.data is None else leaf.data.copy())
        case dict():
            return {key: _copied(child) for key, child in tree.items()}
        case list():
            return [_copied(child) for child in tree]
        case tuple():
            return tuple(_copied(child) for child in tree)
    return tree
