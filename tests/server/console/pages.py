"""Reading a page as a person would: its text, its links, its forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

_VOID = {"input", "meta", "link", "br", "img", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        found = "".join(c if isinstance(c, str) else c.text for c in self.children)
        return " ".join(found.split())

    def walk(self) -> list[Element]:
        inner = [each for c in self.children if isinstance(c, Element) for each in c.walk()]
        return [self, *inner]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {n: v or "" for n, v in attrs}))

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


@dataclass
class Page:
    """An answer; what is not well-formed HTML fails when it is read."""

    answer: Any

    @property
    def status(self) -> int:
        return int(self.answer.status_code)

    @property
    def location(self) -> str:
        return str(self.answer.headers["location"])

    @cached_property
    def elements(self) -> list[Element]:
        reader = _Reader()
        reader.feed(self.answer.text)
        reader.close()
        assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
        return reader.root.walk()

    @property
    def text(self) -> str:
        return self.elements[0].text

    def all(self, tag: str, **attributes: str) -> list[Element]:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            each for each in self.elements
            if each.tag == tag and wanted.items() <= each.attributes.items()
        ]  # fmt: skip

    def one(self, tag: str, **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} elements <{tag} {attributes}>"
        return found[0]

    def links(self) -> list[str]:
        return [each.attributes["href"] for each in self.all("a") if "href" in each.attributes]

    def form(self, action: str) -> dict[str, Any]:
        """What the form that goes to `action` sends if nobody touches it (no button)."""
        form = next(
            each for each in self.all("form")
            if each.attributes.get("action", "").partition("#")[0] == action
        )  # fmt: skip
        found: dict[str, Any] = {}
        for each in form.walk():
            name = each.attributes.get("name")
            if not name or "disabled" in each.attributes:
                continue
            if each.tag == "input":
                kind = each.attributes.get("type", "text")
                if kind in ("checkbox", "radio"):
                    if "checked" in each.attributes:
                        found[name] = each.attributes.get("value", "on")
                elif kind != "submit":
                    found[name] = each.attributes.get("value", "")
            elif each.tag == "textarea":
                found[name] = "".join(c for c in each.children if isinstance(c, str))
            elif each.tag == "select":
                options = [o for o in each.walk() if o.tag == "option"]
                chosen = [o for o in options if "selected" in o.attributes] or options[:1]
                if chosen:
                    found[name] = chosen[0].attributes.get("value", chosen[0].text)
        return found
