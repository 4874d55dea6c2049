"""A location becomes the source that fits what is there, on this machine or in a bucket."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import onward.data
from onward.data import Folder, Source, Table, open_source
from onward.errors import DataError
from onward.stores import ObjectStore, open_store
from tests.servers import S3Server


def test_what_is_there_decides(data: Path) -> None:
    """Tables of one format are a table; anything else is a folder of files."""
    with pytest.raises(DataError, match="the data is empty"):
        open_source(data)
    (data / "a.csv").write_text("id\n1\n")
    (data / ".DS_Store").write_text("")
    for where in (data, data / "a.csv", data / "*.csv"):
        source = open_source(where)
        assert isinstance(source, Table)
        assert isinstance(source, Source)
        assert source[0] == {"id": "1"}
    (data / "b.txt").write_text("x")
    source = open_source(data)
    assert isinstance(source, Folder)
    assert isinstance(source, Source)
    assert len(source) == 2
    assert [*open_source(data / "*.txt")] == [b"x"]
    assert [*open_source(data / "b.txt")] == [b"x"]
    assert isinstance(open_source(data, key="id"), Table)
    assert len(open_source(data / "b.txt", format="jsonl").snapshot.__doc__ or "") > 0
    with pytest.raises(DataError, match="the data is empty"):
        open_source(data / "nowhere")


@pytest.mark.servers
def test_a_table_in_a_bucket(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what it would be here; objects are read again only when their versions change."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    url = seaweedfs.url("tables")
    store = open_store(url)
    for number in range(3):
        content = f"id,n\n{number},x\n".encode()
        store.put(f"part-{number}.csv", [content], len(content))
    first = open_source(url, key="id")
    assert [*first] == [{"id": str(number), "n": "x"} for number in range(3)]
    found = first.snapshot()
    assert [*found.names] == ["0", "1", "2"]

    read: list[str] = []
    really = ObjectStore.read
    monkeypatch.setattr(
        ObjectStore, "read", lambda self, key: (read.append(key), really(self, key))[1]
    )
    assert open_source(url, key="id").snapshot() == found
    assert read == []
    content = b"id,n\n1,changed\n"
    store.put("part-1.csv", [content], len(content))
    changed = open_source(url, key="id")
    assert changed.snapshot() != found
    assert read == ["part-1.csv"]
    assert changed[2] == {"id": "2", "n": "x"}
    assert read == ["part-1.csv", "part-2.csv"]
    one = url.replace("/tables?", "/tables/part-1.csv?")
    assert [*open_source(one)] == [{"id": "1", "n": "changed"}]
    some = url.replace("/tables?", "/tables/part-[12].csv?")
    assert len(open_source(some)) == 2
    with pytest.raises(DataError, match="the data is empty"):
        open_source(url.replace("/tables?", "/nowhere?"))


def test_the_public_names_are_there_and_light() -> None:
    """They are loaded when they are first used."""
    for name in onward.data.__all__:
        assert getattr(onward.data, name).__name__ == name
        assert importlib.import_module(onward.data._HOMES[name])
    assert dir(onward.data) == sorted(onward.data.__all__)
    code = "import sys, onward.data; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
