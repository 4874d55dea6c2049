"""What browsers load: small, pinned, readable by everybody, and ours alone."""

from __future__ import annotations

import hashlib
import re

import pytest

from onward.server.console import assets
from tests.server.console.conftest import Browser

VENDORED = {
    "htmx.min.js": ("4.0.1", "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"),
    "uPlot.iife.min.js": (
        "1.6.32",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    "uPlot.min.css": ("1.6.32", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
}
"""Version and SHA-256 of files that others made, as npm distributes them."""


def test_all_static_files_together_are_at_most_400_kilobytes() -> None:
    """The whole console is one quick load."""
    assert sum(map(len, assets.files().values())) <= 400_000


@pytest.mark.parametrize("name", VENDORED)
def test_files_of_others_are_exactly_the_published_ones(name: str) -> None:
    """Nobody edits them, and an update is a decision."""
    version, digest = VENDORED[name]
    assert hashlib.sha256(assets.files()[name]).hexdigest() == digest
    notice = assets.files()["NOTICE"].decode()
    assert re.search(rf"{re.escape(name)}.*{re.escape(version)}", notice)


def test_static_files_are_kept_by_browsers_and_named_by_their_content(browser: Browser) -> None:
    """An address never changes its content, so that it may be kept for ever."""
    page = browser.get(assets.address("onward.css"))
    assert page.status == 200
    assert "immutable" in page.answer.headers["cache-control"]
    assert page.answer.headers["content-type"].startswith("text/css")
    assert browser.get("/static/0000000000000000/onward.css").status == 404
    assert browser.get(f"/static/{assets.digest()}/..%2f..%2fassets.py").status == 404


def test_our_scripts_neither_evaluate_text_nor_write_html() -> None:
    """Text of users can become markup only through one of these."""
    forbidden = re.compile(
        r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write"
    )
    for name, data in assets.files().items():
        if name.endswith(".js") and name not in VENDORED:
            assert not forbidden.search(data.decode()), name


PAIRS = [
    ("text", "ground"), ("text", "surface"), ("text", "raised"), ("text", "sunk"),
    ("text", "accent-soft"), ("text", "bad-soft"), ("text", "warn-soft"), ("text", "good-soft"),
    ("text", "live-soft"),
    ("muted", "ground"), ("muted", "surface"), ("muted", "raised"), ("muted", "sunk"),
    ("accent", "ground"), ("accent", "surface"), ("accent", "raised"), ("accent", "sunk"),
    ("accent", "accent-soft"), ("on-accent", "accent"), ("ground", "text"),
    ("bad", "surface"), ("bad", "raised"), ("muted", "bad-soft"), ("muted", "warn-soft"),
    *((tone, f"{tone}-soft") for tone in ("good", "warn", "bad", "live", "off", "wait")),
]  # fmt: skip
"""Text on its ground, wherever the style sheet puts one on the other."""
LINES = [
    ("line-strong", "surface"),
    ("line-strong", "raised"),
    ("focus", "ground"),
    ("focus", "surface"),
]
"""Edges of fields and the focus: WCAG 2.2 asks for 3 to 1."""


def themes() -> dict[str, dict[str, str]]:
    """The custom properties of each theme, as the style sheet has them."""
    css = assets.files()["onward.css"].decode()
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", css)
    read = [
        (head, dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", body))) for head, body in blocks
    ]
    light = read[0][1]
    dark = [found for head, found in read if "dark" in head or "light" in head]
    assert len(dark) == 2
    assert dark[0] == dark[1], "the system's dark theme and the chosen one differ"
    assert light.keys() == dark[0].keys()
    return {"light": light, "dark": dark[0]}


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_edges_stand_out_as_wcag_aa_asks(theme: str) -> None:
    """4.5 to 1 for text, 3 to 1 for edges and the focus, in both themes."""
    colours = themes()[theme]
    weak = {
        f"{front} on {back}": round(contrast(colours[front], colours[back]), 2)
        for pairs, least in ((PAIRS, 4.5), (LINES, 3.0))
        for front, back in pairs
        if contrast(colours[front], colours[back]) < least
    }
    assert not weak
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
