"""Bringing live objects to a checkpoint: everything is compared before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onward.errors import Damaged, Mismatch
from onward.frameworks.base import Framework
from onward.repository import Manifest, Repository, Writer, description, open_repository, read_state
from onward.stores import open_store
from onward.training.branching import Branch
from onward.training.growing import Growth, Plan
from onward.training.live import OWN, RANDOMNESS
from onward.training.opening import Beginning
from onward.training.run import Run


@dataclass(frozen=True, slots=True)
class Fit:
    """How a checkpoint comes to fit the live objects; `branch` where only weights are taken."""

    plan: Plan
    branch: Branch | None = None


def check_fits(
    growth: Growth,
    beginning: Beginning,
    repository: Repository | None,
    on_damage: str,
    rename: Mapping[str, str] | None = None,
) -> Fit | None:
    """Raises `Mismatch` with every difference between the live objects and the checkpoint.

    Returns how it comes to fit; None for a fresh start. With `on_damage="fall-back"` a checkpoint
    whose names are damaged is passed over.
    """
    while beginning.manifest is not None:
        assert repository is not None
        try:
            return _check(growth, beginning.manifest, repository, verb=beginning.verb)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
    if beginning.origin is not None:
        return _check_branch(growth, *_origin(beginning.origin), rename)
    return None


def bring_to(
    run: Run,
    growth: Growth,
    repository: Repository,
    writer: Writer,
    beginning: Beginning,
    on_damage: str,
    rename: Mapping[str, str] | None = None,
) -> None:
    """Restores what `beginning` chose. A fresh start leaves everything as it is.

    Bytes are read straight into the live objects where that can be. Raises `Mismatch` with all of
    them untouched; `Damaged`, where the bytes of a checkpoint turn out to be other than what was
    written, may leave them overwritten in part. With `on_damage="fall-back"` the next intact
    checkpoint then overwrites all of it; should that one not fit, `Mismatch` comes after damage.
    """
    framework, objects = growth.framework, growth.objects
    fit = check_fits(growth, beginning, repository, on_damage, rename)
    if fit is not None and fit.branch is not None:
        assert beginning.origin is not None
        _take_weights(growth, fit.plan, fit.branch, beginning.origin)
        beginning.taken = fit.branch.sentence()
        run.branched(fit.branch.about())
    while fit is not None and beginning.manifest is not None:
        run.increment, run.verb = beginning.increment, beginning.verb
        try:
            into = fit.plan.destinations(objects, beginning.manifest)
            state = read_state(writer.store, beginning.manifest, into=into)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
            fit = check_fits(growth, beginning, repository, on_damage)
            continue
        state = fit.plan.applied(state)
        _restore(run, framework, fit.plan.objects, state, beginning.manifest, beginning.verb)
        writer.base_on(beginning.manifest)
        return


def _take_weights(growth: Growth, plan: Plan, branch: Branch, origin: Mapping[str, str]) -> None:
    repository, manifest = _origin(origin)
    objects = growth.objects
    weights = {name: objects[name] for name in growth.framework.names_of_weights(objects)}
    # What changes its name on the way has no place in live memory under which it could be read.
    into = plan.destinations(weights, manifest) if branch.as_it_is else None
    tree = branch.applied(read_state(repository.store, manifest, keys=branch.keys, into=into))
    growth.framework.restore_weights(weights, plan.applied(tree))


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
        run.live.restore_randomness_later(randomness)


def _check(growth: Growth, manifest: Manifest, repository: Repository, *, verb: str) -> Fit:
    framework, objects = growth.framework, growth.objects
    if manifest.framework.name != framework.name:
        raise Mismatch(
            f"cannot {verb} checkpoint {manifest.checkpoint} with {framework.name}",
            why=f"{manifest.framework.name} made it, and optimizers, schedules and randomness are "
            "its own",
            differences=[f"it was made with {manifest.framework.name}, not {framework.name}"],
            do=f"take its weights into a new output with --branch {repository.store.url}@"
            f"{manifest.checkpoint} (branch_from=…)",
        )
    described = _described(manifest)
    plan = growth.plan(repository.store, manifest, described, verb=verb)
    tree = plan.applied(described)
    if verb == "continue":
        differences = framework.differences_for_new_budget(plan.objects, tree)
    else:
        differences = framework.differences(objects, tree)
    differences = [*plan.all_differences(described), *differences]
    if differences:
        raise _mismatch(
            manifest,
            differences,
            hint=plan.hint(described),
            do="make the objects as they were, or take only the weights that fit into a new output "
            "with --branch (branch_from=…)",
        )
    return Fit(plan)


def _check_branch(
    growth: Growth,
    repository: Repository,
    manifest: Manifest,
    rename: Mapping[str, str] | None,
) -> Fit:
    framework, objects = growth.framework, growth.objects
    branch = Branch(framework, objects, manifest, rename)
    tree = branch.applied(_described(manifest))
    plan = growth.plan(repository.store, manifest, tree, verb="branch")
    differences = [
        *branch.differences,
        *plan.all_differences(tree),
        *framework.differences_in_weights(objects, plan.applied(tree)),
    ]
    if differences:
        hint = "; ".join(filter(None, [plan.hint(tree), branch.hint()]))
        raise _mismatch(
            manifest, differences, hint=hint, do="make the model as it was in the checkpoint"
        )
    return Fit(plan, branch)


def _described(manifest: Manifest) -> dict[str, Any]:
    return {k: v for k, v in description(manifest).items() if k not in (OWN, RANDOMNESS)}


def _mismatch(manifest: Manifest, differences: list[str], *, hint: str, do: str) -> Mismatch:
    return Mismatch(
        f"the live objects do not fit checkpoint {manifest.checkpoint}",
        why="nothing was restored",
        differences=differences,
        do=(f"{hint}; else " if hint else "") + do,
    )


def _origin(origin: Mapping[str, str]) -> tuple[Repository, Manifest]:
    repository = open_repository(open_store(origin["url"]))
    return repository, repository.manifest(repository.history.resolve(origin["checkpoint"]))
