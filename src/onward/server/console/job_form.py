"""The form of a new job: what was typed ↔ the document of a job, with errors at their fields."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from pydantic import ValidationError

from onward.server.console.forms import Form, named_lines, wrong
from onward.server.console.languages import Language
from onward.server.spec import JobRequest

INPUTS = 4
"""Rows for inputs; the first is there at once."""
_GIB = 1 << 30

_DEFAULTS = {
    "code_kind": "folder", "script": "train.py", "input_name_1": "data_url",
    "input_pass_1": "argument", "output_name": "train_url", "output_pass": "argument",
    "predownload": "latest", "verb": "auto", "promote": "on", "retries_crash": "2",
    "retries_out_of_memory": "0", "retries_hang": "1", "retries_timeout": "0",
    "retries_infrastructure": "5", "retries_preemption": "100", "hang_minutes": "30",
    "grace_s": "30", "start": "now",
}  # fmt: skip

_NUMBERS = {
    "margin": ("increment", "margin", float, 1.0),
    "save_every_steps": ("save", "every_steps", int, 1),
    "save_every_seconds": ("save", "every_seconds", float, 1.0),
    "keep_last": ("save", "keep_last", int, 1),
    "memory_gib": ("resources", "memory_bytes", float, _GIB),
    "cpus": ("resources", "cpus", float, 1.0),
    "retries_crash": ("retries", "crash", int, 1),
    "retries_out_of_memory": ("retries", "out_of_memory", int, 1),
    "retries_hang": ("retries", "hang", int, 1),
    "retries_timeout": ("retries", "timeout", int, 1),
    "retries_infrastructure": ("retries", "infrastructure", int, 1),
    "retries_preemption": ("retries", "preemption", int, 1),
    "timeout_minutes": ("", "timeout_s", float, 60.0),
    "hang_minutes": ("", "hang_minutes", float, 1.0),
    "grace_s": ("", "grace_s", float, 1.0),
}
"""Field → part of the document, name there, kind of number, and what one unit of the field is."""

_KEPT = "kept"
"""A hidden field: parts of the document that no other field shows, as JSON."""

_PLACES: dict[tuple[str, ...], str] = {
    ("name",): "name", ("command",): "script", ("code",): "code", ("output", "location"):
    "output_location", ("output", "name"): "output_name", ("output", "predownload"):
    "predownload_checkpoint", ("verb",): "verb", ("branch_from",): "branch_from",
    ("increment", "strategy"): "strategy", ("increment", "budget"): "budget",
    ("code", "revision"): "revision", ("code", "secret"): "code_secret",
    ("environment",): "environment", ("secrets",): "secrets", ("notify",): "notify",
    ("output",): "output_location",
    **{
        ((part, name) if part else (name,)): shown for shown, (part, name, _, _) in _NUMBERS.items()
    },
}  # fmt: skip
"""Where in the document → which field. The longest that fits an error's place has it."""


@dataclass
class JobForm:
    """What was typed, and what is wrong with it, by field. `""` is the whole form."""

    spoken: Language
    values: dict[str, str]
    chosen: tuple[str, ...] = ()
    """Webhooks."""
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, spoken: Language, given: Mapping[str, str] | None = None) -> JobForm:
        return cls(spoken, {**_DEFAULTS, **(given or {})})

    @classmethod
    def sent(cls, spoken: Language, sent: Form) -> JobForm:
        values: dict[str, str] = {}
        for name, value in sent.fields:
            values.setdefault(name, value.strip())
        return cls(spoken, values, tuple(sent.all("notify")))

    @classmethod
    def of(cls, spoken: Language, spec: Mapping[str, Any]) -> JobForm:
        """A form that would send this document: to change a job and submit it again."""
        return cls(spoken, {**_DEFAULTS, **_values_of(spec)}, tuple(spec.get("notify") or ()))

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    def error(self, name: str) -> str:
        return self.errors.get(name, "")

    def rows(self) -> list[int]:
        """The numbers of input rows that hold something; the first always."""
        used = [n for n in range(1, INPUTS + 1) if self.value(f"input_location_{n}")]
        return sorted({1, *used})

    def request(self) -> JobRequest | None:
        """The job, or None with `errors` filled."""
        document = self._document()
        if self.errors:
            # Still look at the rest, so that all that is wrong is said at once.
            self._validate(document)
            return None
        return self._validate(document)

    def _validate(self, document: dict[str, Any]) -> JobRequest | None:
        try:
            return JobRequest.model_validate(document)
        except ValidationError as error:
            for each in error.errors():
                name = self._field_of(each["loc"], document)
                if not name and self.errors:
                    continue  # what is wrong between fields follows from what is wrong in one
                self.errors.setdefault(name, wrong(self.spoken, each))
            return None

    def _document(self) -> dict[str, Any]:
        t, value = self.spoken.t, self.value
        found: dict[str, Any] = {
            "name": value("name"), "verb": value("verb") or "auto", "notify": self.chosen,
            "command": [value("script"), *self._words("arguments")],
            "code": {value("code_kind") or "folder": value("code")},
            "output": {"location": value("output_location")}, "inputs": self._inputs(),
            "environment": self._pairs("environment"), "secrets": self._pairs("secrets"),
            "increment": {
                "strategy": value("strategy"), "budget": value("budget"),
                "promote": bool(value("promote")),
            },
        }  # fmt: skip
        for name in ("name", "script", "code", "output_location"):
            if not value(name):
                self.errors[name] = t("This is needed.")
        if value("code_kind") == "git" and value("revision"):
            found["code"]["revision"] = value("revision")
        if value("code_kind") == "git" and value("code_secret"):
            found["code"]["secret"] = value("code_secret")
        if value("output_name"):
            found["output"]["name"] = value("output_name")
        found["output"]["pass_as"] = value("output_pass") or "argument"
        found["output"]["predownload"] = self._predownload()
        if value("verb") == "branch":
            found["branch_from"] = value("branch_from")
            if not value("branch_from"):
                self.errors["branch_from"] = t("Name the checkpoint to branch from.")
        for name, (part, key, kind, unit) in _NUMBERS.items():
            number = self._number(name, kind)
            if number is not None:
                place = found.setdefault(part, {}) if part else found
                number *= unit
                # Dividing and multiplying again may be off by a last bit.
                if unit != 1 and isfinite(number):
                    number = round(number) if key.endswith("bytes") else round(number, 6)
                place[key] = number
        for part, kept in self._kept().items():
            found[part] = {**kept, **found.get(part, {})}
        return found

    def _kept(self) -> dict[str, Any]:
        """What the form has no field for, as the job that it is like has it."""
        try:
            found = {
                part: dict(each) for part, each in json.loads(self.value(_KEPT) or "{}").items()
            }
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {_KEPT: {}}  # no part of a job: it is refused as what it is
        return found

    def _predownload(self) -> str:
        if self.value("predownload") != "checkpoint":
            return self.value("predownload") or "latest"
        if not self.value("predownload_checkpoint"):
            self.errors["predownload_checkpoint"] = self.spoken.t("Name a checkpoint.")
        return self.value("predownload_checkpoint") or "latest"

    def _inputs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for n in range(1, INPUTS + 1):
            location, name = self.value(f"input_location_{n}"), self.value(f"input_name_{n}")
            if not location:
                continue
            if not name:
                self.errors[f"input_name_{n}"] = self.spoken.t("This is needed.")
            elif name in found:
                self.errors[f"input_name_{n}"] = self.spoken.t("Another input has this name.")
            else:
                found[name] = {
                    "location": location,
                    "pass_as": self.value(f"input_pass_{n}") or "argument",
                }
        return found

    def _words(self, name: str) -> list[str]:
        try:
            return shlex.split(self.value(name))
        except ValueError:
            self.errors[name] = self.spoken.t("A quotation mark is not closed.")
            return []

    def _pairs(self, name: str) -> dict[str, str]:
        found, well_formed = named_lines(self.value(name))
        if not well_formed:
            self.errors[name] = self.spoken.t("Write NAME=value, one on each line.")
        return found

    def _number(self, name: str, kind: type) -> float | None:
        text = self.value(name)
        if not text:
            return None
        try:
            return kind(text) if kind is int else _finite(text)
        except ValueError:
            self.errors[name] = (
                self.spoken.t("This is no whole number.")
                if kind is int
                else self.spoken.t("This is no number.")
            )
            return None

    def _field_of(self, place: Iterable[Any], document: Mapping[str, Any]) -> str:
        path = tuple(str(part) for part in place)
        if path[:1] == ("inputs",) and len(path) > 1:
            for n in range(1, INPUTS + 1):
                if self.value(f"input_name_{n}") == path[1]:
                    return f"input_{'location' if 'location' in path else 'name'}_{n}"
        if path[:1] == ("command",):
            return "script" if path[1:2] in ((), ("0",)) else "arguments"
        for length in range(len(path), 0, -1):
            if path[:length] in _PLACES:
                return _PLACES[path[:length]]
        return ""


def _finite(text: str) -> float:
    number = float(text)
    if not re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", text, re.IGNORECASE):
        raise ValueError(text)
    return number


def _values_of(spec: Mapping[str, Any]) -> dict[str, str]:
    command, code, output = spec["command"], spec["code"], spec["output"]
    kind = next((name for name in ("folder", "git", "archive", "digest") if code.get(name)), "")
    predownload = output.get("predownload", "latest")
    named = predownload not in ("no", "latest", "all")
    increment = spec.get("increment") or {}
    found = {
        "name": spec["name"], "script": command[0], "arguments": shlex.join(command[1:]),
        "code_kind": kind, "code": code.get(kind, ""), "revision": code.get("revision", ""),
        "code_secret": code.get("secret", ""),
        "output_location": output["location"], "output_name": output.get("name", "train_url"),
        "output_pass": output.get("pass_as", "argument"),
        "predownload": "checkpoint" if named else predownload,
        "predownload_checkpoint": predownload if named else "",
        "verb": spec.get("verb", "auto"), "branch_from": spec.get("branch_from", ""),
        "strategy": increment.get("strategy", ""), "budget": increment.get("budget", ""),
        "promote": "on" if increment.get("promote", True) else "",
        "environment": _lines(spec.get("environment")), "secrets": _lines(spec.get("secrets")),
    }  # fmt: skip
    for n, (name, given) in enumerate((spec.get("inputs") or {}).items(), start=1):
        found |= {
            f"input_name_{n}": name, f"input_location_{n}": given["location"],
            f"input_pass_{n}": given.get("pass_as", "argument"),
        }  # fmt: skip
    for shown, (part, name, _, unit) in _NUMBERS.items():
        value = (spec.get(part) or {}).get(name) if part else spec.get(name)
        if value is not None:
            number = value / unit
            found[shown] = str(int(number)) if number == int(number) else repr(number)
    kept = _without_field(spec)
    if kept:
        found[_KEPT] = json.dumps(kept)
    return found


def _without_field(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    shown = {(part, name) for part, name, _, _ in _NUMBERS.values()}
    found: dict[str, dict[str, Any]] = {
        part: {
            name: value for name, value in (spec.get(part) or {}).items()
            if value and (part, name) not in shown
        }
        for part in ("save", "resources")
    }  # fmt: skip
    found["inputs"] = dict(list((spec.get("inputs") or {}).items())[INPUTS:])
    return {part: values for part, values in found.items() if values}


def _lines(pairs: Mapping[str, str] | None) -> str:
    return "\n".join(f"{name}={value}" for name, value in (pairs or {}).items())
