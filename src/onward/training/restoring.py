"""Bringing live objects to a checkpoint: everything is compared before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onward.errors import Damaged, Mismatch
from onward.frameworks.base import Framework
from onward.repository import Manifest, Repository, Writer, description, open_repository, read_state
from onward.stores import open_store
from onward.training.opening import Beginning
from onward.training.run import OWN, RANDOMNESS, Run


def check_fits(framework: Framework, objects: Mapping[str, Any], beginning: Beginning) -> None:
    """Raises `Mismatch` with every difference between the live objects and the checkpoint."""
    if beginning.manifest is not None:
        _check(framework, objects, beginning.manifest, weights_only=False, verb=beginning.verb)
    elif beginning.origin is not None:
        _, manifest = _origin(beginning.origin)
        _check(framework, objects, manifest, weights_only=True, verb="branch")


def bring_to(
    run: Run,
    framework: Framework,
    objects: Mapping[str, Any],
    repository: Repository,
    writer: Writer,
    beginning: Beginning,
    on_damage: str,
) -> None:
    """Restores what `beginning` chose. A fresh start leaves everything as it is.

    Bytes are read straight into the live objects where that can be. Raises `Mismatch` with all of
    them untouched; `Damaged`, where the bytes of a checkpoint turn out to be other than what was
    written, may leave them overwritten in part. With `on_damage="fall-back"` the next intact
    checkpoint then overwrites all of it; should that one not fit, `Mismatch` comes after damage.
    """
    check_fits(framework, objects, beginning)
    if beginning.origin is not None:
        origin, manifest = _origin(beginning.origin)
        weights = {name: objects[name] for name in framework.names_of_weights(objects)}
        into = framework.destinations(weights)
        tree = read_state(origin.store, manifest, keys=weights, into=into)
        framework.restore_weights(weights, tree)
    while beginning.manifest is not None:
        try:
            into = framework.destinations(objects)
            state = read_state(writer.store, beginning.manifest, into=into)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
            run.increment, run.verb = beginning.increment, beginning.verb
            check_fits(framework, objects, beginning)
            continue
        _restore(run, framework, objects, state, beginning.manifest, beginning.verb)
        writer.base_on(beginning.manifest)
        return


def _restore(
    run: Run,
    framework: Framework,
    objects: Mapping[str, Any],
    state: dict[str, Any],
    manifest: Manifest,
    verb: str,
) -> None:
    # A checkpoint made by `onward import` has neither: its counters are those of its record.
    own = state.pop(OWN, None)
    randomness = state.pop(RANDOMNESS, None)
    if verb == "continue":
        framework.restore_for_new_budget(objects, state)
    else:
        framework.restore(objects, state)
    run.began_from(manifest.checkpoint)
    run.counters.global_step = manifest.step
    run.counters.new_increment = verb == "continue"
    run.counters.seconds_before = float(manifest.about.get("seconds", 0.0))
    if verb != "continue":
        run.go_on_from(manifest.about)
    if own is not None:
        framework.restore({OWN: run.counters}, {OWN: own})
    if randomness is not None:
        framework.restore_randomness(randomness)
        run.restore_randomness_later(randomness)


def _check(
    framework: Framework,
    objects: Mapping[str, Any],
    manifest: Manifest,
    *,
    weights_only: bool,
    verb: str,
) -> None:
    tree = {k: v for k, v in description(manifest).items() if k not in (OWN, RANDOMNESS)}
    if manifest.framework.name != framework.name:
        differences = [f"it was made with {manifest.framework.name}, not {framework.name}"]
    elif weights_only:
        differences = framework.differences_in_weights(objects, tree)
    elif verb == "continue":
        differences = framework.differences_for_new_budget(objects, tree)
    else:
        differences = framework.differences(objects, tree)
    if differences:
        raise Mismatch(
            f"the live objects do not fit checkpoint {manifest.checkpoint}",
            why="nothing was restored",
            differences=differences,
            do="make the objects as they were, or take only the weights that fit into a new output "
            "with --branch (branch_from=…)",
        )


def _origin(origin: Mapping[str, str]) -> tuple[Repository, Manifest]:
    repository = open_repository(open_store(origin["url"]))
    return repository, repository.manifest(repository.history.resolve(origin["checkpoint"]))
