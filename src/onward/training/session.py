"""`onward.open`: from an output and live objects to a run that goes on where it should."""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onward import _version
from onward.data.file_list import DATA_FILES, FileList
from onward.errors import Damaged, Indeterminate, StoreError, UsageError
from onward.frameworks import framework_for
from onward.frameworks.base import Framework
from onward.learning.evidence import began_from
from onward.learning.hooks import Hook, Reading
from onward.learning.names import Names
from onward.learning.strategies import hooks_of
from onward.repository import Commit, Repository, Writer, open_or_create, open_repository
from onward.repository.keeping import Keeper, WorkingCopyKeeper
from onward.repository.mirror import Mirror
from onward.repository.retention import Retention
from onward.repository.staging import Staging
from onward.stores import LocalStore, open_store, parse
from onward.trackers import Tracker
from onward.training.auditing import audit_of
from onward.training.crown import Crown
from onward.training.environment import Environment, read_environment
from onward.training.growing import Growth
from onward.training.interval import MeasuredInterval
from onward.training.judging import Judging
from onward.training.learner import Learner
from onward.training.learning import Learning
from onward.training.live import OWN, RANDOMNESS
from onward.training.loaders import Loaders
from onward.training.looking import to_go_on_from
from onward.training.memory import available_bytes
from onward.training.opening import Asked, Beginning
from onward.training.places import Pusher, claim_working_copy
from onward.training.planning import Planner
from onward.training.policy import SavePolicy
from onward.training.reporting import Reporter, reporter_for
from onward.training.restoring import bring_to, check_fits
from onward.training.run import Run
from onward.training.saver import Saver
from onward.training.space import LocalSpace, space_limit
from onward.training.tracked import begin_tracking, tracking_for
from onward.training.tracking import EVERY_STEPS
from onward.training.wishes import Wishes

Verb = Literal["auto", "resume", "continue", "branch"]


def open(
    url: str | os.PathLike[str] | None = None,
    *,
    verb: Verb = "auto",
    checkpoint: str = "",
    branch_from: str = "",
    seed: int = 0,
    save_every: Literal["auto"] | None = None,
    save_every_steps: int | None = None,
    save_every_seconds: float | None = 600.0,
    save_every_epoch: bool = True,
    mtbf_hours: float = 24.0,
    staging: bool = True,
    snapshot: Literal["lazy", "eager"] = "lazy",
    space: str | int | None = None,
    keep_last: int | None = None,
    keep_every: int | None = None,
    keep_best: str | Sequence[str] = (),
    on_save_failure: Literal["warn", "stop"] = "warn",
    on_damage: Literal["raise", "fall-back"] = "raise",
    single_writer: bool = False,
    config: Mapping[str, Any] | None = None,
    strategy: str | Hook | Sequence[Hook] = (),
    reading: Reading | None = None,
    margin: float = 0.01,
    grow: Mapping[str, Names] | None = None,
    trackers: str | Tracker | Sequence[str | Tracker] = (),
    track_every_steps: int = EVERY_STEPS,
    rename: Mapping[str, str] | None = None,
    **objects: Any,
) -> Run:
    """Opens an output for training and brings the live objects to where it stopped.

    `url` is a path or an object-store URL; by default the output that `onward run` gave. The
    `objects` are everything that learns or counts, by any names: models, optimizers, schedulers,
    a gradient scaler, EMA, generators, or anything with `state_dict` and `load_state_dict`;
    `None` is left out.
    Global randomness (Python, NumPy, the framework) is included.

    With `verb="auto"` an unfinished increment is resumed, exactly; after a finished one the next
    begins (*continue*: full state, but schedules and learning rates as this script built them).
    `branch_from="<output>@<checkpoint>"` takes only weights, also those of another framework;
    `rename` then says what is called otherwise here, as paths in the checkpoint and here, such as
    `rename={"model.backbone": "model.features"}`. `checkpoint` names one to go on from
    instead of the newest. `seed` decides the order of samples. `config` (plain values) is kept for
    people and for `onward diff`.
    `grow` says whose the rows of tables are, such as `grow={"model.head": classes}` with `classes`
    from `onward.names` and among the objects: at a *continue*, or a branch, a head or an embedding
    may have more rows than in the checkpoint. What was learned goes to the rows of the same names,
    optimizer state included; new rows stay as the script made them.

    `strategy` is how not to forget: a name (`"er"`, `"der++"`, …), or hooks of `onward.learning`;
    by default old data is mixed in uniformly. `reading` tells hooks where inputs and labels are in
    a batch that is not a pair (inputs, labels). `margin` is how much worse than the champion a
    candidate may be on a holdout.

    Triggers to save combine; each save is copied at once and stored behind the loop's back, one at
    a time. `save_every="auto"` measures what a save costs and chooses the seconds for a machine
    that fails every `mtbf_hours`. `staging=False` does without the second copy of the state in
    memory; training then waits while a checkpoint is stored. `snapshot="eager"` is for scripts that
    write parameters elsewhere than in an optimizer's step: tensors on an accelerator are then
    copied at once, not during the next forward and backward.
    `keep_last`, `keep_every` (optimizer steps) and `keep_best` (`"accuracy"`, `"loss:min"`,
    `"loss:min:3"`) are rules that add up: checkpoints that none of them keeps are dropped after a
    save. The newest, those with an alias or a pin, and the last one of each finished increment
    always stay. Without a rule all stay.
    `space` (such as "20GB", by default `ONWARD_SPACE`) limits the packs of a working copy beside an
    output on an object store: what is pushed makes room, and a save waits for it if need be.
    `trackers` are told the metrics beside the log: names (`"tensorboard"`, `"mlflow"`) or objects
    of `onward.trackers`. A metric of `run.step` is told once in `track_every_steps` steps. They
    never hold training up, nor stop it.
    `on_save_failure="stop"` turns a failed save from a warning into an error.
    `on_damage="fall-back"` passes over damaged checkpoints.

    Raises `Mismatch` with every difference at once before anything is touched, `WrongVerb`,
    `Damaged` (found while reading, it may leave the objects overwritten in part; with
    `on_damage="fall-back"` the next intact checkpoint overwrites all of that), `UnsafeStore`,
    `BadURL`, `StoreError`.

        run = onward.open("out", model=model, optimizer=optimizer, scheduler=scheduler)
    """
    environment = read_environment()
    objects = {name: value for name, value in objects.items() if value is not None}
    _check_objects(objects)
    if snapshot not in ("lazy", "eager"):
        raise UsageError(f"snapshot is {snapshot!r}", do='use "lazy" or "eager"')
    framework = framework_for(objects.values())
    place = str(url) if url is not None else environment.output
    if not place:
        raise UsageError(
            "onward.open needs an output",
            why="no url was given and the script was not started by `onward run`",
            do='pass one: onward.open("out", model=model)',
        )
    agent = agent_for(place, environment)
    place = agent.output or place
    asked = asked_for(
        agent, verb=verb, checkpoint=checkpoint, branch_from=branch_from, on_damage=on_damage
    )
    policy = _policy(
        agent,
        every=save_every,
        steps=save_every_steps,
        seconds=save_every_seconds,
        epoch=save_every_epoch,
        mtbf_hours=mtbf_hours,
    )
    limit_bytes = space_limit(space)
    retention = Retention.of(
        json.loads(agent.keep)
        if agent.keep
        else {"keep_last": keep_last, "keep_every": keep_every, "keep_best": keep_best}
    )
    growth = Growth(framework, objects, grow)
    hooks = hooks_of(strategy)
    framework.capture(objects)  # what cannot be stored is found now, not at the first save
    reporter = reporter_for(environment.events_fd)
    try:
        wishes = agent.wishes
        wishes.check()
        hooks = wishes.hooks(hooks, say=reporter.say)
        margin = wishes.margin_of(margin, say=reporter.say)
        tracking = tracking_for(
            trackers, agent, place, every_steps=track_every_steps, say=reporter.say
        )
        repository, writer, pusher = _claim(
            place, agent, asked, reporter,
            growth=growth, single_writer=single_writer,
            limit_bytes=limit_bytes, rename=rename,
        )  # fmt: skip
        if staging:
            writer.staging = Staging(available_bytes=available_bytes)
        beginning = asked.decide(repository)
        saver = Saver(writer, say=reporter.say, at_once=snapshot == "eager")
        if limit_bytes is not None:
            _keep_within(limit_bytes, repository, writer, saver, beginning)
        if pusher is not None:
            saver.give_up = pusher.has_failed
        if retention.drops_anything:
            keep = _Keeping(retention, writer.generation, reporter.say)
            if pusher is not None:
                pusher.after_push = keep.at_store(pusher.mirror)
            elif agent.output_url and not parse(agent.output_url).is_local:
                reporter.tell(keep=retention.document())  # for the agent, who pushes
            else:
                saver.after_commit.append(keep.here(repository))
        audit = audit_of(agent.audit_of, agent.audit_sample) if agent.audit_of else None
        learner = Learner(
            hooks,
            framework=framework.name,
            model=_model_of(framework, objects),
            reading=reading or Reading(),
            increment=beginning.increment,
            seed=seed,
            say=reporter.say,
        )
        crown = _crown(repository, agent, pusher, reporter)
        crown.hands_off = not wishes.promote
        learning = Learning(
            learner,
            Planner(framework, objects),
            _judging(framework, objects, repository, beginning, margin, crown),
            increment=beginning.increment,
            wishes=wishes,
        )
        if learner.needs_fresh_weights and beginning.verb == "continue":
            weights = learner.maths.weights(_model_of(framework, objects))
            learner.fresh = {name: learner.maths.copied(value) for name, value in weights.items()}
        run = Run(
            objects=objects,
            framework=framework,
            saver=saver,
            verb=beginning.verb,
            increment=beginning.increment,
            learning=learning,
            loaders=Loaders(
                framework.name,
                learning,
                seed=seed,
                increment=beginning.increment,
                again=asked.verb == "continue",
                audit=audit,
                data=environment.data,
            ),
            policy=policy,
            reporter=reporter,
            about=_about(config, environment) | (audit.about() if audit is not None else {}),
            origin=beginning.origin,
            on_save_failure=on_save_failure,
            pusher=pusher,
            crown=None if audit is not None else crown,
            tracking=tracking,
        )
        if audit is not None and beginning.verb == "fresh":
            learning.judging.adopt(audit.holdouts)
        bring_to(run, growth, repository, writer, beginning, asked.on_damage, rename)
    except BaseException:
        reporter.close()  # a progress bar must not stand over the error
        raise
    for rejected in beginning.rejected:
        reporter.say(rejected.sentence())
    reporter.say(beginning.sentence())
    if beginning.taken:
        reporter.say(beginning.taken)
    run.begin()
    begin_tracking(
        tracking, repository, beginning,
        output=agent.output_url or parse(place).url, step=run.global_step, config=config,
    )  # fmt: skip
    return run


def _model_of(framework: Framework, objects: Mapping[str, Any]) -> Any:
    """What a strategy is about: the object called `model`, else the first that has weights."""
    names = framework.names_of_weights(objects)
    name = "model" if "model" in names else next(iter(names), None)
    return objects[name] if name is not None else None


def _judging(
    framework: Framework,
    objects: Mapping[str, Any],
    repository: Repository,
    beginning: Beginning,
    margin: float,
    crown: Crown,
) -> Judging:
    def without_a_trace(function: Callable[[], Any]) -> Any:
        randomness = framework.capture_randomness()
        try:
            with framework.evaluating(objects):
                return function()
        finally:
            framework.restore_randomness(randomness)

    judging = Judging(increment=beginning.increment, margin=margin, evaluate=without_a_trace)
    judging.champion = crown.evidence
    judging.as_checkpoint = lambda id_: crown.weights_of(id_, framework, objects)
    if beginning.commit is not None:
        commit = beginning.commit
        judging.began_from = (
            commit.checkpoint if commit.finished else began_from(repository.history, commit)
        )
    return judging


def _crown(
    repository: Repository, agent: Environment, pusher: Pusher | None, reporter: Reporter
) -> Crown:
    """Where the champion's name is, and who moves it."""
    if pusher is not None:
        remote = pusher.mirror.remote
        return Crown(lambda: remote, say=reporter.say)
    if agent.output_url and not parse(agent.output_url).is_local:
        url = agent.output_url
        return Crown(
            lambda: open_repository(open_store(url)),
            say=reporter.say,
            tell=lambda new, expected: reporter.tell(champion=[new, expected]),
        )
    return Crown(lambda: repository, say=reporter.say)


@dataclass(frozen=True, slots=True)
class _Keeping:
    """Keeps an output to its rules; that it could not is told, and no reason to stop training."""

    retention: Retention
    generation: int
    say: Callable[[str], None]

    def here(self, repository: Repository) -> Callable[[Commit], None]:
        keeper = Keeper(repository, self.retention, claimed_generation=self.generation)
        return lambda commit: self._collect(keeper)

    def at_store(self, mirror: Mirror) -> Callable[[], None]:
        keeper = WorkingCopyKeeper(mirror, self.retention, claimed_generation=self.generation)
        return lambda: self._collect(keeper)

    def _collect(self, keeper: Keeper | WorkingCopyKeeper) -> None:
        try:
            keeper.collect()
        except (StoreError, Indeterminate, Damaged) as error:
            self.say(f"older checkpoints could not be dropped: {error}")


def _keep_within(
    limit_bytes: int, repository: Repository, writer: Writer, saver: Saver, beginning: Beginning
) -> None:
    """Keeps a working copy within its limit; the first commit may still share what was restored."""
    assert isinstance(repository.store, LocalStore)
    space = LocalSpace(repository.store, limit_bytes)
    if beginning.manifest is not None:
        space.pin(beginning.manifest.packs)
    writer.make_room = space.make_room
    saver.after_commit.append(lambda commit: space.unpin())


def _policy(
    agent: Environment,
    *,
    every: str | None,
    steps: int | None,
    seconds: float | None,
    epoch: bool,
    mtbf_hours: float,
) -> SavePolicy:
    """What the script asks for, but for what `onward run` was told."""
    if every not in (None, "auto"):
        raise UsageError(
            f"save_every is {every!r}",
            do='use "auto", or save_every_steps=… or save_every_seconds=…',
        )
    if agent.save_every_seconds is not None:
        every, seconds = None, agent.save_every_seconds
    if agent.save_every:
        every, mtbf_hours = agent.save_every, agent.mtbf_hours or mtbf_hours
    if not (mtbf_hours > 0 and math.isfinite(mtbf_hours)):
        raise UsageError(f"mtbf_hours is {mtbf_hours!r}", do="give a positive number of hours")
    return SavePolicy(
        steps if agent.save_every_steps is None else agent.save_every_steps,
        seconds,
        epoch,
        MeasuredInterval(mtbf_hours * 3600) if every == "auto" else None,
    )


def _check_objects(objects: Mapping[str, Any]) -> None:
    for name in (OWN, RANDOMNESS):
        if name in objects:
            raise UsageError(f"the name {name!r} is taken by Onward itself", do="use another name")
    if not objects:
        raise UsageError(
            "onward.open was given nothing to keep",
            do="pass the model: onward.open(url, model=model, optimizer=optimizer)",
        )


def agent_for(place: str, environment: Environment) -> Environment:
    """What the agent says about this very output; about another one it says nothing.

    A script may name the output by its URL, or by the local folder that the agent gave it.
    """
    if not environment.output:
        return Environment()
    named = parse(place)
    if named.is_local:
        same = Path(place).resolve() == Path(environment.output).resolve()
    else:
        same = named.url == environment.output_url
    return environment if same else Environment()


def wishes_for(url: str | os.PathLike[str] | None) -> Wishes:
    """What the job asks of increments of this output; nothing where it is about another one."""
    environment = read_environment()
    return agent_for(str(url) if url is not None else environment.output, environment).wishes


def asked_for(
    agent: Environment, *, verb: str, checkpoint: str, branch_from: str, on_damage: str
) -> Asked:
    """What the script asks for, and where it leaves that open, what the agent was told."""
    return Asked(
        verb=verb if verb != "auto" else agent.verb or "auto",
        checkpoint=checkpoint or agent.checkpoint,
        branch_from=branch_from or agent.branch_from,
        on_damage=agent.on_damage or on_damage,
    )


def _claim(
    place: str,
    agent: Environment,
    asked: Asked,
    reporter: Reporter,
    *,
    growth: Growth,
    single_writer: bool,
    limit_bytes: int | None,
    rename: Mapping[str, str] | None,
) -> tuple[Repository, Writer, Pusher | None]:
    who = f"{socket.gethostname()} pid {os.getpid()} ({Path(sys.argv[0] or 'python').name})"
    store = open_store(place)
    if agent.claim_generation is not None:
        repository = open_repository(store)
        writer = repository.claim(who, generation=agent.claim_generation, writer=agent.claim_writer)
        return repository, writer, None
    # The impossible must not make an output, nor fence whoever is training there.
    found = to_go_on_from(place, asked)
    check_fits(growth, asked.decide(found), found, asked.on_damage, rename)
    if isinstance(store, LocalStore):
        repository = open_or_create(store)
        writer = repository.claim(who)
        store.sweep_temporaries("onward/")
        return repository, writer, None
    folder, mirror, writer = claim_working_copy(
        place,
        who,
        single_writer=single_writer,
        checkpoint=asked.checkpoint,
        fall_back=asked.on_damage == "fall-back",
        say=reporter.say,
        limit_bytes=limit_bytes,
    )
    return mirror.local, writer, Pusher(mirror, folder, reporter.say)


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
        files = FileList.unpack(environment.data_files) if environment.data_files else None
        if files is not None:
            about[DATA_FILES] = files.document()
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
