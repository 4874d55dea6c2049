"""What a user asks of a job: plain data, checked before anything is touched."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onward.errors import UsageError
from onward.repository.retention import BestOf, Retention
from onward.stores import is_local, parse
from onward.trackers import trackers_of
from onward.training.opening import VERBS, Asked
from onward.training.space import space_limit
from onward.training.wishes import Wishes

PREDOWNLOADS = ("no", "latest", "all")
PASS_AS = ("argument", "env")
DATA_NAME = "data_url"
OUTPUT_NAME = "train_url"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_NOT_THEIRS = re.compile(r"ONWARD_.*|LD_.*|PYTHON.*|PATH|HOME")


@dataclass(frozen=True, slots=True)
class Input:
    """A location beside the data that the script reads: its place is passed under `name`."""

    name: str
    location: str
    pass_as: str = "argument"

    @classmethod
    def parse(cls, text: str) -> Input:
        """`NAME=LOCATION`, or `NAME=LOCATION:env`. Raises `UsageError`."""
        name, equals, location = text.partition("=")
        if not (equals and name and location):
            raise UsageError(f"{text!r} is no input", do="write NAME=LOCATION or NAME=LOCATION:env")
        if location.endswith(":env"):
            return cls(name, location.removesuffix(":env"), "env")
        return cls(name, location)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.name}={self.location}{':env' if self.pass_as == 'env' else ''}"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One script, its data, its output, and how to run it. All but `script` and `output` may stay.

    `predownload` is `no`, `latest`, `all`, or the name of the checkpoint to go on from.
    `pass_as` is `argument` (`--data_url`, `--train_url`) or `env` (`DATA_URL`, `TRAIN_URL`); of the
    data, `data_pass_as` may say otherwise. `data_name` and `output_name` are the parameters' names,
    in capitals in the environment. `inputs` are fetched like data, but only what is new in `data`
    counts. `strategy`, `budget`, `margin` and `promote` win over what the script says.
    `space` limits a working copy's packs, such as `20GB`; by default `ONWARD_SPACE` does.
    `audit_of` (`<output>@<checkpoint id>`) makes it a full retrain of what that checkpoint learned,
    on the share `audit_sample` of it.
    """

    script: str
    output: str
    data: str = ""
    arguments: tuple[str, ...] = ()
    predownload: str = "latest"
    pass_as: str = "argument"
    retries: int = 0
    verb: str = "auto"
    branch_from: str = ""
    single_writer: bool = False
    on_damage: str = "raise"
    save_every: str | None = None
    mtbf_hours: float | None = None
    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: tuple[str, ...] = ()
    save_every_steps: int | None = None
    save_every_seconds: float | None = None
    grace_s: float = 30.0
    space: str = ""
    track: tuple[str, ...] = ()
    audit_of: str = ""
    audit_sample: float = 1.0
    inputs: tuple[Input, ...] = ()
    data_name: str = DATA_NAME
    data_pass_as: str = ""
    output_name: str = OUTPUT_NAME
    strategy: str = ""
    budget: str = ""
    margin: float | None = None
    promote: bool = True

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> JobSpec:
        """From plain JSON values; see `document`."""
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
        }
        facts["inputs"] = tuple(Input(**each) for each in document.get("inputs", ()))
        return cls(**facts)

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def check(self) -> None:
        """Raises `UsageError` or `BadURL` for what cannot be meant, without touching a store."""
        script = Path(self.script)
        if not script.is_file():
            raise UsageError(
                f"there is no script {self.script!r}",
                why="it is a folder" if script.is_dir() else f"looked in {Path.cwd()}",
                do="give the path of a Python file",
            )
        parse(self.output)
        if self.data:
            parse(self.data)
        for each in self.inputs:
            parse(each.location)
        self._check_names()
        self.wishes().check()
        if is_local(self.output) and Path(parse(self.output).prefix).is_file():
            raise UsageError(
                f"the output {self.output!r} is a file",
                why="an output is a folder or a prefix in an object store",
                do="give another --output",
            )
        if self.data and is_local(self.output) and is_local(self.data):
            output, data = Path(parse(self.output).prefix), Path(parse(self.data).prefix)
            if output.is_relative_to(data):
                raise UsageError(
                    f"the output {self.output!r} lies in the data {self.data!r}",
                    why="every checkpoint would count as new data",
                    do="give an --output elsewhere",
                )
        if self.verb not in VERBS:
            raise UsageError(f"there is no verb {self.verb!r}", do=f"use one of {', '.join(VERBS)}")
        for how in (
            self.pass_as,
            self.data_pass_as or PASS_AS[0],
            *(i.pass_as for i in self.inputs),
        ):
            if how not in PASS_AS:
                raise UsageError(f"pass_as is {how!r}", do=f"use {' or '.join(PASS_AS)}")
        if self.branch_from and self.checkpoint:
            raise UsageError(
                "a branch does not go on from a checkpoint of its own output",
                do=f"name it with its output: --branch {self.branch_from}@{self.checkpoint}",
            )
        for name, number in (
            ("--save-every-steps", self.save_every_steps),
            ("--save-every-seconds", self.save_every_seconds),
            ("--mtbf-hours", self.mtbf_hours),
        ):
            if number is not None and not number > 0:
                raise UsageError(f"{name} is {number}", do="give a positive number")
        space_limit(self.space)
        for tracker in trackers_of(self.track):
            tracker.check(Path.cwd())  # an agent gives every script a local folder
        self.retention()
        if self.retries < 0 or not self.grace_s >= 0:
            raise UsageError("--retries and --grace cannot be negative")

    def _check_names(self) -> None:
        """Of parameters: each once, and none that would change how the script itself starts."""
        places = self.parameters()
        for name, how in places:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} is no name of a parameter", do="use letters, digits and '_'"
                )
            if how == "env" and _NOT_THEIRS.fullmatch(name.upper()):
                raise UsageError(
                    f"an input cannot be passed as {name.upper()}",
                    why="that variable decides how the script starts",
                    do="give it another name",
                )
        names = [(name.upper() if how == "env" else name, how) for name, how in places]
        twice = sorted({name for name, how in names if names.count((name, how)) > 1})
        if twice:
            raise UsageError(
                f"two places have the same name: {', '.join(twice)}", do="name each differently"
            )

    def parameters(self) -> list[tuple[str, str]]:
        """The name of each place that the script gets, and whether as argument or env: the data,
        the inputs, the output."""
        data = [(self.data_name, self.data_pass_as or self.pass_as)] if self.data else []
        inputs = [(each.name, each.pass_as) for each in self.inputs]
        return [*data, *inputs, (self.output_name, self.pass_as)]

    def wishes(self) -> Wishes:
        """What the job asks of an increment, whatever the script says."""
        return Wishes(self.strategy, self.budget, self.margin, self.promote)

    @property
    def checkpoint(self) -> str:
        """The checkpoint that `--predownload` names, or ''."""
        return "" if self.predownload in PREDOWNLOADS else self.predownload

    def retention(self) -> Retention:
        """Which checkpoints stay. Raises `UsageError`."""
        return Retention(self.keep_last, self.keep_every, tuple(map(BestOf.parse, self.keep_best)))

    def asked(self) -> Asked:
        """What `decide` is asked for at the first attempt."""
        return Asked(
            verb="branch" if self.branch_from else self.verb,
            checkpoint=self.checkpoint,
            branch_from=self.branch_from,
            on_damage=self.on_damage,
        )

    def command(self) -> str:
        """The command that goes on with this job: what insists on a beginning is left away."""
        words = ["onward", "run", self.script]
        if self.data:
            words += ["--data", self.data]
        words += ["--output", self.output]
        for each in self.inputs:
            words += ["--input", str(each)]
        for name, value, default in (
            ("--data-name", self.data_name, DATA_NAME),
            ("--data-pass-as", self.data_pass_as, ""),
            ("--output-name", self.output_name, OUTPUT_NAME),
            ("--strategy", self.strategy, ""),
            ("--budget", self.budget, ""),
            ("--margin", self.margin, None),
            ("--predownload", "latest" if self.checkpoint else self.predownload, "latest"),
            ("--pass-as", self.pass_as, "argument"),
            ("--retries", self.retries, 0),
            ("--on-damage", self.on_damage, "raise"),
            ("--save-every", self.save_every, None),
            ("--mtbf-hours", self.mtbf_hours, None),
            ("--keep-last", self.keep_last, None),
            ("--keep-every", self.keep_every, None),
            *(("--keep-best", best, None) for best in self.keep_best),
            ("--save-every-steps", self.save_every_steps, None),
            ("--save-every-seconds", self.save_every_seconds, None),
            ("--grace", self.grace_s, 30.0),
            ("--space", self.space, ""),
            *(("--track", tracker, None) for tracker in self.track),
        ):
            if value != default:
                words += [name, f"{value:g}" if isinstance(value, float) else str(value)]
        if not self.promote:
            words.append("--no-promote")
        if self.single_writer:
            words.append("--single-writer")
        if self.arguments:
            words += ["--", *self.arguments]
        return shlex.join(words)
