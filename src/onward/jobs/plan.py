"""What a job would do, found out without changing anything: `onward run --dry-run`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onward.data.file_list import DATA_FILES, FileList
from onward.errors import Damaged, RepositoryError, StoreError
from onward.jobs.data import JobData
from onward.jobs.difference import Difference, difference
from onward.jobs.display import counted, size
from onward.jobs.files import PlainFiles
from onward.jobs.newness import learned_snapshot, nothing_new
from onward.jobs.outcome import commit_document
from onward.jobs.output import existing_repository, refuse_start_over
from onward.jobs.script import script_command
from onward.jobs.selection import Selection
from onward.jobs.spec import JobSpec
from onward.jobs.training import Training, next_training, rest_of
from onward.learning.evidence import began_from
from onward.repository import Commit, Repository
from onward.repository.fetching import free_bytes
from onward.repository.mirror import missing_bytes
from onward.stores import LocalStore, open_store, parse
from onward.training.opening import Beginning
from onward.training.places import WorkingFolder


@dataclass(slots=True)
class DataFacts:
    """The data as it is now; `new` is None where only fetching or reading all of it would tell.

    `difference` is against what the checkpoint that is gone on from has learned; None where there
    is none, or nothing can tell.
    """

    url: str
    path: str
    items: int
    size_bytes: int
    fetch_items: int
    fetch_bytes: int
    new: bool | None
    difference: Difference | None = None


@dataclass(slots=True)
class Plan:
    """Everything that `onward run` would decide. `exit_code` is 1 if it could not be done."""

    output: str
    command: list[str]
    beginning: Beginning
    nothing_new: str = ""
    tensors: int = 0
    restore_bytes: int = 0
    fetch_bytes: int = 0
    free_bytes: int | None = None
    batches: dict[str, int] = field(default_factory=dict)
    training: Training | None = None
    unpushed: list[str] = field(default_factory=list)
    files: Selection | None = None
    data: DataFacts | None = None
    inputs: dict[str, DataFacts] = field(default_factory=dict)
    """By name, those beside the data."""
    free_for_data_bytes: int | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self._fits else 1

    @property
    def _fits(self) -> bool:
        files = self.files.size_bytes if self.files else 0
        data = sum(facts.fetch_bytes for facts in self._all_data())
        return (self.free_bytes is None or self.fetch_bytes + files <= self.free_bytes) and (
            self.free_for_data_bytes is None or data <= self.free_for_data_bytes
        )

    def _all_data(self) -> list[DataFacts]:
        return [*([self.data] if self.data is not None else []), *self.inputs.values()]

    def lines(self) -> list[str]:
        """The plan, for people."""
        beginning = self.beginning
        lines = [f"output: {self.output}"]
        if self.unpushed:
            lines.append(
                f"push first: {counted(len(self.unpushed), 'checkpoint')} of an earlier job here"
            )
        lines.append(f"begin: {beginning.sentence()}")
        lines += [
            f"  not {rejected.checkpoint}"
            + (f" (step {rejected.step})" if rejected.step is not None else "")
            + f": {rejected.reason}"
            for rejected in beginning.rejected
        ]
        if beginning.manifest is not None:
            lines.append(f"restore: {counted(self.tensors, 'tensor')}, {size(self.restore_bytes)}")
        if self.free_bytes is not None:
            lines.append(
                f"fetch: {size(self.fetch_bytes)} of checkpoints; {size(self.free_bytes)} are free"
            )
        if self.files is not None:
            lines += self.files.lines()
            lines += [
                f"  fetch {entry.key} ({size(entry.size_bytes)})" for entry in self.files.fetched
            ]
        if self.data is not None:
            lines += _data_lines(self.data)
        for name, facts in self.inputs.items():
            lines += _input_lines(name, facts)
        if self.training is not None:
            lines.append(f"train: {self.training.sentence()}")
        else:
            for name, count in self.batches.items():
                lines.append(f"train: {count:,} batches an epoch ({name}), as at that checkpoint")
        if self.nothing_new:
            lines.append(f"nothing would start: {self.nothing_new}")
        else:
            lines.append("start: " + " ".join(self.command))
        if not self._fits:
            lines.append("this would fail: too little disk is free for what is to be fetched")
        return lines

    def document(self) -> dict[str, Any]:
        """The plan, for programs."""
        beginning = self.beginning
        return {
            "exit_code": self.exit_code,
            "output": self.output,
            "verb": beginning.verb,
            "why": beginning.why,
            "increment": beginning.increment,
            "checkpoint": commit_document(beginning.commit) if beginning.commit else None,
            "origin": beginning.origin,
            "rejected": [asdict(rejected) for rejected in beginning.rejected],
            "unpushed": self.unpushed,
            "tensors": self.tensors,
            "restore_bytes": self.restore_bytes,
            "fetch_bytes": self.fetch_bytes,
            "free_bytes": self.free_bytes,
            "fits": self._fits,
            "files": self.files.document() if self.files is not None else None,
            "data": asdict(self.data) if self.data is not None else None,
            "inputs": {name: asdict(facts) for name, facts in self.inputs.items()},
            "batches": self.batches,
            "training": asdict(self.training) if self.training is not None else None,
            "nothing_new": self.nothing_new or None,
            "command": self.command,
        }


def make_plan(spec: JobSpec, *, most_read_bytes: int | None = None) -> Plan:
    """Looks at everything and changes nothing. Raises what the job would raise before it starts.

    Data is read only as far as it is not known from earlier, and not at all if that is more than
    `most_read_bytes`: then some answers are None.
    """
    spec.check()
    data = JobData(spec.data) if spec.data else None
    inputs = {
        each.name: JobData(each.location, option=f"--input {each.name}") for each in spec.inputs
    }
    store = open_store(spec.output)
    location = parse(spec.output)
    repository = existing_repository(store)
    working = None if location.is_local else WorkingFolder.first_path(spec.output)
    unpushed: list[str] = []
    if working is not None:
        repository, unpushed = _with_unpushed(repository, working)
    refuse_start_over(spec, repository.history if repository else None)
    beginning = spec.asked().decide(repository)
    folder = Path(os.path.abspath(working / "output")) if working else Path(location.prefix)
    command = script_command(
        spec, output=folder, data=data.path if data else None,
        inputs={name: each.path for name, each in inputs.items()},
    )  # fmt: skip
    plan = Plan(location.display, command, beginning, unpushed=unpushed)
    if beginning.manifest is not None:
        plan.tensors = len(beginning.manifest.tensors)
        plan.restore_bytes = sum(tensor.size_bytes for tensor in beginning.manifest.tensors)
        plan.batches = _batches(beginning.manifest.about)
    if working is not None:
        plan.free_bytes = free_bytes(folder)
        plan.fetch_bytes = _bytes_to_fetch(spec, repository, beginning, LocalStore(folder))
        plan.files = PlainFiles(store, working, say=lambda _: None).select(spec.predownload)
    if data is not None:
        _add_data(plan, spec, data, repository, most_read_bytes)
    if beginning.verb == "resume" and beginning.manifest is not None:
        plan.training = rest_of(beginning.manifest)
    for each in spec.inputs:
        found = inputs[each.name]
        plan.inputs[each.name] = _facts(each.location, found)
        if not found.is_local:
            plan.free_for_data_bytes = free_bytes(found.path)
    return plan


def _with_unpushed(
    repository: Repository | None, working: Path
) -> tuple[Repository | None, list[str]]:
    """The repository as it will be once what an earlier job left in the working copy is pushed."""
    try:
        local = existing_repository(LocalStore(working / "output"))
    except (Damaged, StoreError):
        return repository, []
    if repository is None or local is None:
        return repository, []
    remote = repository.history
    if (local.history.repository, local.history.generation) != (
        remote.repository,
        remote.generation,
    ):
        return repository, []
    left = [id_ for id_ in local.history.commits if id_ not in remote.commits]
    return (local if left else repository), left


def _bytes_to_fetch(
    spec: JobSpec, repository: Repository | None, beginning: Beginning, local: LocalStore
) -> int:
    if repository is None or beginning.manifest is None:
        return 0
    manifests = [beginning.manifest]
    if spec.predownload == "all":
        manifests = [
            repository.manifest(commit)
            for commit in repository.history.live()
            if spec.on_damage == "raise" or not repository.damage(commit)
        ]
    return missing_bytes(local, manifests)


def _add_data(
    plan: Plan, spec: JobSpec, data: JobData, repository: Repository | None,
    most_read_bytes: int | None,
) -> None:  # fmt: skip
    todo = data.plan()
    fetch_bytes = sum(entry.size_bytes for entry in todo.fetched)
    items, size_bytes, new = todo.items, todo.size_bytes, None
    found = None
    if not todo.fetched and not todo.removed:
        if most_read_bytes is None or data.unread_bytes() <= most_read_bytes:
            found = data.snapshot(remember=False)
            items, size_bytes = found.items, found.size_bytes
        else:
            items, size_bytes = data.extent()
    if found is not None:
        new = learned_snapshot(repository) != found.digest
        reason = nothing_new(spec.asked(), repository, found.digest)
        plan.nothing_new = reason.sentence() if reason is not None else ""
    plan.data = DataFacts(
        parse(spec.data).display, str(data.path), items, size_bytes, len(todo.fetched), fetch_bytes,
        new,
    )  # fmt: skip
    beginning = plan.beginning
    if beginning.verb == "continue" and beginning.commit and beginning.manifest and repository:
        plan.data.difference = difference(
            repository, beginning.commit, beginning.manifest, data, todo=todo, found=found,
            most_read_bytes=most_read_bytes,
        )  # fmt: skip
        if beginning.commit.finished:
            plan.training = next_training(
                spec, beginning.manifest, plan.data.difference,
                before=_files_before(repository, beginning.commit),
            )  # fmt: skip
    if not data.is_local:
        plan.free_for_data_bytes = free_bytes(data.path)


def _files_before(repository: Repository, commit: Commit) -> FileList | None:
    """What the increment before that of a checkpoint was trained on, if that is still there."""
    id_ = began_from(repository.history, commit)
    if id_ is None or id_ in repository.history.dropped:
        return None
    try:
        manifest = repository.manifest(repository.history.commits[id_])
    except (RepositoryError, StoreError):
        return None
    return FileList.read(manifest.about.get(DATA_FILES))


def _facts(location: str, data: JobData) -> DataFacts:
    """Of an input: whether it is new does not matter."""
    todo = data.plan()
    items, size_bytes = data.extent() if data.is_local else (todo.items, todo.size_bytes)
    fetch_bytes = sum(entry.size_bytes for entry in todo.fetched)
    return DataFacts(
        parse(location).display, str(data.path), items, size_bytes, len(todo.fetched), fetch_bytes,
        None,
    )  # fmt: skip


def _input_lines(name: str, facts: DataFacts) -> list[str]:
    lines = [f"input {name}: {facts.url}, {counted(facts.items, 'file')}, {size(facts.size_bytes)}"]
    if facts.fetch_items:
        lines.append(f"  fetch {counted(facts.fetch_items, 'file')} ({size(facts.fetch_bytes)})")
    return lines


def _batches(about: dict[str, Any]) -> dict[str, int]:
    """Batches of an epoch by loader, where the checkpoint tells."""
    described = about.get("data")
    if not isinstance(described, dict):
        return {}
    return {
        str(name): facts["batches"]
        for name, facts in described.items()
        if isinstance(facts, dict) and isinstance(facts.get("batches"), int)
    }


def _data_lines(data: DataFacts) -> list[str]:
    if data.new is None:
        news = "whether it is new is known once it is fetched and read"
    elif data.new:
        news = "new"
    else:
        news = "what the newest checkpoint was trained on"
    lines = [f"data: {data.url}, {counted(data.items, 'file')}, {size(data.size_bytes)}: {news}"]
    if data.fetch_items:
        lines.append(f"  fetch {counted(data.fetch_items, 'file')} ({size(data.fetch_bytes)})")
    return [*lines, *_difference_lines(data.difference)]


def _difference_lines(found: Difference | None) -> list[str]:
    if found is None:
        return []
    counts = [f"{getattr(found, kind):,} {kind}" for kind in ("added", "changed", "removed")]
    if found.unsure:
        counts.append(f"{found.unsure:,} perhaps changed")
    if found.held_out:
        counts.append(f"{found.held_out:,} held out")
    lines = [f"  {found.unit}: {', '.join(counts)}, {found.known:,} known"]
    for kind, sign in (("added", "+"), ("changed", "~"), ("removed", "-")):
        names = found.names.get(kind, [])
        lines += [f"    {sign} {name}" for name in names]
        more = getattr(found, kind) - len(names)
        if names and more:
            lines.append(f"    {sign} … and {more:,} more")
    return lines
