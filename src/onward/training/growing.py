"""`grow=`: which live tables have named rows, and where those of a checkpoint belong in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import Damaged, UsageError
from onward.frameworks import growth
from onward.frameworks.base import Framework, TensorLeaf
from onward.frameworks.growth import Table
from onward.learning.names import Names, is_state, shown
from onward.repository import Manifest, description, read_state
from onward.stores.base import Store

_DTYPES = {"I64": "<i8", "U8": "|u1"}


class Growth:
    """What a script says about its tables: whose rows they are.

    `grow` is what `onward.open` was given: by the path of an object, module or tensor the `Names`
    of its rows, which are among `objects`. Raises `UsageError` where they are not, or where no
    tensor has as many rows as there are names.
    """

    def __init__(
        self, framework: Framework, objects: Mapping[str, Any], grow: Mapping[str, Names] | None
    ) -> None:
        self.framework = framework
        self.objects = objects
        self.names = {key: value for key, value in objects.items() if isinstance(value, Names)}
        self.entries: dict[str, list[str]] = {}
        """The tensors that each entry of `grow` stands for."""
        self.owners: dict[str, str] = {}
        """Under which key the names of each tensor are."""
        if not isinstance(grow, Mapping | None):
            raise UsageError(
                f"grow is a {type(grow).__name__}", do='use grow={"model.head": names} or the like'
            )
        self._stored: tuple[str, dict[str, Names]] | None = None
        self.live = self._weights() if grow else {}
        for path, names in (grow or {}).items():
            self._add(path, names)
        for path, twin in growth.tied(self.owners, self.live).items():
            self.owners.setdefault(path, self.owners[twin])

    def _weights(self) -> dict[str, Any]:
        keys = self.framework.names_of_weights(self.objects)
        return self.framework.capture({key: self.objects[key] for key in keys})

    def _add(self, path: str, names: Any) -> None:
        if not isinstance(names, Names):
            raise UsageError(
                f"grow[{path!r}] is a {type(names).__name__}",
                do="give what onward.names(output, key, present) returned",
            )
        key = next((key for key, value in self.names.items() if value is names), None)
        if key is None:
            raise UsageError(
                f"the names of {path} are not among the objects that are kept",
                why="a checkpoint must say which row is whose",
                do=f'pass them too: onward.open(…, classes=names, grow={{"{path}": names}})',
            )
        found = growth.paths_at(path, self.live, rows=len(names))
        if not found:
            raise UsageError(
                f"grow names {path}, but no tensor there has {len(names):,} rows, one per name "
                f"of {key}",
                why=self._seen(path),
                do="build the model with len(names) rows, and name the module or the tensor as its "
                "object, a dot and its name there",
            )
        for each in found:
            if self.owners.setdefault(each, key) != key:
                raise UsageError(
                    f"grow gives {each} to {self.owners[each]} and to {key}",
                    do="name the tensors or modules exactly",
                )
        self.entries[path] = found

    def _seen(self, path: str) -> str:
        listed = dict(growth.tensors(self.live))
        below = {p: x for p, x in listed.items() if p == path or p.startswith(f"{path}.")}
        some = [f"{p} {list(leaf.shape)}" for p, leaf in (below or listed).items()][:5]
        return ("there is " if below else "there is no such module; there are ") + ", ".join(some)

    def plan(self, store: Store, manifest: Manifest, tree: Mapping[str, Any], *, verb: str) -> Plan:
        """What has to be done with the checkpoint. Reads its names, and nothing else.

        `tree` is its description, with the names of here.

        Raises `Damaged` if these are not what was written.
        """
        plan = Plan(self, verb)
        if self.names:
            stored = self._stored_in(store, manifest)
            for key, live in self.names.items():
                if key in stored:
                    self._compare(key, stored[key], live, plan)
                elif key in tree:
                    plan.differences.append(f"{key}: the checkpoint has something else than names")
            before, now = dict(growth.tensors(tree)), dict(growth.tensors(self.live))
            for path, key in self.owners.items():
                if path in before and verb != "resume":
                    self._map(path, before[path], now[path], plan, key=key, known=key in tree)
            self._check_places(plan)
        return plan

    def _stored_in(self, store: Store, manifest: Manifest) -> dict[str, Names]:
        """Remembered: opening asks before it claims the output and again after."""
        if self._stored is None or self._stored[0] != manifest.checkpoint:
            found = stored_names(store, manifest, self.names)
            self._stored = (manifest.checkpoint, found)
        return self._stored[1]

    def _compare(self, key: str, stored: Names, live: Names, plan: Plan) -> None:
        if plan.verb == "resume":
            if list(stored) != list(live):
                plan.differences.append(f"{key}: {_first_difference(stored, live)}")
                plan.hints.add(
                    f'build the model from onward.names(output, "{key}", present), which gives an '
                    "unfinished increment exactly the rows that it has"
                )
            return
        targets = live.rows_or_none(stored)
        if (targets < 0).any():
            gone = [name for name, row in zip(stored, targets, strict=True) if row < 0]
            plan.differences.append(
                f"{key}: {shown(gone)} had {'a row' if len(gone) == 1 else 'rows'} in the "
                "checkpoint, and the live names lack them"
            )
            plan.hints.add(
                f'build the model from onward.names(output, "{key}", present): a name keeps its '
                "row for good, also when its data is gone"
            )
            return
        if key not in self.owners.values() and growth.moves(targets, len(stored)):
            plan.differences.append(f"{key}: {_first_difference(stored, live)}")
            plan.hints.add(f"say whose rows changed places: grow={{…: {key}}}")
            return
        plan.targets[key] = targets

    def _map(
        self, path: str, stored: TensorLeaf, live: TensorLeaf, plan: Plan, *, key: str, known: bool
    ) -> None:
        if key not in plan.targets:
            if not known and stored.shape != live.shape:
                plan.hints.add(f"its rows cannot be told: the checkpoint has no names {key!r}")
            return
        targets, rows = plan.targets[key], len(self.names[key])
        if not growth.moves(targets, rows):
            return
        table = growth.table_for(stored, live, targets, rows=rows)
        if table is not None:
            plan.tables[path] = table
        elif stored.shape == live.shape and growth.moves(targets, len(targets)):
            plan.differences.append(
                f"{path}: the checkpoint has {stored.shape[0]:,} rows of it, but "
                f"{len(targets):,} names, whose rows changed places"
            )

    def _check_places(self, plan: Plan) -> None:
        """Rows that only change places do not show in the shape whose they are."""
        for entry, paths in self.entries.items():
            parents = {path.rpartition(".")[0] for path in paths}
            tables = {path: plan.tables[path] for path in paths if path in plan.tables}
            moved = [path for path, t in tables.items() if t.rows == len(t.targets)]
            if moved and len(parents) > 1:
                plan.differences.append(
                    f"{entry}: its names changed places, and {', '.join(moved)} all have as many "
                    "rows: whose rows are meant?"
                )
                plan.hints.add("name each tensor in grow=, not what they are part of")


@dataclass(slots=True)
class Plan:
    """What growth means for one checkpoint: `differences` is every reason against it."""

    growth: Growth
    verb: str
    tables: dict[str, Table] = field(default_factory=dict)
    targets: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    hints: set[str] = field(default_factory=set)

    def applied(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The checkpoint's tree, or its description, as it fits `objects`."""
        result = {key: value for key, value in tree.items() if key not in self._staying}
        if self.tables:
            result = self.growth.framework.grown(self.growth.objects, result, self.tables)
        return result

    @property
    def objects(self) -> dict[str, Any]:
        """What the checkpoint is for: after a *continue* the live names stay as they are.

        Their rows then hold what was learned.
        """
        return {key: v for key, v in self.growth.objects.items() if key not in self._staying}

    @property
    def _staying(self) -> Collection[str]:
        return self.targets.keys() if self.verb == "continue" else ()

    def all_differences(self, tree: Mapping[str, Any]) -> list[str]:
        """The reasons against it, those that lie in what optimizers keep included."""
        objects, framework = self.growth.objects, self.growth.framework
        if not self.tables or self.verb == "branch":
            return self.differences
        return self.differences + framework.differences_in_growth(objects, tree, self.tables)

    def destinations(self, objects: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
        """The live memory that may be read into directly: not that of what grows."""
        framework = self.growth.framework
        into = framework.destinations(objects)
        if not self.tables:
            return into
        described = description(manifest)
        grown = framework.grown(self.growth.objects, described, self.tables)
        kept: dict[str, Any] = growth.kept_apart(into, described, grown)
        return kept

    def hint(self, tree: Mapping[str, Any]) -> str:
        """What to do about rows, where something is to be done."""
        hints = sorted(self.hints)
        short = [path for path in self._shorter(tree) if path not in self.growth.owners]
        if short and self.verb != "resume":
            hints.append(
                f"if the rows of {short[0]} are classes, users or items that grew, pass their "
                f'names (onward.names) and grow={{"{short[0]}": names}}'
            )
        return "; ".join(hints)

    def _shorter(self, tree: Mapping[str, Any]) -> list[str]:
        """The tensors that are longer now and else the same."""
        live = dict(growth.tensors(self.growth._weights()))
        return [
            path
            for path, leaf in growth.tensors(tree)
            if path in live
            and 1 <= len(leaf.shape) == len(live[path].shape)
            and leaf.shape[1:] == live[path].shape[1:]
            and leaf.shape[0] < live[path].shape[0]
        ]


def stored_names(store: Store, manifest: Manifest, keys: Iterable[str]) -> dict[str, Names]:
    """The names among these objects of a checkpoint; needs no framework.

    Reads only their bytes. Raises `Damaged`, or `NewerFormat`.
    """
    described = description(manifest)
    wanted = [key for key in keys if key in described and is_state(described[key])]
    if not wanted:
        return {}
    found = {}
    for key, tree in read_state(store, manifest, keys=wanted).items():
        found[key] = Names()
        found[key].load_state_dict({name: _plain(value) for name, value in tree.items()})
    return found


def _plain(value: Any) -> Any:
    if not isinstance(value, TensorLeaf):
        return value
    if value.kind != "numpy" or value.dtype not in _DTYPES or value.data is None:
        raise Damaged("stored names are not in arrays of bytes and numbers")
    return value.data.view(_DTYPES[value.dtype]).reshape(value.shape)


def _first_difference(stored: Names, live: Names) -> str:
    there, here = list(stored), list(live)
    row = next(
        (row for row, pair in enumerate(zip(there, here, strict=False)) if pair[0] != pair[1]),
        min(len(there), len(here)),
    )
    before = shown(there[row : row + 1]) or "no such row"
    now = shown(here[row : row + 1]) or "no such row"
    return (
        f"the checkpoint has {len(there):,} names, the live one {len(here):,}; "
        f"row {row:,} is {before} there and {now} here"
    )
