"""What a job is asked for by people and programs: one document, as TOML, YAML, JSON or a form."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from onward.errors import OnwardError

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_OURS = re.compile(r"^(ONWARD_|LD_|PYTHON|PATH$|HOME$)")

Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Parameter = Annotated[str, StringConstraints(pattern=_VARIABLE)]
Where = Annotated[
    str, StringConstraints(min_length=2, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""`alias:path` of a registered storage, or a URL or path that lies in one."""
PassAs = Literal["argument", "env"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CodeSpec(_Part):
    """Where the code comes from: exactly one of these. It is pinned when the job is submitted."""

    folder: Where | None = None
    git: Text | None = None
    revision: Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9._/-]*$")] = ""
    secret: Alias | None = None
    """With `git`: the secret that holds what a private repository asks for, TOKEN or USER:TOKEN."""
    archive: Where | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    source: Text = ""
    """Beside `digest`: where it came from. The server writes it; what is sent here is ignored."""

    @model_validator(mode="after")
    def _one(self) -> CodeSpec:
        given = [name for name in ("folder", "git", "archive", "digest") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give exactly one of folder, git, archive, digest")
        if (self.revision or self.secret) and not self.git:
            raise ValueError("only git has a revision and a secret")
        if self.revision.startswith("-"):
            raise ValueError("a revision does not begin with '-'")
        return self


class InputSpec(_Part):
    """One input: its location, and how the script is told the place where it is."""

    location: Where
    pass_as: PassAs = "argument"


class OutputSpec(_Part):
    """The training output. `predownload`: no, latest, all, or a checkpoint to go on from."""

    location: Where
    name: Parameter = "train_url"
    pass_as: PassAs = "argument"
    predownload: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "latest"


class IncrementSpec(_Part):
    """How an increment learns. What is empty, the script decides."""

    strategy: Annotated[str, StringConstraints(pattern=r"^[a-z0-9+_-]{0,40}(:[0-9]{1,9})?$")] = ""
    """NAME, or NAME:SAMPLES for one with a replay memory."""
    budget: Annotated[str, StringConstraints(max_length=60, pattern=r"^[A-Za-z0-9. ]*$")] = ""
    margin: Annotated[float, Field(ge=0, le=1)] | None = None
    promote: bool = True
    """Whether a checkpoint that passes the gate becomes the champion by itself."""

    @model_validator(mode="after")
    def _meant(self) -> IncrementSpec:
        if not self.strategy and not self.budget and self.margin is None:
            return self
        # Here, not above: strategies need NumPy, and a server starts without.
        from onward.training.wishes import Wishes

        try:
            Wishes(self.strategy, self.budget, self.margin, self.promote).check()
        except OnwardError as error:
            raise ValueError(str(error)) from error
        return self


class ResourceSpec(_Part):
    """Limits of an attempt; 0 is none."""

    memory_bytes: Annotated[int, Field(ge=0, le=2**60)] = 0
    cpus: Annotated[float, Field(ge=0, le=4096)] = 0.0
    cpu_seconds: Annotated[int, Field(ge=0, le=2**31)] = 0
    open_files: Annotated[int, Field(ge=0, le=2**20)] = 0
    processes: Annotated[int, Field(ge=0, le=2**20)] = 0
    file_bytes: Annotated[int, Field(ge=0, le=2**60)] = 0


class RetrySpec(_Part):
    """How often an attempt is tried again, by the cause of its end."""

    crash: Annotated[int, Field(ge=0, le=1000)] = 2
    out_of_memory: Annotated[int, Field(ge=0, le=1000)] = 0
    hang: Annotated[int, Field(ge=0, le=1000)] = 1
    timeout: Annotated[int, Field(ge=0, le=1000)] = 0
    infrastructure: Annotated[int, Field(ge=0, le=1000)] = 5
    preemption: Annotated[int, Field(ge=0, le=1000)] = 100

    def of(self, cause: str) -> int:
        """Of a cause as `jobs.states.CAUSES` spells it."""
        return int(getattr(self, cause.replace("-", "_"), 0))


class SaveSpec(_Part):
    """When the script's run saves, and which checkpoints stay. Empty: as the script says."""

    every_steps: Annotated[int, Field(ge=1, le=2**40)] | None = None
    every_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    keep_last: Annotated[int, Field(ge=1, le=2**31)] | None = None
    keep_every: Annotated[int, Field(ge=1, le=2**40)] | None = None
    keep_best: tuple[Text, ...] = ()


class JobRequest(_Part):
    """A job. All but its command, its code and its output may stay away."""

    name: Name
    command: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]
    """The script, a path within the code, and its arguments. No shell sees it."""
    code: CodeSpec
    inputs: Annotated[dict[Parameter, InputSpec], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """By parameter name; `data_url` is the data whose growth is watched."""
    output: OutputSpec
    verb: Literal["auto", "resume", "continue", "branch"] = "auto"
    branch_from: Annotated[
        str, StringConstraints(max_length=2100, pattern=r"^[^\x00-\x1f\x7f]*$")
    ] = ""
    """`location@checkpoint`, with the verb `branch`."""
    increment: IncrementSpec = IncrementSpec()
    save: SaveSpec = SaveSpec()
    environment: Annotated[dict[Parameter, Text], Field(max_length=100)] = Field(
        default_factory=dict
    )
    secrets: Annotated[dict[Parameter, Alias], Field(max_length=32)] = Field(default_factory=dict)
    """Variable of the environment → name of a secret, which is looked up at launch."""
    resources: ResourceSpec = ResourceSpec()
    retries: RetrySpec = RetrySpec()
    timeout_s: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """The longest that one attempt may run; 0 is no limit."""
    hang_minutes: Annotated[float, Field(ge=0, le=1e6)] = 30.0
    """An attempt without a step and without a line of its log for so long is a hang; 0: never."""
    grace_s: Annotated[float, Field(ge=0, le=86400)] = 30.0
    notify: Annotated[tuple[Alias, ...], Field(max_length=8)] = ()
    """Webhooks, by name."""

    @field_validator("environment")
    @classmethod
    def _not_ours(cls, found: dict[str, str]) -> dict[str, str]:
        _refuse_ours(found)
        return found

    @field_validator("secrets")
    @classmethod
    def _secrets_not_ours(cls, found: dict[str, str]) -> dict[str, str]:
        _refuse_ours(found)
        return found

    @model_validator(mode="after")
    def _fits(self) -> JobRequest:
        script = self.command[0]
        if script.startswith(("/", "-")) or "\\" in script or ".." in script.split("/"):
            raise ValueError("the command begins with the script's path within the code")
        if (self.verb == "branch") != bool(self.branch_from):
            raise ValueError("verb branch needs branch_from, and no other verb has it")
        if self.output.name in self.inputs:
            raise ValueError("an input and the output have the same parameter name")
        passed = {name for name, each in self.inputs.items() if each.pass_as == "env"}
        passed |= {self.output.name} if self.output.pass_as == "env" else set()
        _refuse_ours({name.upper(): "" for name in passed})
        clash = {name.upper() for name in passed} & {*self.environment, *self.secrets}
        if clash:
            raise ValueError(f"both a place and a variable: {', '.join(sorted(clash))}")
        both = self.environment.keys() & self.secrets.keys()
        if both:
            raise ValueError(f"both in environment and in secrets: {', '.join(sorted(both))}")
        return self

    def document(self) -> dict[str, Any]:
        """As plain JSON values, what is as by default left out."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _refuse_ours(names: dict[str, str]) -> None:
    wrong = sorted(name for name in names if _OURS.match(name))
    if wrong:
        raise ValueError(f"these variables are not yours to set: {', '.join(wrong)}")
