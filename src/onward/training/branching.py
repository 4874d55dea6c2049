"""What a branch takes: the weights of another output, renamed, translated where need be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from onward.errors import UsageError
from onward.frameworks.base import Framework, TensorLeaf
from onward.frameworks.growth import tensors
from onward.frameworks.translation import FRAMEWORKS, Translation, translated
from onward.repository import Manifest, description

_MOST_LISTED = 5


class Branch:
    """How the models of a checkpoint become the live ones. Reads its description, no bytes.

    `rename` is what `onward.open` was given: paths in the checkpoint (an object, a module or a
    tensor, as messages name them) and what they are called here.
    """

    def __init__(
        self,
        framework: Framework,
        objects: Mapping[str, Any],
        manifest: Manifest,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self._framework = framework
        self._made_with = manifest.framework
        self._names = framework.names_of_weights(objects)
        self._rename = _checked(rename)
        self._renamed: Counter[str] = Counter()
        self.differences: list[str] = []
        """Every reason against it that does not show in a comparison of the result."""
        described = description(manifest)
        self.keys = self._keys(described)
        """The objects of the checkpoint that are needed."""
        self._live = framework.capture({name: objects[name] for name in self._names})
        self._translations: dict[str, Translation] = {}
        if self.translates:
            tree = self._with_names_of_here(described)
            for name in self._names:
                if isinstance(tree.get(name), Mapping):
                    found = translated(tree[name], self._live[name], to=framework.name)
                    self._translations[name] = found
                    self.differences += [f"{name}.{line}" for line in found.differences]
        self.differences += self._wrongly_renamed(described)
        self._described = described

    @property
    def translates(self) -> bool:
        """Whether another framework made the checkpoint."""
        return self._made_with.name != self._framework.name

    @property
    def as_it_is(self) -> bool:
        """Whether the checkpoint's names are the live ones, and nothing has to be changed."""
        return not self._rename and not self.translates

    def applied(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The checkpoint's tree, or its description, with the names and layout of here."""
        result = self._with_names_of_here(tree)
        if self.translates:
            for name in self._translations:
                if name in result:
                    result[name] = translated(
                        result[name], self._live[name], to=self._framework.name
                    ).tree
        return result

    def hint(self) -> str:
        """What to do about names that do not match."""
        old, new = self._likely() or ("model.backbone", "model.features")
        return (
            f'name what is called otherwise here, such as rename={{"{old}": "{new}"}} (path in the '
            "checkpoint: path here)"
        )

    def sentence(self) -> str:
        """What was taken, for people; empty where that goes without saying."""
        renamed = sum(self._renamed.values())
        if not self.translates:
            return f"{renamed:,} tensors renamed, the others taken by name" if renamed else ""
        rules = self._rules()
        listed = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
        text = f"tensors of {self._made_with.name} {self._made_with.version} taken: "
        text += f"{self._by_name()} by name, {sum(rules.values())} by rule"
        text += f" ({listed})" if listed else ""
        text += f", {renamed} of these renamed" if renamed else ""
        if kept := self._listed("kept"):
            text += f"; stay as they are: {_some(kept)}"
        if dropped := self._listed("dropped"):
            text += f"; have no place here: {_some(dropped)}"
        return text

    def about(self) -> dict[str, Any]:
        """What was taken, for the record."""
        facts: dict[str, Any] = {
            "framework": f"{self._made_with.name} {self._made_with.version}".strip()
        }
        if self.translates:
            facts["by_name"] = self._by_name()
            facts["by_rule"] = dict(sorted(self._rules().items()))
            facts["stayed"] = len(self._listed("kept"))
            facts["had_no_place"] = len(self._listed("dropped"))
        if self._rename:
            facts["renamed"] = dict(self._rename)
        return facts

    # Details.

    def _likely(self) -> tuple[str, str] | None:
        """The paths of two modules, there and here, that may be one: theirs match nothing else."""
        there = dict(tensors(self.applied(self._described)))
        here = dict(tensors(self._live))
        for path, leaf in there.items():
            if path in here or leaf.kind not in FRAMEWORKS:
                continue
            for other, live in here.items():
                if other not in there and live.shape == leaf.shape:
                    old, new = path.split(".")[:-1], other.split(".")[:-1]
                    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
                        del old[-1], new[-1]
                    if old != new:
                        return ".".join(old), ".".join(new)
        return None

    def _by_name(self) -> int:
        return sum(found.by_name for found in self._translations.values())

    def _rules(self) -> Counter[str]:
        return sum((found.by_rule for found in self._translations.values()), Counter[str]())

    def _listed(self, what: str) -> list[str]:
        return [
            f"{name}.{entry}"
            for name, found in self._translations.items()
            for entry in getattr(found, what)
        ]

    def _keys(self, described: Mapping[str, Any]) -> list[str]:
        wanted = set(self._names)
        return [
            key
            for key, entries in described.items()
            if any(new.partition(".")[0] in wanted for _, new, _ in self._paths(key, entries))
        ]

    def _paths(self, key: str, entries: Any) -> Iterator[tuple[str, str, Any]]:
        """Every path of an object, how it is called here, and what is there."""
        if not self._rename or not _is_table(entries):
            yield key, self._rename.get(key, key), entries
            return
        for name, value in entries.items():
            path = f"{key}.{name}"
            yield path, self._name_here(path), value

    def _name_here(self, path: str) -> str:
        rule = self._rule_for(path)
        return path if rule is None else self._rename[rule] + path[len(rule) :]

    def _rule_for(self, path: str) -> str | None:
        fitting = (old for old in self._rename if path == old or path.startswith(f"{old}."))
        return max(fitting, key=len, default=None)

    def _with_names_of_here(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        if not self._rename:
            return dict(tree)
        result: dict[str, Any] = {}
        for key, entries in tree.items():
            if not _is_table(entries):
                result[self._rename.get(key, key)] = entries
                continue
            for _, new, value in self._paths(key, entries):
                name, _, rest = new.partition(".")
                if isinstance(result.setdefault(name, {}), dict):
                    result[name][rest] = value
        return result

    def _wrongly_renamed(self, described: Mapping[str, Any]) -> Iterator[str]:
        used: set[str] = set()
        before: dict[str, str] = {}
        for key, entries in described.items():
            for path, new, _ in self._paths(key, entries):
                rule = self._rule_for(path)
                if rule is not None:
                    used.add(rule)
                    self._renamed[rule] += 1
                if new in before:
                    yield f"{new}: rename makes it of {before[new]} and of {path}"
                before[new] = path
        for old in self._rename:
            if old not in used:
                yield f"rename: the checkpoint has no {old}"


def _checked(rename: Mapping[str, str] | None) -> dict[str, str]:
    rename = rename or {}
    fine = isinstance(rename, Mapping) and all(
        isinstance(path, str) and path and not path.startswith(".")
        for pair in rename.items()
        for path in pair
    )
    if not fine:
        raise UsageError(
            f"rename is {rename!r:.80}",
            do='give paths in the checkpoint and here: rename={"model.backbone": "model.features"}',
        )
    return {old.removesuffix("."): new.removesuffix(".") for old, new in rename.items()}


def _is_table(entries: Any) -> bool:
    return isinstance(entries, Mapping) and any(
        isinstance(value, TensorLeaf) for value in entries.values()
    )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
