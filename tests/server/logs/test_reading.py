"""Logs by range: every byte is shown once or counted, and nothing acts on who reads."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from onward.engines.base import LOG, LOG_CUT
from onward.server.logs.cleaning import LONGEST_LINE, readable, whole_characters
from onward.server.logs.cuts import cuts_of, give_back
from onward.server.logs.reading import Line, Lines, line_before, open_log, read_lines
from onward.server.logs.searching import Hits, search


def write(folder: Path, data: bytes) -> None:
    (folder / LOG).write_bytes(data)


def read(folder: Path, offset: int = 0, limit: int = 65536, until: int | None = None) -> Lines:
    log = open_log(folder)
    assert log is not None
    with log:
        return read_lines(log, offset, limit, until=until)


def find(folder: Path, text: str, start: int = 0, *, limit: int = 100, **more: bool) -> Hits:
    log = open_log(folder)
    assert log is not None
    with log:
        return search(log, text, start, limit=limit, ignore_case=more.get("ignore_case", True))


def everything(folder: Path, limit: int) -> list[Line]:
    """All lines, range after range."""
    found, offset = [], 0
    while True:
        part = read(folder, offset, limit)
        found += part.lines
        if part.next == offset:
            return found
        offset = part.next


@pytest.mark.parametrize("limit", [1, 7, 100, 8192, 65536, 1 << 20])
def test_ranges_of_any_size_show_the_same_lines(tmp_path: Path, limit: int) -> None:
    """Where ranges end decides nothing about what is shown."""
    dice = random.Random(4)
    lines = ["x" * dice.choice([0, 1, 50, 9000, 70_000]) + str(n) for n in range(60)]
    write(tmp_path, "".join(line + "\n" for line in lines).encode())
    found = everything(tmp_path, limit)
    assert [line.text for line in found] == [line[:LONGEST_LINE] for line in lines]
    at = 0
    for line, text in zip(found, lines, strict=True):
        assert (line.at, line.cut) == (at, max(0, len(text) - LONGEST_LINE))
        at += len(text) + 1


def test_a_line_without_its_end_comes_again_when_it_has_one(tmp_path: Path) -> None:
    """It is shown as open, and `next` is where it begins."""
    write(tmp_path, b"one\ntw")
    assert read(tmp_path) == Lines(0, 4, [Line(0, "one"), Line(4, "tw", open=True)])
    assert read(tmp_path, 4) == Lines(4, 4, [Line(4, "tw", open=True)])
    write(tmp_path, b"one\ntwo\n")
    assert read(tmp_path, 4) == Lines(4, 8, [Line(4, "two")])
    assert read(tmp_path, 8) == Lines(8, 8, [])
    assert read(tmp_path, 99) == Lines(8, 8, []), "a place behind the end is the end"


def test_a_range_may_begin_within_a_line(tmp_path: Path) -> None:
    """What was cut from a long line is seen by asking for it."""
    write(tmp_path, b"a" * 10_000 + b"b" * 100 + b"\nnext\n")
    assert read(tmp_path).lines[0].cut == 10_100 - LONGEST_LINE
    assert read(tmp_path, 10_000).lines == [
        Line(10_000, "b" * 100, continues=True), Line(10_101, "next")
    ]  # fmt: skip


def test_what_was_given_back_is_passed_over(tmp_path: Path) -> None:
    """Zeros are no text: places stay, and what is left of a line says that it continues."""
    data = b"".join(b"line %06d\n" % n for n in range(3000))  # 12 bytes each
    write(tmp_path, data)
    (tmp_path / LOG_CUT).write_text('{"from": 4096, "to": 8192}')
    with (tmp_path / LOG).open("r+b") as file:
        file.seek(4096)
        file.write(b"\0" * 4096)
    found = everything(tmp_path, 1 << 20)
    assert [line.at for line in found[:3]] == [0, 12, 24]
    cut = next(n for n, line in enumerate(found) if line.at >= 8192)
    assert found[cut - 1] == Line(4092, "line")
    assert found[cut].continues
    assert found[cut].at == 8192
    assert found[-1] == Line(2999 * 12, "line 002999")
    assert "\0" not in "".join(line.text for line in found)
    assert read(tmp_path, 5000, 100).lines[0].at == 8192
    assert find(tmp_path, "000400").hits == []  # it is at byte 4800
    assert find(tmp_path, "000700").hits[0].at == 700 * 12 + 5


def test_cutting_frees_all_but_the_newest(tmp_path: Path) -> None:
    """Space is given back, the newest bytes and their places stay, and twice is once."""
    write(tmp_path, b"".join(b"line %06d\n" % n for n in range(100_000)))
    before = (tmp_path / LOG).stat()
    begin = give_back(tmp_path, 50_000)
    after = (tmp_path / LOG).stat()
    assert after.st_size == before.st_size
    assert after.st_blocks * 512 < 70_000
    assert 50_000 <= after.st_size - begin < 50_000 + 4096
    assert cuts_of(tmp_path) == [(0, begin)]
    assert give_back(tmp_path, 80_000) == begin, "what is gone is gone"
    assert everything(tmp_path, 1 << 20)[-1].text == "line 099999"
    assert read(tmp_path, 0).lines[0].at == begin
    (tmp_path / LOG_CUT).write_text(f'{{"from": {begin - 10}, "to": {begin + 8192}}}')
    assert cuts_of(tmp_path) == [(0, begin + 8192)], "the agent's and people's are one"


def test_the_lines_before_a_place_are_found_from_behind(tmp_path: Path) -> None:
    """So many, or as many as fit; never half a line where a whole one fits."""
    write(tmp_path, b"".join(b"line %06d\n" % n for n in range(50_000)) + b"open")
    log = open_log(tmp_path)
    assert log is not None
    with log:
        end = 50_000 * 12
        assert line_before(log, end, lines=3, most_bytes=1 << 20) == end - 36
        assert line_before(log, log.size, lines=3, most_bytes=1 << 20) == end - 24
        assert line_before(log, 30, lines=10, most_bytes=1 << 20) == 0
        start = line_before(log, end, lines=10_000, most_bytes=1000)
        assert start % 12 == 0
        assert end - start <= 1000
        assert line_before(log, 0, lines=5, most_bytes=1000) == 0


def test_what_a_script_printed_acts_on_nobody() -> None:
    """Escape sequences, control characters, and marks that turn text around are gone."""
    assert readable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07and\x08 \x9b31m\xe2\x80\xaeturned") == (
        "red and �31mturned"
    )
    assert readable("\u009b31mred \u2028line\u2029".encode()) == "red line"
    assert readable(b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
    assert readable(b"a\tb\r") == "a\tb"
    assert readable(b" 10%|#   |\r 90%|### |") == " 90%|### |"
    assert readable(b"\x1b") == ""
    assert readable("café 你好 🙂".encode()) == "café 你好 🙂"
    assert whole_characters("你好".encode()[:5]) == "你".encode()
    assert whole_characters("你好".encode()) == "你好".encode()


def test_a_hit_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Also across the blocks in which the log is read; a line is told once."""
    block = 256 << 10
    data = bytearray(b"." * (3 * block))
    for at in (0, block - 3, 2 * block - 1, 3 * block - 6):
        data[at : at + 6] = b"Needle"
        data[at + 6 : at + 7] = b"\n"
    data = data[: 3 * block]
    write(tmp_path, bytes(data))
    for text, ignore in (("needle", True), ("Needle", False)):
        hits = find(tmp_path, text, ignore_case=ignore)
        assert [hit.at for hit in hits.hits] == [0, block - 3, 2 * block - 1, 3 * block - 6]
        assert hits.next is None
    assert find(tmp_path, "needle", ignore_case=False).hits == []
    first = find(tmp_path, "NEEDLE", limit=1)
    assert first.next is not None
    assert find(tmp_path, "NEEDLE", first.next).hits[0].at == block - 3
    assert first.hits[0].match == "Needle"


def test_a_hit_shows_what_stands_around_it(tmp_path: Path) -> None:
    """Its own line, cleaned, and a place from which a range shows it."""
    write(tmp_path, "first\n\x1b[1mLoss für\x1b[0m Größe NaN at step 7\nlast Größe\n".encode())
    hit, other = find(tmp_path, "GRÖSSE".replace("SS", "ß")).hits
    assert (hit.before, hit.match, hit.after) == ("Loss für ", "Größe", " NaN at step 7")
    assert hit.line == 6
    assert other.before == "last "
    assert read(tmp_path, hit.line).lines[0].text == "Loss für Größe NaN at step 7"


def test_a_very_long_line_takes_little_memory(tmp_path: Path) -> None:
    """100 MiB without an end of line: viewed, searched and cut within a few megabytes."""
    with (tmp_path / LOG).open("wb") as file:
        file.write(b"before\n")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b" needle\nafter\n")
    tracemalloc.start()
    found = read(tmp_path)
    rest = read(tmp_path, found.next)
    hits = find(tmp_path, "needle")
    give_back(tmp_path, 4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line.text[:6] for line in found.lines] == ["before", "xxxxxx"]
    assert [line.text for line in rest.lines] == ["after"]
    assert found.lines[1].cut == (100 << 20) + 7 - LONGEST_LINE
    assert [hit.match for hit in hits.hits] == ["needle"]
    assert peak < 8 << 20
