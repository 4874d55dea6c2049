"""Bringing live objects to a checkpoint: everything is compared before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onward.errors import Damaged, Mismatch
from onward.frameworks.base import Framework
from onward.repository import Manifest, Repository, Writer, description, open_repository, read_state
from onward.stores import Store, open_store
from onward.training.growing import Growth, Plan
from onward.training.opening import Beginning
from onward.training.run import OWN, RANDOMNESS, Run


def check_fits(
    growth: Growth, beginning: Beginning, repository: Repository | None, on_damage: str
) -> Plan | None:
    """Raises `Mismatch` with every difference between the live objects and the checkpoint.

    Returns how its tables come to fit; None for a fresh start. With `on_damage="fall-back"` a
    checkpoint whose names are damaged is passed over.
    """
    while beginning.manifest is not None:
        assert repository is not None
        try:
            return _check(growth, beginning.manifest, repository.store, verb=beginning.verb)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
    if beginning.origin is not None:
        origin, manifest = _origin(beginning.origin)
        return _check(growth, manifest, origin.store, verb="branch")
    return None


def bring_to(
    run: Run,
    growth: Growth,
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
    framework, objects = growth.framework, growth.objects
    plan = check_fits(growth, beginning, repository, on_damage)
    if plan is not None and beginning.origin is not None:
        origin, manifest = _origin(beginning.origin)
        weights = {name: objects[name] for name in framework.names_of_weights(objects)}
        into = plan.destinations(weights, manifest)
        tree = read_state(origin.store, manifest, keys=weights, into=into)
        framework.restore_weights(weights, plan.applied(tree))
    while plan is not None and beginning.manifest is not None:
        run.increment, run.verb = beginning.increment, beginning.verb
        try:
            into = plan.destinations(objects, beginning.manifest)
            state = read_state(writer.store, beginning.manifest, into=into)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
            plan = check_fits(growth, beginning, repository, on_damage)
            continue
        state = plan.applied(state)
        _restore(run, framework, plan.objects, state, beginning.manifest, beginning.verb)
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
    if verb != "continue":
        run.go_on_from(manifest.about)
    if own is not None:
        framework.restore({OWN: run.counters}, {OWN: own})
    if randomness is not None:
        framework.restore_randomness(randomness)
        run.restore_randomness_later(randomness)


def _check(growth: Growth, manifest: Manifest, store: Store, *, verb: str) -> Plan:
    framework, objects = growth.framework, growth.objects
    described = {k: v for k, v in description(manifest).items() if k not in (OWN, RANDOMNESS)}
    if manifest.framework.name != framework.name:
        raise _mismatch(
            manifest, [f"it was made with {manifest.framework.name}, not {framework.name}"]
        )
    plan = growth.plan(store, manifest, verb=verb)
    tree = plan.applied(described)
    if verb == "branch":
        differences = framework.differences_in_weights(objects, tree)
    elif verb == "continue":
        differences = framework.differences_for_new_budget(plan.objects, tree)
    else:
        differences = framework.differences(objects, tree)
    differences = [*plan.all_differences(described), *differences]
    if differences:
        raise _mismatch(manifest, differences, hint=plan.hint(described))
    return plan


def _mismatch(manifest: Manifest, differences: list[str], *, hint: str = "") -> Mismatch:
    return Mismatch(
        f"the live objects do not fit checkpoint {manifest.checkpoint}",
        why="nothing was restored",
        differences=differences,
        do=(f"{hint}; else " if hint else "")
        + "make the objects as they were, or take only the weights that fit into a new output "
        "with --branch (branch_from=…)",
    )


def _origin(origin: Mapping[str, str]) -> tuple[Repository, Manifest]:
    repository = open_repository(open_store(origin["url"]))
    return repository, repository.manifest(repository.history.resolve(origin["checkpoint"]))
