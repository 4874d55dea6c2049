"""The champion of an output, and whether the model that has just finished takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from onward.errors import Conflict, OnwardError
from onward.frameworks.base import Framework
from onward.learning.champion import CHAMPION, move_champion
from onward.learning.evidence import Evidence, evidence_of
from onward.learning.gate import Verdict
from onward.repository import Repository
from onward.training.swapping import weights_of


class Crown:
    """`truth` opens the repository whose log decides: for a working copy, the output's own.

    With `tell`, somebody else pushes to that output (an agent), and moves the name when the
    checkpoint is there; it is told the new champion and the one that is expected to be there.
    """

    def __init__(
        self,
        truth: Callable[[], Repository],
        *,
        say: Callable[[str], None],
        tell: Callable[[str, str | None], None] | None = None,
    ) -> None:
        self._truth = truth
        self._say = say
        self._tell = tell
        self._expected: str | None = None
        self._won: str | None = None
        self._blind = False
        self.hands_off = False
        """Whether nobody becomes champion by itself."""

    def evidence(self) -> Evidence | None:
        """What the present champion showed; None where there is none, or it cannot be read now.

        Training is over by then: what it made must be saved, whoever can be asked.
        """
        try:
            repository = self._truth()
            self._expected = repository.history.aliases.get(CHAMPION)
            if self._expected is None:
                return None
            return evidence_of(repository, repository.history.commits[self._expected])
        except OnwardError as error:
            self._blind = True
            self._say(f"the champion cannot be read, nothing is compared: {error}")
            return None

    def weights_of(
        self, checkpoint: str, framework: Framework, objects: Mapping[str, Any]
    ) -> AbstractContextManager[bool]:
        """See `swapping.weights_of`."""
        repository = self._truth()
        commit = repository.history.commits[checkpoint]
        return weights_of(commit, repository, framework=framework, objects=objects)

    def decide(self, checkpoint: str, verdict: Verdict | None) -> None:
        """A finished checkpoint was scored: the first is champion, a later one if it may be."""
        if self._blind:
            return
        if verdict is not None and not verdict.passed:
            self._say(f"the champion stays {verdict.champion}")
            return
        if self.hands_off:
            self._say(
                f"checkpoint {checkpoint} may become the champion, but the job asks that nothing "
                "does by itself: `onward promote` makes it"
            )
            return
        self._won = checkpoint
        if self._tell is not None:
            self._tell(checkpoint, self._expected)

    def decided(self, checkpoint: str, expected: str | None) -> None:
        """Somebody else decided that this one takes the place of `expected`."""
        self._won, self._expected = checkpoint, expected

    def move(self) -> None:
        """Moves the name, once everything is stored. That it could not is told, and no failure."""
        if self._won is None or self._tell is not None:
            return
        try:
            move_champion(self._truth(), self._won, expected=self._expected)
        except Conflict as error:
            self._say(f"checkpoint {self._won} is not made champion: {error.what}")
        except OnwardError as error:
            self._say(f"checkpoint {self._won} could not be made champion: {error}")
        else:
            self._say(f"checkpoint {self._won} is the champion now")
