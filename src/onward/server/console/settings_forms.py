"""The forms of the settings page: what was typed, checked by the API's own models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from onward.errors import AlreadyExists, OnwardError
from onward.server.console.forms import Form, named_lines, wrong
from onward.server.console.languages import Language

Model = TypeVar("Model", bound=BaseModel)


@dataclass
class SettingsForm:
    """Values and errors by the names of a page's fields: `storage_alias`, `token_name` …"""

    spoken: Language
    values: Mapping[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def sent(cls, spoken: Language, sent: Form, *, never_again: str = "") -> SettingsForm:
        """`never_again`: a field that no page shows again."""
        names = {name for name, _ in sent.fields if name != never_again}
        return cls(spoken, {name: sent.get(name) for name in names})

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    def error(self, name: str) -> str:
        return self.errors.get(name, "")

    def read(self, kind: type[Model], prefix: str, **document: Any) -> Model | None:
        """The document, or None with `errors` filled; its `url` is the field `PREFIX_url`."""
        try:
            found = kind.model_validate(document)
        except ValidationError as error:
            for each in error.errors(include_input=False):
                self.errors.setdefault(f"{prefix}_{each['loc'][0]}", wrong(self.spoken, each))
            return None
        return None if self.errors else found

    def pairs(self, name: str) -> dict[str, str]:
        """Lines NAME=value."""
        found, well_formed = named_lines(self.value(name))
        if not well_formed:
            self.errors[name] = self.spoken.t("Write NAME=value, one on each line.")
        return found

    def refuse(self, error: OnwardError, *, name: str, place: str) -> None:
        """Says a service's refusal beside the field that it is about."""
        told = (self.spoken.said(part) for part in (error.what, error.why, error.do) if part)
        text = ". ".join(told)
        if "secret" in error.what:
            field_name = name.partition("_")[0] + (
                "_environment" if name.startswith("storage") else "_secret"
            )
        elif isinstance(error, AlreadyExists) or "alias" in error.what:
            field_name = name
        else:
            field_name = place
        self.errors[field_name] = text
