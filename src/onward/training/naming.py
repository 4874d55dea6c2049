"""`onward.names`: which rows a model must have, asked before the model is built."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

from onward.errors import Damaged, UsageError
from onward.learning.names import Names, is_state, shown
from onward.repository import Manifest, description, open_repository
from onward.stores import Store, open_store
from onward.training.environment import read_environment
from onward.training.growing import stored_names
from onward.training.looking import to_go_on_from
from onward.training.opening import Asked
from onward.training.session import agent_for, asked_for


def names(
    output: str | os.PathLike[str] | None,
    key: str,
    present: Iterable[Any],
    *,
    verb: Literal["auto", "resume", "continue", "branch"] = "auto",
    checkpoint: str = "",
    branch_from: str = "",
    on_damage: Literal["raise", "fall-back"] = "raise",
) -> Names:
    """The names of a table's rows: those that the output has under `key`, then what is new.

    Call it before the model is built, with what the data holds now (`present`: labels, or ids of
    users or items; whole numbers or text, any order, repeated or not), and pass the result to
    `onward.open` under that key and in `grow`. Rows keep their order, also where a name does not
    occur any more; new names follow as they first occur. An unfinished increment gets exactly the
    rows that it has: what is new then waits in `later` for the next one.

    `output` and the options are those of `onward.open`, which will choose the same checkpoint;
    None is the output that `onward run` gave. An output that does not exist yet has no names.
    Reads only the names; needs no framework, and changes nothing.

    Raises `UsageError` if the checkpoint has no names under `key`, or for a name that is neither
    number nor text; `WrongVerb`, `Damaged`, `UnknownCheckpoint`, `StoreError` as `onward.open`.

        classes = onward.names("out", "classes", labels)
        model = Net(len(classes))
        run = onward.open("out", model=model, classes=classes, grow={"model.head": classes})
    """
    environment = read_environment()
    place = str(output) if output is not None else environment.output
    if not place:
        raise UsageError(
            "onward.names needs an output",
            why="none was given and the script was not started by `onward run`",
            do='give the one that onward.open is given: onward.names("out", "classes", labels)',
        )
    agent = agent_for(place, environment)
    asked = asked_for(
        agent, verb=verb, checkpoint=checkpoint, branch_from=branch_from, on_damage=on_damage
    )
    fresh = Names(present)
    found, chosen = _stored(agent.output or place, key, asked)
    if found is None:
        return fresh
    if chosen == "resume":
        found.later = tuple(name for name in fresh if name not in found)
    else:
        found.add(fresh)
    return found


def _stored(place: str, key: str, asked: Asked) -> tuple[Names | None, str]:
    """The names in the checkpoint to go on from, and the verb; None for a fresh start."""
    repository = to_go_on_from(place, asked)
    beginning = asked.decide(repository)
    if beginning.origin is not None:
        origin = open_repository(open_store(beginning.origin["url"]))
        manifest = origin.manifest(origin.history.resolve(beginning.origin["checkpoint"]))
        return _names_in(origin.store, manifest, key), "branch"
    while beginning.manifest is not None:
        assert repository is not None
        try:
            return _names_in(repository.store, beginning.manifest, key), beginning.verb
        except Damaged as error:
            if asked.on_damage != "fall-back":
                raise
            beginning.pass_over(repository, error.what)
    return None, beginning.verb


def _names_in(store: Store, manifest: Manifest, key: str) -> Names:
    found = stored_names(store, manifest, [key])
    if key in found:
        return found[key]
    tree = description(manifest)
    others = [other for other, value in tree.items() if is_state(value)]
    raise UsageError(
        f"checkpoint {manifest.checkpoint} has no names under {key!r}",
        why=f"it has them under {shown(others)}" if others else "it has none at all",
        do="use the key under which onward.open was given them"
        if others
        else "pass the names to onward.open from the first increment on; for a model that began "
        "without, build Names (onward.learning.names) in the order of its rows, and --branch",
    )
