"""Documents made to harm: nothing but typed errors comes of them, in bounded memory and time."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, NewerFormat, OnwardError, StateError
from onward.repository import open_repository, pack_key, repository, summary
from onward.repository.documents import from_bytes, sealed
from onward.repository.records import parse_record
from onward.stores import LocalStore
from tests.repository.forging import (
    errors_of,
    forge_manifest,
    forge_record,
    head_of,
    one_checkpoint,
    peak_bytes,
    replace_object,
    restored,
)
from tests.repository.outputs import leaf, objects, opened, scaled

_MIB = 1 << 20
_DEEP = 100_000


# --- any document


def _read(data: bytes, max_bytes: int = _MIB) -> dict[str, Any]:
    return from_bytes(data, name="the document", max_bytes=max_bytes)


_BAD_DOCUMENTS = {
    "empty": b"",
    "not-json": b"hello",
    "cut-off": b'{"format":1,"a":[1,2',
    "two-documents": b'{"format":1}{"format":1}',
    "an-array": b"[1]",
    "null": b"null",
    "no-format": b"{}",
    "format-0": b'{"format":0}',
    "format-true": b'{"format":true}',
    "format-text": b'{"format":"1"}',
    "format-huge-text": b'{"format":"' + b"x" * 100_000 + b'"}',
    "duplicate-keys": b'{"format":1,"a":1,"a":1}',
    "duplicate-keys-deep": b'{"format":1,"a":{"b":[{"c":1,"c":2}]}}',
    "duplicate-keys-escaped": b'{"format":1,"a":1,"\\u0061":1}',
    "nan": b'{"format":1,"a":NaN}',
    "infinity": b'{"format":1,"a":Infinity}',
    "minus-infinity": b'{"format":1,"a":-Infinity}',
    "float-too-large": b'{"format":1,"a":1e999}',
    "megabyte-integer": b'{"format":1,"a":' + b"9" * 900_000 + b"}",
    "megabyte-float": b'{"format":1,"a":0.' + b"9" * 900_000 + b"}",
    "megabyte-exponent": b'{"format":1,"a":1e' + b"9" * 900_000 + b"}",
    "not-utf-8": b'{"format":1,"a":"\xff\xfe"}',
    "utf-16": '{"format":1}'.encode("utf-16"),
    "byte-order-mark": b'\xef\xbb\xbf{"format":1}',
    "overlong-utf-8": b'{"format":1,"a":"\xc0\xaf"}',
    "half-pair": b'{"format":1,"a":"\\ud800"}',
    "half-pair-key": b'{"format":1,"\\udc00":1}',
    "half-pair-reversed": b'{"format":1,"a":"\\udc00\\ud800"}',
    "encoded-half-pair": b'{"format":1,"a":"\xed\xa0\x80"}',
    "control-character": b'{"format":1,"a":"\x00"}',
    "deep-arrays": b'{"format":1,"a":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "deep-objects": b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
    "deep-and-cut-off": b'{"format":1,"a":' + b"[" * _DEEP,
    "one-level-too-deep": b'{"format":1,"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "too-long": b'{"format":1,"a":"' + b"x" * _MIB + b'"}',
    "too-many-values": b'{"format":1,"a":[' + b"1," * 70_000 + b"1]}",
}


@pytest.mark.parametrize("data", _BAD_DOCUMENTS.values(), ids=_BAD_DOCUMENTS)
def test_document_that_is_none(data: bytes) -> None:
    """It is `Damaged`, in a message of a readable length."""
    with pytest.raises(Damaged) as caught:
        _read(data)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()


def test_document_that_is_one() -> None:
    """Odd but proper documents are read."""
    assert _read(b'{"format":1,"a":' + b"[" * 63 + b"]" * 63 + b"}")["format"] == 1
    assert (
        _read(b' {"format" : 1, "a":"\\ud83d\\ude00 [[[[ \\" {{"}\n')["a"] == '\U0001f600 [[[[ " {{'
    )
    assert _read(b'{"format":1,"a":"\\\\ud800"}')["a"] == "\\ud800"
    assert _read(b'{"format":1,"' + b"[" * 1000 + b'":1}')["format"] == 1


@pytest.mark.parametrize("version", [2, 3, 10**20])
def test_newer_document(version: int) -> None:
    """It is not damage: the error says to upgrade."""
    with pytest.raises(NewerFormat, match="upgrade onward"):
        _read(json.dumps({"format": version, "unheard": "of"}).encode())


def _filled(start: bytes, unit: bytes, end: bytes, size: int) -> bytes:
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        (b'{"format":1,"a":[', b"[],", b"[]]}"),
        (b'{"format":1,"a":[', b"{},", b"{}]}"),
        (b'{"format":1,"a":[', b'{"a":[]},', b"1]}"),
        (b'{"format":1,"a":[', b"1.25,", b"1]}"),
        (b'{"format":1,"a":[', b"12345,", b"1]}"),
        (b'{"format":1,"a":[', b'"abcdefghijkl",', b"1]}"),
        (b'{"format":1,"a":"', "é€\U0001f600".encode(), b'"}'),
        (b'{"format":1,"a":"\xf0\x9f\x98\x80', b"x", b'"}'),
        (b'{"format":1,"a":"', b"\\n", b'"}'),
        (b'{"format":1,"a":"', b'\\"', b""),
        (b"", b'\\"', b""),
        (b"", b'"', b""),
        (b'{"format":1,"a":', b" ", b"1}"),
        (b'{"format":1,"a":', b"9", b"}"),
        (b"", b"[", b""),
        (b"", b'{"":', b""),
    ],
)
def test_memory_and_time_of_large_documents(start: bytes, unit: bytes, end: bytes) -> None:
    """A document takes at most a dozen times its limit in memory, and time in proportion."""
    size = scaled(1, 64) * _MIB
    data = _filled(start, unit, end, size)

    def read() -> None:
        try:
            _read(data, size)
        except Damaged:
            return

    began = time.process_time()
    read()
    assert time.process_time() - began < 2 + 0.5 * size / _MIB
    assert peak_bytes(read) < 12 * size


# --- records


_RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown-kind": lambda r: r.update(kind="erase"),
    "kind-of-another-type": lambda r: r.update(kind=7),
    "no-kind": lambda r: r.pop("kind"),
    "no-writer": lambda r: r.pop("writer"),
    "seq-of-another-slot": lambda r: r.update(seq=77),
    "negative-seq": lambda r: r.update(seq=-1),
    "seq-a-float": lambda r: r.update(seq=2.0),
    "seq-a-boolean": lambda r: r.update(seq=True),
    "huge-step": lambda r: r.update(step=2**53),
    "astronomic-step": lambda r: r.update(step=10**399),
    "negative-step": lambda r: r.update(step=-1),
    "generation-of-the-future": lambda r: r.update(generation=2),
    "foreign-writer": lambda r: r.update(writer="f" * 32),
    "wrong-predecessor": lambda r: r.update(prev="0" * 64),
    "upper-case-digest": lambda r: r.update(prev=r["prev"].upper()),
    "id-with-a-path": lambda r: r.update(checkpoint="../../etc/passwd"),
    "id-with-a-newline": lambda r: r.update(checkpoint=r["checkpoint"] + "\n"),
    "id-of-other-digits": lambda r: r.update(checkpoint="٠١٢٣٤٥٦٧٨٩٠١٢٣٤٥"),
    "unknown-parent": lambda r: r.update(parent="0" * 16),
    "parent-itself": lambda r: r.update(parent=r["checkpoint"]),
    "parent-a-path": lambda r: r.update(parent="../../../../x"),
    "manifest-of-astronomic-size": lambda r: r["manifest"].update(size=2**60),
    "manifest-of-negative-size": lambda r: r["manifest"].update(size=-1),
    "manifest-longer-than-it-is": lambda r: r["manifest"].update(size=2**50),
    "manifest-shorter-than-it-is": lambda r: r["manifest"].update(size=1),
    "manifest-of-another-digest": lambda r: r["manifest"].update(digest="0" * 64),
    "endless-reason": lambda r: r.update(reason="x" * 2001),
    "metric-astronomic": lambda r: r.update(metrics={"a": 10**399}),
    "metric-a-text": lambda r: r.update(metrics={"a": "1"}),
    "metrics-an-array": lambda r: r.update(metrics=[1]),
    "contradicts-its-manifest": lambda r: r.update(step=r["step"] + 1),
    "contradicts-its-manifest-too": lambda r: r.update(finished=not r["finished"]),
    "a-second-open": lambda r: {
        **_common(r),
        "kind": "open",
        "repository": "0" * 32,
        "made_by": "",
    },
    "alias-a-path": lambda r: _alias(r, "../x"),
    "alias-computed": lambda r: _alias(r, "latest"),
    "alias-like-an-id": lambda r: _alias(r, "abcd1234"),
    "alias-half-a-pair": lambda r: _alias(r, "\ud800"),
    "alias-endless": lambda r: _alias(r, "a" * 100_000),
    "alias-of-nothing": lambda r: _alias(r, "name", "0" * 16),
    "drop-of-nothing": lambda r: _drop(r, ["0" * 16], []),
    "drop-of-a-path": lambda r: _drop(r, [], ["../../../home"]),
    "drop-of-many-nothings": lambda r: _drop(r, [f"{n:016x}" for n in range(50_000)], []),
    "repack-of-format-1": lambda r: {**_repack(r), "format": 1},
    "commit-of-format-2": lambda r: r.update(format=2),
    "unknown-kind-of-format-2": lambda r: r.update(format=2, kind="erase"),
    "repack-of-nothing": lambda r: _repack(r, {"0" * 16: f"{'0' * 16}-{'0' * 8}"}),
    "repack-to-a-path": lambda r: _repack(r, {r["parent"]: "../../x"}),
    "repack-to-the-same-name": lambda r: _repack(r, {_first_id(r): _first_id(r)}),
    "repack-to-another-checkpoint": lambda r: _repack(r, {_first_id(r): f"{'0' * 16}-{'0' * 8}"}),
    "repack-of-a-path": lambda r: _repack(r, {}, ["../../../home"]),
    "repack-of-astronomic-size": lambda r: _repack(
        r, {_first_id(r): f"{_first_id(r)}-{'0' * 8}"}, size=2**60
    ),
    "repack-of-many-nothings": lambda r: _repack(
        r, {f"{n:016x}": f"{n:016x}-{'0' * 8}" for n in range(4000)}
    ),
    "pin-of-nothing": lambda r: _alias(r, f"pin-{'0' * 16}", "0" * 16),
    "claim-that-skips": lambda r: {**_common(r), "kind": "claim", "who": "", "generation": 9},
}


def _common(record: dict[str, Any]) -> dict[str, Any]:
    names = ("format", "seq", "record", "writer", "generation", "time", "prev")
    return {name: record[name] for name in names}


def _alias(record: dict[str, Any], name: str, checkpoint: str | None = None) -> dict[str, Any]:
    return {**_common(record), "kind": "alias", "name": name, "checkpoint": checkpoint}


def _drop(record: dict[str, Any], checkpoints: list[str], packs: list[str]) -> dict[str, Any]:
    return {**_common(record), "kind": "drop", "checkpoints": checkpoints, "packs": packs}


def _first_id(record: dict[str, Any]) -> str:
    checkpoint: str = record["checkpoint"]
    return checkpoint


def _repack(
    record: dict[str, Any],
    names: dict[str, str] | None = None,
    packs: list[str] | None = None,
    size: int = 1,
) -> dict[str, Any]:
    places = {
        id_: {"name": name, "digest": "0" * 64, "size": size} for id_, name in (names or {}).items()
    }
    common = {**_common(record), "format": 2, "kind": "repack"}
    return {**common, "manifests": places, "packs": packs or []}


@pytest.mark.parametrize("change", _RECORDS.values(), ids=_RECORDS)
def test_hostile_record(change: Callable[[dict[str, Any]], Any]) -> None:
    """A record with right digests and wrong content stops the reader, or its checkpoint is none."""
    store = one_checkpoint()
    try:
        forge_record(store, change)
    except UnicodeEncodeError:
        return  # not even a document
    (error,) = errors_of(store)
    assert type(error) is Damaged


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"x" * (3 * _MIB), b'{"format":1}'])
def test_record_of_rubbish(data: bytes) -> None:
    """Whatever stands in a slot, however long, is read up to the limit and refused."""
    store = one_checkpoint()
    forge_record(store, data)
    (error,) = errors_of(store)
    assert type(error) is Damaged


@pytest.mark.parametrize("kind", ["log", "manifests", "summary.json"])
def test_endless_document_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Memory stays bounded, whatever lies under a document's key."""
    monkeypatch.setattr(repository, "MAX_MANIFEST_BYTES", _MIB)
    monkeypatch.setattr(summary, "MAX_SUMMARY_BYTES", _MIB)
    store = LocalStore(tmp_path)
    for key, data in objects(one_checkpoint()).items():
        store.create(key, data)
    store.put("onward/summary.json", [b"{"], 1)
    if kind == "manifests":  # of which even the record says that it is so long
        forge_record(store, lambda record: record["manifest"].update(size=1 << 28))
    path = sorted(path for path in tmp_path.rglob("*.json") if kind in path.parts)[-1]
    os.truncate(path, 1 << 28)
    assert peak_bytes(lambda: errors_of(store)) < 32 * _MIB
    assert len(errors_of(store)) == (kind != "summary.json")


def test_newer_record() -> None:
    """An output that a newer Onward has written to is refused politely, not called damaged."""
    store = one_checkpoint()
    forge_record(store, lambda record: record.update(format=4, kind="something new"))
    (error,) = errors_of(store)
    assert type(error) is NewerFormat


def test_record_with_more_fields() -> None:
    """Fields that are not known are ignored: a later Onward may add some."""
    store = one_checkpoint()
    before = restored(store)
    forge_record(store, lambda record: record.update(more={"of": ["this", None]}))
    forge_manifest(store, lambda manifest: manifest.update(more=[1.5]))
    assert errors_of(store) == []
    assert restored(store) == before


def test_seal_must_be_the_last_field() -> None:
    """A seal that stands elsewhere, twice, or is another field's value is none."""
    store = one_checkpoint()
    seq = head_of(store)
    whole = store.read(f"onward/log/{seq:020d}.json")
    parse_record(whole, seq)
    for bad in (
        whole.replace(b'"digest":"', b'"digesT":"'),
        whole[:-2] + b'" }',
        whole + b" ",
        whole[:-1] + b',"x":1}',
        sealed({**json.loads(whole)}).replace(b'"reason":"test"', b'"reason":"best"'),
    ):
        with pytest.raises(Damaged):
            parse_record(bad, seq)


# --- manifests


def _tensors() -> dict[str, Any]:
    return {
        "a": leaf(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "b": leaf(np.arange(100, 106, dtype=np.int64)),
    }


def _first(manifest: dict[str, Any]) -> dict[str, Any]:
    tensor: dict[str, Any] = manifest["tensors"][0]
    return tensor


def _range(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _first(manifest)["parts"][0]["range"]
    return found


def _pack(manifest: dict[str, Any]) -> str:
    return next(iter(manifest["packs"]))


def _rename_pack(manifest: dict[str, Any], name: str) -> None:
    old = _pack(manifest)
    manifest["packs"][name] = manifest["packs"].pop(old)
    for tensor in manifest["tensors"]:
        for part in tensor["parts"]:
            part["range"]["pack"] = name


def _region(manifest: dict[str, Any], start: list[int], shape: list[int], **more: Any) -> Any:
    size = 4
    for extent in shape:
        size *= extent
    return {
        "part": "region", "start": start, "shape": shape,
        "range": {**_range(manifest), "size": size, **more},
    }  # fmt: skip


def _rows(manifest: dict[str, Any], count: int) -> dict[str, Any]:
    found = _range(manifest)
    index = {**found, "offset": found["offset"] + 48, "size": 8 * count}
    return {"part": "rows", "count": count, "index": index,
            "rows": {**found, "offset": found["offset"], "size": 16 * count}}  # fmt: skip


def _parts(*make: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        _first(manifest)["parts"] = [each(manifest) for each in make]

    return change


def _whole(manifest: dict[str, Any]) -> Any:
    return _first(manifest)["parts"][0]


_MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "of-another-checkpoint": lambda m: m.update(checkpoint="0" * 16),
    "of-another-repository": lambda m: m.update(repository="0" * 32),
    "of-another-step": lambda m: m.update(step=7),
    "no-tensors": lambda m: m.pop("tensors"),
    "tensors-an-object": lambda m: m.update(tensors={}),
    "pack-a-path": lambda m: _rename_pack(m, "../../../../etc/passwd"),
    "pack-an-absolute-path": lambda m: _rename_pack(m, "/etc/passwd"),
    "pack-with-a-null": lambda m: _rename_pack(m, "\0" * 32),
    "pack-upper-case": lambda m: _rename_pack(m, "A" * 32),
    "pack-that-does-not-exist": lambda m: _rename_pack(m, "0" * 32),
    "pack-not-listed": lambda m: m.update(packs={}),
    "pack-of-negative-size": lambda m: m["packs"][_pack(m)].update(size=-1),
    "pack-of-astronomic-size": lambda m: m["packs"][_pack(m)].update(size=2**60),
    "pack-shorter-than-its-ranges": lambda m: m["packs"][_pack(m)].update(size=100),
    "offset-negative": lambda m: _range(m).update(offset=-8),
    "offset-in-the-header-length": lambda m: _range(m).update(offset=4),
    "offset-beyond-the-pack": lambda m: _range(m).update(offset=2**50),
    "offset-wraps": lambda m: _range(m).update(offset=2**53 - 8),
    "size-astronomic": lambda m: _range(m).update(size=2**53 - 1),
    "size-smaller": lambda m: _range(m).update(size=47),
    "size-larger": lambda m: _range(m).update(size=49),
    "ranges-overlap": lambda m: _range(m).update(offset=_range(m)["offset"] + 16),
    "range-of-another-digest": lambda m: _range(m).update(digest="0" * 64),
    "tensor-of-another-digest": lambda m: _first(m).update(digest="0" * 64),
    "digest-too-short": lambda m: _range(m).update(digest="00"),
    "dtype-unknown": lambda m: _first(m).update(dtype="object"),
    "dtype-endless": lambda m: _first(m).update(dtype="F" * 100_000),
    "kind-unknown": lambda m: _first(m).update(kind="tensorflow"),
    "shape-of-more-elements": lambda m: _first(m).update(shape=[4, 4]),
    "shape-negative": lambda m: _first(m).update(shape=[-3, -4]),
    "shape-huge": lambda m: _first(m).update(shape=[2**53 - 1] * 30),
    "shape-of-too-many-dimensions": lambda m: _first(m).update(shape=[1] * 31 + [12]),
    "shape-empty-and-huge": lambda m: _first(m).update(shape=[0, 2**53 - 1, 9], parts=[]),
    "shape-a-float": lambda m: _first(m).update(shape=[12.0]),
    "shape-empty-with-parts": lambda m: _first(m).update(shape=[0]),
    "no-parts": _parts(),
    "part-unknown": lambda m: _whole(m).update(part="delta"),
    "two-full-parts": _parts(_whole, _whole),
    "full-and-region": _parts(_whole, lambda m: _region(m, [0, 0], [3, 4])),
    "region-and-full": _parts(lambda m: _region(m, [0, 0], [3, 4]), _whole),
    "rows-alone": _parts(lambda m: _rows(m, 1)),
    "rows-of-rows-that-are-not-there": _parts(_whole, lambda m: _rows(m, 4)),
    "rows-negative": _parts(_whole, lambda m: {**_rows(m, 1), "count": -1}),
    "rows-of-another-size": _parts(_whole, lambda m: {**_rows(m, 1), "count": 2}),
    "rows-over-what-they-replace": _parts(_whole, lambda m: _rows(m, 3)),
    "rows-of-a-scalar": lambda m: _first(m).update(shape=[], parts=[_whole(m), _rows(m, 1)]),
    "region-of-another-dimension": _parts(lambda m: _region(m, [0], [12])),
    "region-outside": _parts(lambda m: _region(m, [1, 0], [3, 4])),
    "region-far-outside": _parts(lambda m: _region(m, [2**53 - 1, 0], [3, 4])),
    "region-negative": _parts(lambda m: _region(m, [-1, 0], [3, 4])),
    "region-empty": _parts(lambda m: _region(m, [0, 0], [0, 4])),
    "region-of-another-size": _parts(lambda m: _region(m, [0, 0], [3, 4], size=44)),
    "regions-with-a-gap": _parts(lambda m: _region(m, [0, 0], [2, 4])),
    "regions-that-overlap": _parts(
        lambda m: _region(m, [0, 0], [2, 4]),
        lambda m: _region(m, [1, 0], [1, 4], offset=_range(m)["offset"] + 32),
    ),
    "regions-that-overlap-and-leave-a-gap": _parts(
        lambda m: _region(m, [0, 0], [3, 2]),
        lambda m: _region(m, [0, 1], [3, 2], offset=_range(m)["offset"] + 24),
    ),
    "regions-of-the-same-bytes": _parts(
        lambda m: _region(m, [0, 0], [1, 4]),
        lambda m: _region(m, [1, 0], [1, 4]),
        lambda m: _region(m, [2, 0], [1, 4]),
    ),
    "region-after-rows": _parts(
        lambda m: _region(m, [0, 0], [2, 4]),
        lambda m: _rows(m, 1),
        lambda m: _region(m, [2, 0], [1, 4], offset=_range(m)["offset"] + 32),
    ),
    "state-with-a-tensor-it-lacks": lambda m: m.update(state={"$tensor": 2}),
    "about-an-array": lambda m: m.update(about=[]),
    "origin-of-numbers": lambda m: m.update(origin={"url": 1}),
    "framework-missing": lambda m: m.update(framework={}),
}  # fmt: skip


@pytest.mark.parametrize("change", _MANIFESTS.values(), ids=_MANIFESTS)
def test_hostile_manifest(change: Callable[[dict[str, Any]], Any]) -> None:
    """A manifest with right digests and wrong content is `Damaged` before memory is reserved."""
    store = one_checkpoint(_tensors())
    forge_manifest(store, change)
    errors: list[OnwardError] = []
    assert peak_bytes(lambda: errors.extend(errors_of(store))) < 24 * _MIB
    assert [type(error) for error in errors] == [Damaged]


@pytest.mark.parametrize(
    "rows", [[-1, 0], [0, 3], [1, 0], [1, 1], [2**62, 2**63 - 1], [-(2**63), 0]]
)
def test_row_patch_with_bad_row_numbers(rows: list[int]) -> None:
    """Row numbers are data, not document: they are checked when they are read."""
    store = one_checkpoint(
        {
            "base": leaf(np.zeros((3, 2), dtype=np.int64)),
            "index": leaf(np.array(rows)),
            "rows": leaf(np.ones((2, 2), dtype=np.int64)),
        }
    )

    def patch(manifest: dict[str, Any]) -> None:
        base, index, values = manifest["tensors"]
        base["parts"].append(
            {"part": "rows", "count": 2, "index": index["parts"][0]["range"],
             "rows": values["parts"][0]["range"]}
        )  # fmt: skip
        base["digest"] = None

    forge_manifest(store, patch)
    (error,) = errors_of(store)
    assert "tensor base has a row patch with bad row numbers" in str(error)


def test_many_regions_all_side_by_side() -> None:
    """A pile of regions made to be compared each with each takes no minutes."""
    count = scaled(4096, 16_384)
    store = one_checkpoint({"a": leaf(np.zeros((2, count), dtype=np.float32))})

    def pile(manifest: dict[str, Any]) -> None:
        offset = _range(manifest)["offset"]
        _first(manifest)["parts"] = [
            _region(manifest, [0, column], [2, 1], offset=offset + 8 * column)
            for column in range(count)
        ]
        for part in _first(manifest)["parts"]:
            del part["range"]["digest"]
            part["range"]["digest"] = "0" * 64

    began = time.process_time()
    forge_manifest(store, pile)
    repository = open_repository(store)
    manifest = repository.manifest(repository.history.live()[0])
    assert time.process_time() - began < 10
    assert len(manifest.tensors[0].parts) == count


def test_tensors_that_expand_a_pack() -> None:
    """Patches that share one base cannot make much memory of few bytes."""
    store = one_checkpoint({"a": leaf(np.zeros((1000, 4), np.float32))})

    def expand(manifest: dict[str, Any]) -> None:
        base = _first(manifest)
        found = _range(manifest)
        manifest["tensors"] = [
            {**base, "digest": None, "parts": [
                base["parts"][0],
                {"part": "rows", "count": 0, "index": {**found, "size": 0, "offset": 8},
                 "rows": {**found, "size": 0, "offset": 8 + number}},
            ]}
            for number in range(100)
        ]  # fmt: skip
        manifest["state"] = [{"$tensor": number} for number in range(100)]

    forge_manifest(store, expand)
    (error,) = errors_of(store)
    assert "far fewer" in str(error)


def test_pack_that_is_shorter_than_it_says() -> None:
    """The manifest and its digests may all agree: what counts is how long the pack really is."""
    store = one_checkpoint(_tensors())
    found: list[str] = []

    def grow(manifest: dict[str, Any]) -> None:
        found.append(_pack(manifest))
        manifest["packs"][found[0]]["size"] = 2**40
        _first(manifest).update(shape=[2**35], dtype="U8")
        _range(manifest).update(size=2**35, offset=2**36)

    forge_manifest(store, grow)
    errors: list[OnwardError] = []
    assert peak_bytes(lambda: errors.extend(errors_of(store))) < 24 * _MIB
    assert "tensor a is cut off" in str(errors[0])


def test_sparse_pack_that_is_not_what_it_says() -> None:
    """A pack of another content than the manifest's digest is `Damaged`, and names the tensor."""
    store = one_checkpoint(_tensors())
    repository = opened(store)
    manifest = repository.manifest(repository.history.live()[0])
    (pack,) = manifest.packs
    replace_object(store, pack_key(pack), bytes(manifest.packs[pack].size))
    (error,) = errors_of(store)
    assert "tensor a is damaged" in str(error)


# --- states


_STATES: dict[str, Any] = {
    "unknown-entry": {"$pickle": "gASVAAAA"},
    "unknown-entry-beside-others": {"$tensor": 0, "b": 1},
    "two-entries": {"$tuple": [], "$set": []},
    "tensor-negative": {"$tensor": -1},
    "tensor-out-of-range": {"$tensor": 99},
    "tensor-astronomic": {"$tensor": 10**300},
    "tensor-a-boolean": {"$tensor": True},
    "tensor-a-float": {"$tensor": 0.0},
    "tensor-a-text": {"$tensor": "0"},
    "tuple-a-text": {"$tuple": "abc"},
    "tuple-an-object": {"$tuple": {}},
    "set-of-lists": {"$set": [[1]]},
    "set-of-objects": {"$frozenset": [{"a": 1}]},
    "set-with-doubles": {"$set": [1, 1.0]},
    "dict-an-object": {"$dict": {"a": 1}},
    "dict-of-texts": {"$dict": ["ab"]},
    "dict-of-triples": {"$dict": [[1, 2, 3]]},
    "dict-keyed-by-a-list": {"$dict": [[[1], 2]]},
    "dict-keyed-by-an-object": {"$dict": [[{"a": 1}, 2]]},
    "dict-with-doubles": {"$dict": [[1, 2], [True, 3]]},
    "int-a-number": {"$int": 1.5},
    "int-of-words": {"$int": "one"},
    "int-with-blanks": {"$int": " 1_000 "},
    "int-of-other-digits": {"$int": "٣"},
    "int-endless": {"$int": "9" * 100_000},
    "float-too-short": {"$float": "7ff0"},
    "float-with-blanks": {"$float": "7ff 00000000000 "},
    "float-a-number": {"$float": 1},
    "complex-of-one": {"$complex": [1.0]},
    "complex-of-texts": {"$complex": ["1", "2"]},
    "complex-of-a-complex": {"$complex": [{"$complex": [1.0, 1.0]}, 1.0]},
    "bytes-not-base64": {"$bytes": "!!!!"},
    "bytes-a-number": {"$bytes": 5},
    "bytes-not-ascii": {"$bytes": "éé"},
    "numpy-of-objects": {"$numpy": ["|O", "00" * 8]},
    "numpy-of-records": {"$numpy": ["i4,i4", "00" * 8]},
    "numpy-huge": {"$numpy": ["<U1000000000", ""]},
    "numpy-long-double": {"$numpy": ["<f16", "00" * 16]},
    "numpy-too-short": {"$numpy": ["<f8", "00"]},
    "numpy-too-long": {"$numpy": ["<f8", "00" * 9]},
    "numpy-not-hex": {"$numpy": ["<f8", "zz" * 8]},
    "numpy-of-three": {"$numpy": ["<f8", "00" * 8, 1]},
    "tagged-by-a-number": {"$tagged": [1, 2]},
    "tagged-alone": {"$tagged": ["torch.dtype"]},
    "enum-a-number": {"$enum": 5},
    "enum-of-numbers": {"$enum": [5, 5]},
    "enum-of-lists": {"$enum": [["a"], ["b"]]},
    "enum-of-nothing": {"$enum": ["", ""]},
    "enum-no-class": {"$enum": ["os:path", "join"]},
    "enum-a-function": {"$enum": ["os:system", "x"]},
    "enum-a-plain-class": {"$enum": ["builtins:dict", "x"]},
    "enum-deep-in-a-class": {"$enum": ["builtins:dict.__class__.__base__", "x"]},
    "enum-without-that-member": {"$enum": ["signal:Signals", "SIGNOTHING"]},
    "enum-a-method-as-member": {"$enum": ["signal:Signals", "mro"]},
}


@pytest.mark.parametrize("tree", _STATES.values(), ids=_STATES)
def test_hostile_state(tree: Any) -> None:
    """Entries that no writer makes are `Damaged`; enums that are not there, a `StateError`."""
    for nested in (tree, {"model": [1, tree]}, {"$dict": [["key", tree]]}):
        store = one_checkpoint(_tensors())
        forge_manifest(store, lambda manifest, nested=nested: manifest.update(state=nested))
        (error,) = errors_of(store)
        assert type(error) in (Damaged, StateError)


def test_enum_of_a_module_that_is_not_loaded() -> None:
    """A document does not choose what is imported; the error names the class."""
    module = "this"  # whose import would print a poem
    sys.modules.pop(module, None)
    store = one_checkpoint(_tensors())
    forge_manifest(store, lambda manifest: manifest.update(state={"$enum": [f"{module}:Zen", "x"]}))
    (error,) = errors_of(store)
    assert type(error) is StateError
    assert "'this:Zen', which is not loaded" in str(error)
    assert module not in sys.modules


def test_enum_of_a_module_that_loads_others_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a loaded module's own code runs: its `__getattr__` may import anything."""
    asked: list[str] = []
    lazy = types.ModuleType("a_lazy_module")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "a_lazy_module", lazy)

    class Lazier(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattribute__(name)

    monkeypatch.setitem(sys.modules, "a_lazier_module", Lazier("a_lazier_module"))
    for module in ("a_lazy_module", "a_lazier_module"):
        store = one_checkpoint(_tensors())
        tree = {"$enum": [f"{module}:Payload", "x"]}
        forge_manifest(store, lambda manifest, tree=tree: manifest.update(state=tree))
        asked.clear()
        (error,) = errors_of(store)
        assert type(error) is StateError
        assert asked == []


def test_state_of_any_form_is_restored_by_name() -> None:
    """Asked for entries of a state that is no plain object, there are none."""
    from onward.repository import read_state

    for tree in ([1, 2], {"$tuple": []}, 5, None, {"$dict": [[1, 2]]}):
        store = one_checkpoint(_tensors())
        forge_manifest(store, lambda manifest, tree=tree: manifest.update(state=tree))
        repository = opened(store)
        manifest = repository.manifest(repository.history.live()[0])
        assert read_state(store, manifest, keys=["model", "0"]) == {}


def test_untouched_output_has_no_errors() -> None:
    """What the tests above change is what makes the errors."""
    assert errors_of(one_checkpoint()) == []
    assert errors_of(one_checkpoint(_tensors())) == []
    forged = one_checkpoint(_tensors())
    forge_manifest(forged, lambda manifest: None)
    assert errors_of(forged) == []
