"""Secrets do not pass, however they are cut into pieces; everything else does, at once."""

from __future__ import annotations

import base64
import itertools
import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from onward.engines.redaction import Redactor


def passed(values: list[str], pieces: list[bytes]) -> bytes:
    redactor = Redactor(values)
    return b"".join(redactor.feed(piece) for piece in pieces) + redactor.finish()


@given(
    text=st.text("ab-", max_size=60),
    values=st.lists(st.text("ab", min_size=2, max_size=6), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_no_secret_passes_whatever_the_pieces(
    text: str, values: list[str], cuts: list[int]
) -> None:
    """Secrets that begin, contain or end one another, cut anywhere."""
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
    found = passed(values, pieces)
    for piece in found.split(b"[secret]"):
        for value in values:
            assert value.encode() not in piece


@given(text=st.binary(max_size=200), cut=st.integers(0, 200))
def test_what_holds_no_secret_is_unchanged(text: bytes, cut: int) -> None:
    assert passed(["\u2603 no such text"], [text[:cut], text[cut:]]) == text


def test_what_cannot_begin_a_secret_does_not_wait() -> None:
    """A prompt or a bar without a line's end is seen as it is printed."""
    redactor = Redactor(["hunter22"])
    assert redactor.feed(b"progress 10 %") == b"progress 10 %"
    assert redactor.feed(b" hunt") == b" "
    assert redactor.feed(b"ing") == b"hunting"


def test_forms_that_programs_print() -> None:
    """As JSON, in a URL, in base64, and each line of a key."""
    value = 'p"ss/w örd&'
    key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEEFFFF\n-----END KEY-----\n"
    redactor = Redactor([value, key])
    for form in (
        json.dumps(value)[1:-1],
        quote(value, safe=""),
        base64.b64encode(value.encode()).decode().rstrip("="),
        "DDDDEEEEFFFF",
    ):
        assert form not in redactor.whole(f"x {form} y")


def test_long_lines_take_little_memory() -> None:
    """A line of 64 MiB passes in pieces; nothing is gathered."""
    redactor = Redactor(["secret-value"])
    piece = b"s" * 65536
    for _ in range(1024):
        redactor.feed(piece)
        assert len(redactor._held) < 16
