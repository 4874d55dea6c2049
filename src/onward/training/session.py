"""`onward.open`: from an output and live objects to a run that goes on where it should."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from onward import _version
from onward.errors import (
    Damaged,
    Mismatch,
    NotAnOutput,
    OnwardError,
    UsageError,
    WrongVerb,
)
from onward.frameworks import framework_for
from onward.frameworks.base import Framework
from onward.repository import (
    Manifest,
    Repository,
    Writer,
    description,
    open_or_create,
    open_repository,
    read_state,
)
from onward.stores import Location, LocalStore, open_store
from onward.training.environment import Environment, read_environment
from onward.training.loaders import Loaders
from onward.training.opening import Beginning, decide
from onward.training.places import Pusher, claim_working_copy
from onward.training.policy import SavePolicy
from onward.training.reporting import Reporter, reporter_for
from onward.training.run import Run

RESERVED = ("onward", "randomness")

Verb = Literal["auto", "resume", "continue", "branch"]


def open(
    url: str | os.PathLike[str] | None = None,
    *,
    verb: Verb = "auto",
    checkpoint: str = "",
    branch_from: str = "",
    seed: int = 0,
    save_every_steps: int | None = None,
    save_every_seconds: float | None = 600.0,
    save_every_epoch: bool = True,
    on_save_failure: Literal["warn", "stop"] = "warn",
    on_damage: Literal["raise", "fall-back"] = "raise",
    single_writer: bool = False,
    config: Mapping[str, Any] | None = None,
    **objects: Any,
) -> Run:
    """Opens an output for training and brings the live objects to where it stopped.

    `url` is a path or an object-store URL; by default the output that `onward run` gave. The
    `objects` are everything that learns or counts, by any names: models, optimizers, schedulers,
    a gradient scaler, EMA, generators, or anything with `state_dict` and `load_state_dict`.
    Global randomness (Python, NumPy, the framework) is included.

    With `verb="auto"` an unfinished increment is resumed, exactly; after a finished one the next
    begins (*continue*: full state, but schedules and learning rates as this script built them).
    `branch_from="<output>@<checkpoint>"` takes only weights. `checkpoint` names one to go on from
    instead of the newest. `seed` decides the order of samples. `config` (plain values) is kept for
    people and for `onward diff`.

    Triggers to save combine; `on_save_failure="stop"` turns a failed save from a warning into an
    error. `on_damage="fall-back"` passes over damaged checkpoints.

    Raises `Mismatch` with every difference at once before anything is touched, `WrongVerb`,
    `Damaged`, `UnsafeStore`, `BadURL`, `StoreError`.

        run = onward.open("out", model=model, optimizer=optimizer, scheduler=scheduler)
    """
    environment = read_environment()
    _check_objects(objects)
    framework = framework_for(objects.values())
    place = str(url) if url is not None else environment.output
    if not place:
        raise UsageError(
            "onward.open needs an output",
            why="no url was given and the script was not started by `onward run`",
            do='pass one: onward.open("out", model=model)',
        )
    agent = _agent_for(place, environment)
    verb = verb if verb != "auto" else agent.verb or "auto"  # type: ignore[assignment]
    if (branch_from or agent.branch_from) and verb == "auto":
        verb = "branch"
    chosen = checkpoint or agent.checkpoint
    reporter = reporter_for(environment.events_fd)
    repository, writer, pusher = _claim(
        place, agent, reporter, single_writer=single_writer, checkpoint=chosen, verb=verb
    )
    beginning = decide(
        repository,
        verb=verb,
        checkpoint=chosen,
        branch_from=branch_from or agent.branch_from,
        on_damage=agent.on_damage or on_damage,
    )
    run = Run(
        objects=objects,
        framework=framework,
        writer=writer,
        verb=beginning.verb,
        increment=beginning.increment,
        loaders=Loaders(framework.name, seed=seed, again=verb == "continue"),
        policy=SavePolicy(
            agent.save_every_steps or save_every_steps,
            agent.save_every_seconds or save_every_seconds,
            save_every_epoch,
        ),
        reporter=reporter,
        about=_about(config, environment),
        origin=_origin(branch_from or agent.branch_from, beginning),
        on_save_failure=on_save_failure,
        finish_push=pusher.finish if pusher else None,
        push_failure=(lambda: pusher.failure) if pusher else None,
    )
    _bring_to(run, framework, objects, repository, writer, beginning, agent.on_damage or on_damage)
    for rejected in beginning.rejected:
        reporter.say(f"not {rejected.checkpoint}: {rejected.reason}")
    reporter.say(_sentence(beginning))
    run.begin()
    if pusher is not None:
        pusher.start()
    return run


def _check_objects(objects: Mapping[str, Any]) -> None:
    for name in RESERVED:
        if name in objects:
            raise UsageError(f"the name {name!r} is taken by Onward itself", do="use another name")
    if not objects:
        raise UsageError(
            "onward.open was given nothing to keep",
            do="pass the model: onward.open(url, model=model, optimizer=optimizer)",
        )


def _agent_for(place: str, environment: Environment) -> Environment:
    """What the agent says about this very output; about another one it says nothing."""
    if not environment.output or not Location.parse(place).is_local:
        return Environment()
    same = Path(place).resolve() == Path(environment.output).resolve()
    return environment if same else Environment()


def _claim(
    place: str,
    agent: Environment,
    reporter: Reporter,
    *,
    single_writer: bool,
    checkpoint: str,
    verb: str,
) -> tuple[Repository, Writer, Pusher | None]:
    who = f"{socket.gethostname()} pid {os.getpid()} ({Path(sys.argv[0] or 'python').name})"
    if agent.claim_generation is not None:
        repository = open_repository(open_store(place))
        writer = repository.claim(
            who, generation=agent.claim_generation, writer=agent.claim_writer
        )
        return repository, writer, None
    location = Location.parse(place)
    if location.is_local:
        store = open_store(place)
        _refuse_before_claim(store, verb)
        repository = open_or_create(store)
        if isinstance(store, LocalStore):
            store.sweep_temporaries("onward/")
        return repository, repository.claim(who), None
    folder, mirror, writer = claim_working_copy(
        place, who, single_writer=single_writer, checkpoint=checkpoint, say=reporter.say
    )
    pusher = Pusher(mirror, reporter.say)
    pusher.folder = folder  # held as long as commits may be pushed from it
    return mirror.local, writer, pusher


def _refuse_before_claim(store: Any, verb: str) -> None:
    """An impossible verb must not make an output, nor fence whoever is training there."""
    try:
        repository: Repository | None = open_repository(store)
    except NotAnOutput:
        repository = None
    if verb != "auto":
        latest = repository.history.latest() if repository else None
        if verb in ("resume", "continue") and latest is None:
            raise WrongVerb(
                f"cannot {verb}",
                why="the output holds no checkpoint yet",
                do="leave the flag away: the first run starts fresh",
            )


def _bring_to(
    run: Run,
    framework: Framework,
    objects: Mapping[str, Any],
    repository: Repository,
    writer: Writer,
    beginning: Beginning,
    on_damage: str,
) -> None:
    if beginning.verb == "branch":
        assert run.origin is not None
        _branch(framework, objects, run.origin)
    while beginning.manifest is not None:
        manifest = beginning.manifest
        _check_fits(framework, objects, manifest)
        try:
            state = read_state(writer.store, manifest)
        except Damaged as error:
            if on_damage != "fall-back":
                raise
            _pass_over(repository, beginning, str(error.what))
            run.increment, run.verb = beginning.increment, beginning.verb
            continue
        _restore(run, framework, objects, state, beginning)
        writer.base_on(manifest)
        run.checkpoint = manifest.checkpoint
        return


def _restore(
    run: Run, framework: Framework, objects: Mapping[str, Any], state: dict[str, Any],
    beginning: Beginning,
) -> None:  # fmt: skip
    own, randomness = state.pop("onward"), state.pop("randomness")
    if beginning.verb == "continue":
        framework.restore_for_new_budget(objects, state)
    else:
        framework.restore(objects, state)
    run.load_own_state(own, new_increment=beginning.verb == "continue")
    framework.restore_randomness(randomness)
    run.restore_randomness_later(randomness)


def _check_fits(framework: Framework, objects: Mapping[str, Any], manifest: Manifest) -> None:
    tree = dict(description(manifest))
    for name in RESERVED:
        tree.pop(name, None)
    if manifest.framework.name != framework.name:
        raise Mismatch(
            f"checkpoint {manifest.checkpoint} was made with {manifest.framework.name}",
            differences=[f"the live objects belong to {framework.name}"],
            do="branch from it: weights can cross frameworks, optimizer state cannot",
        )
    differences = framework.differences(objects, tree)
    if differences:
        raise Mismatch(
            f"the live objects do not fit checkpoint {manifest.checkpoint}",
            differences=differences,
            why="nothing was restored",
            do="make the objects as they were, or take only the weights into a new output with "
            "--branch (branch_from=…)",
        )


def _branch(framework: Framework, objects: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    repository = open_repository(open_store(origin["url"]))
    commit = repository.history.resolve(origin["checkpoint"])
    manifest = repository.manifest(commit)
    framework.restore_weights(objects, read_state(repository.store, manifest, keys=objects))


def _pass_over(repository: Repository, beginning: Beginning, reason: str) -> None:
    from onward.training.opening import Rejected

    damaged = beginning.commit
    assert damaged is not None
    beginning.rejected.append(Rejected(damaged.checkpoint, damaged.step, f"damaged: {reason}"))
    tried = {rejected.checkpoint for rejected in beginning.rejected}
    for commit in repository.history.newest_first():
        if commit.checkpoint not in tried and not repository.damage(commit):
            beginning.commit, beginning.manifest = commit, repository.manifest(commit)
            beginning.increment = commit.increment + commit.finished
            beginning.verb = "continue" if commit.finished else "resume"
            return
    raise Damaged(f"no checkpoint at {repository.store.url} is intact")


def _origin(branch_from: str, beginning: Beginning) -> dict[str, str] | None:
    if beginning.verb != "branch":
        return None
    url, _, checkpoint = branch_from.rpartition("@") if "@" in branch_from else (branch_from, "", "")
    repository = open_repository(open_store(url))
    commit = repository.history.resolve(checkpoint or "latest")
    return {"url": Location.parse(url).display, "checkpoint": commit.checkpoint}


def _about(config: Mapping[str, Any] | None, environment: Environment) -> dict[str, Any]:
    about: dict[str, Any] = {
        "onward": _version.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "config": _plain(config or {}),
    }
    if environment.data_snapshot:
        about["data_snapshot"] = environment.data_snapshot
    return about


def _plain(value: Any) -> Any:
    """Configuration as text and numbers; what is neither is shown as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)
        case Mapping():
            return {str(key): _plain(child) for key, child in value.items()}
        case list() | tuple():
            return [_plain(child) for child in value]
    return str(value)


def _sentence(beginning: Beginning) -> str:
    if beginning.commit is None:
        return f"{beginning.verb} start: {beginning.why}"
    commit = beginning.commit
    return (
        f"{beginning.verb} from checkpoint {commit.checkpoint} "
        f"(step {commit.step}, epoch {commit.epoch}, increment {commit.increment}): {beginning.why}"
    )


Say = Callable[[str], None]
_ = (replace, OnwardError, Say)
