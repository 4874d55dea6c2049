"""Buckets that misbehave: what is believed, what is repeated, and which error comes of it."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from onward.errors import (
    AlreadyExists,
    Missing,
    NoSpace,
    ReadOnly,
    StoreError,
    Unreachable,
    UnsafeStore,
    UsageError,
)
from onward.stores import Died, ObjectStore, honours_create, objects, parse
from onward.stores.fingerprint import Fingerprint, in_parts
from tests.servers import S3Server, free_ports
from tests.stores.fake_s3 import KEYS, Answer, FakeS3, Request, error, fake_s3

PART = 64 * 1024
SMALL = b"a small object"
LARGE = random.Random(3).randbytes(20 * PART + 777)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A server to misbehave, and parts small enough to have many of them."""
    monkeypatch.setattr(objects, "PART_BYTES", PART)
    with fake_s3() as server:
        yield server


def _put(store: ObjectStore, data: bytes) -> None:
    store.put("key", [data[:10], data[10:]], len(data))


def _create(store: ObjectStore, data: bytes) -> None:
    store.create("key", data)


# --- what is believed

_UPLOADS = [
    pytest.param(_put, SMALL, id="put-small"),
    pytest.param(_put, LARGE, id="put-large"),
    pytest.param(_create, SMALL, id="create"),
    pytest.param(_put, b"", id="put-empty"),
    pytest.param(_create, b"", id="create-empty"),
]


@pytest.mark.parametrize(("upload", "data"), _UPLOADS)
def test_upload_to_a_store_whose_etags_are_digests(
    fake: FakeS3, upload: Callable[[ObjectStore, bytes], None], data: bytes
) -> None:
    """The ETag proves the content, so that nothing is read back."""
    upload(fake.store(), data)
    assert fake.objects["key"] == data
    assert fake.count("GET") == 0


@pytest.mark.parametrize("foreign", ["opaque-CJ+1", "0" * 32, "0" * 32 + "-21"])
@pytest.mark.parametrize(("upload", "data"), _UPLOADS)
def test_upload_to_a_store_whose_etags_are_something_else(
    fake: FakeS3, upload: Callable[[ObjectStore, bytes], None], data: bytes, foreign: str
) -> None:
    """Encrypted objects have other ETags, some of them shaped like an MD5: they are read back."""
    fake.etag = lambda _: foreign
    upload(fake.store(), data)
    assert fake.objects["key"] == data
    assert fake.count("GET") == 1


@pytest.mark.parametrize(("upload", "data"), _UPLOADS[:3])
def test_upload_that_arrives_damaged(
    fake: FakeS3, upload: Callable[[ObjectStore, bytes], None], data: bytes
) -> None:
    """A changed byte is found, although the store said that all was well."""
    fake.stored = lambda arrived: arrived[:-1] + bytes([arrived[-1] ^ 1])
    fake.etag = lambda _: "of-what-arrived"
    with pytest.raises(StoreError, match="not what was sent"):
        upload(fake.store(), data)


@pytest.mark.parametrize(("upload", "data"), _UPLOADS[:3])
def test_upload_that_arrives_short(
    fake: FakeS3, upload: Callable[[ObjectStore, bytes], None], data: bytes
) -> None:
    """A missing byte is found from the length alone."""
    fake.stored = lambda arrived: arrived[:-1]
    fake.etag = lambda _: "of-what-arrived"
    with pytest.raises(StoreError, match=f"holds {len(data) - 1:,} bytes of {len(data):,}"):
        upload(fake.store(), data)


def test_upload_that_never_arrives(fake: FakeS3) -> None:
    """A store that took an object and does not have it is not believed either."""
    fake.answer = lambda request: (404, b"") if request.method == "HEAD" else None
    with pytest.raises(StoreError, match="does not have it"):
        _put(_with_bucket_seen(fake), SMALL)


def _with_bucket_seen(fake: FakeS3) -> ObjectStore:
    store = fake.store()
    answer, fake.answer = fake.answer, lambda _: None
    store.create("seen", b"")
    assert store.size("seen") == 0
    fake.answer = answer
    return store


# --- large uploads


def test_source_of_a_large_upload_fails(fake: FakeS3) -> None:
    """The upload is aborted at the store: its parts cost nobody anything."""

    def chunks() -> Iterator[bytes]:
        yield LARGE[:-5]
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        fake.store().put("key", chunks(), len(LARGE))
    assert fake.objects == {}
    assert fake.uploads == {}
    assert fake.count("DELETE") == 1


def test_process_dies_while_it_gives_parts(fake: FakeS3) -> None:
    """Even what is no `Exception` comes through, and nothing is stored."""

    def chunks() -> Iterator[bytes]:
        yield LARGE[:-5]
        raise Died

    with pytest.raises(Died):
        fake.store().put("key", chunks(), len(LARGE))
    assert fake.objects == {}


def test_large_upload_stays_close_to_its_source(fake: FakeS3) -> None:
    """Parts wait in memory only as many as are under way and a few more."""
    given = 0
    ahead: list[int] = []

    def chunks() -> Iterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            ahead.append(given - len(fake.uploads.get("key", {})))
            yield bytes(PART)

    fake.store().put("key", chunks(), 100 * PART)
    assert len(fake.objects["key"]) == 100 * PART
    assert max(ahead) <= 8 + 4


def test_a_failed_part_is_repeated_alone(fake: FakeS3) -> None:
    """A store that stumbles over one part of many gets the others once, and is then believed."""
    stumbles = iter([503])

    def answer(request: Request) -> Answer:
        if request.method == "PUT" and request.query.get("partNumber") == "5":
            return next(((status, error("SlowDown")) for status in stumbles), None)
        return None

    fake.answer = answer
    fake.store().put("key", [LARGE], len(LARGE))
    assert fake.objects["key"] == LARGE
    sent = [r.query["partNumber"] for r in fake.requests if r.method == "PUT"]
    assert sorted(sent, key=int) == sorted([*map(str, range(1, 22)), "5"], key=int)
    assert sum("uploads" in request.query for request in fake.requests) == 1


def test_parts_are_on_the_network_together(fake: FakeS3) -> None:
    """The first part is not answered before another one has come."""
    others = threading.Event()

    def lose_reply(request: Request) -> bool:
        if request.method == "PUT" and request.query.get("partNumber") == "1":
            assert others.wait(30)
        elif request.method == "PUT":
            others.set()
        return False

    fake.lose_reply = lose_reply
    fake.store().put("key", [LARGE], len(LARGE))
    assert fake.objects["key"] == LARGE


@pytest.mark.parametrize("refused", ["POST", "PUT"])
def test_store_refuses_while_parts_are_given(fake: FakeS3, refused: str) -> None:
    """The source is not asked for more than can be used, and nobody waits for ever."""
    fake.answer = lambda r: (403, error("AccessDenied")) if r.method == refused else None
    given = 0

    def chunks() -> Iterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield bytes(PART)

    with pytest.raises(ReadOnly):
        fake.store().put("key", chunks(), 1000 * PART)
    assert given < 1000


def test_parts_of_a_huge_upload() -> None:
    """Parts grow where there would be more of them than a store takes."""
    assert objects.part_bytes_for(0) == 8 << 20
    assert objects.part_bytes_for(70 << 30) == 8 << 20
    size_bytes = 5 << 40
    assert -(-size_bytes // objects.part_bytes_for(size_bytes)) <= 10_000


def test_parts_are_cut_anywhere() -> None:
    """Parts are full but for the last, whatever the chunks were."""
    random_cuts = random.Random(5)
    data = random_cuts.randbytes(1000)
    for _ in range(50):
        cuts = sorted(random_cuts.randrange(1000) for _ in range(6))
        chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, 1000], strict=True)]
        parts = [bytes(part) for part in in_parts(map(memoryview, chunks), 64)]
        assert b"".join(parts) == data
        assert {len(part) for part in parts[:-1]} == {64}


def test_parts_do_not_change_with_the_buffers_of_their_source() -> None:
    """Only what nobody can change is handed on as it is: whole `bytes` of a part's length."""
    reused = bytearray(b"a" * 64)
    whole, other = bytes(64), b"b" * 65
    given = [memoryview(whole), memoryview(reused), memoryview(other)[:64]]
    parts = list(in_parts(given, 64))
    reused[:] = b"c" * 64
    assert parts[0] is whole
    assert [bytes(part) for part in parts] == [whole, b"a" * 64, b"b" * 64]


def test_fingerprint_of_one_part() -> None:
    """A single part may have gone up alone or as a multipart upload of one."""
    fingerprint = Fingerprint()
    fingerprint.add(b"abcd")
    assert fingerprint.is_etag('"e2fc714c4727ee9395f324cd2e7f331f"')
    assert fingerprint.is_etag("W/E2FC714C4727EE9395F324CD2E7F331F")
    assert fingerprint.is_etag('"1243e2c5302cae4b559ce80dd1cefa6e-1"')
    assert not fingerprint.is_etag('"e2fc714c4727ee9395f324cd2e7f331e"')
    assert not fingerprint.is_etag(None)
    assert fingerprint.is_content([b"ab", b"cd"])
    assert not fingerprint.is_content([b"ab"])


# --- what is repeated


def _failing(times: int, status: int, code: str) -> Callable[[Request], Answer]:
    left = [times]

    def answer(_: Request) -> Answer:
        left[0] -= 1
        return (status, error(code)) if left[0] >= 0 else None

    return answer


def test_store_that_is_busy_for_a_while(fake: FakeS3) -> None:
    """What can be repeated is repeated, until it works."""
    store = fake.store(deadline_s=2)
    for act in (
        lambda: store.put("key", [SMALL], len(SMALL)),
        lambda: store.put("key", [LARGE], len(LARGE)),
        lambda: store.read("key"),
        lambda: store.size("key"),
        lambda: store.delete("key"),
    ):
        fake.answer = _failing(1, 503, "SlowDown")
        act()
    assert fake.objects == {}


def test_create_at_a_busy_store(fake: FakeS3) -> None:
    """A create is tried once, and its caller is told to look."""
    fake.answer = _failing(1, 503, "SlowDown")
    with pytest.raises(Unreachable, match="SlowDown"):
        fake.store().create("key", SMALL)
    assert fake.count("PUT") == 1


def test_create_whose_reply_is_lost(fake: FakeS3) -> None:
    """It is `Unreachable`, although the object is there: reading it back tells."""
    fake.lose_reply = lambda request: request.method == "PUT"
    store = fake.store()
    with pytest.raises(Unreachable):
        store.create("key", SMALL)
    assert store.read("key") == SMALL
    assert fake.count("PUT") == 1


@pytest.mark.parametrize("size_bytes", [None, len(LARGE) - 100])
def test_download_that_is_cut(fake: FakeS3, size_bytes: int | None) -> None:
    """A connection that ends too early gives the whole range in the end, or an error."""
    store = fake.store(deadline_s=3)
    store.put("key", [LARGE], len(LARGE))
    fake.cuts = [PART, 10, 0]
    try:
        data = store.read("key", 50, size_bytes)
    except Unreachable:
        return
    assert data == LARGE[50:][:size_bytes]


def test_download_that_is_always_cut(fake: FakeS3) -> None:
    """There is an end to repeating."""
    store = fake.store(deadline_s=1)
    store.put("key", [LARGE], len(LARGE))
    fake.cuts = [0] * 1000
    with pytest.raises(Unreachable):
        store.read("key")


# --- which error

_ACTS: dict[str, Callable[[ObjectStore], object]] = {
    "create": lambda store: store.create("key", SMALL),
    "put": lambda store: store.put("key", [SMALL], len(SMALL)),
    "read": lambda store: store.read("key"),
    "size": lambda store: store.size("key"),
    "list": lambda store: [*store.list("")],
    "delete": lambda store: store.delete("key"),
}


@pytest.mark.parametrize(
    ("status", "code", "acts", "expected"),
    [
        (412, "PreconditionFailed", "create", AlreadyExists),
        (409, "ConditionalRequestConflict", "create", Unreachable),
        (501, "NotImplemented", "create", UnsafeStore),
        (404, "NoSuchKey", "read", Missing),
        (404, "NoSuchBucket", "create put read list delete", StoreError),
        (403, "AccessDenied", "create put delete", ReadOnly),
        (403, "AccessDenied", "read size list", StoreError),
        (403, "SignatureDoesNotMatch", "create put read list delete", StoreError),
        (403, "InvalidAccessKeyId", "create put read list delete", StoreError),
        (403, "QuotaExceeded", "create put", NoSpace),
        (400, "AuthorizationHeaderMalformed", "create put read size list delete", StoreError),
        (503, "SlowDown", "create put read list", Unreachable),
        (507, "XMinioStorageFull", "create put", NoSpace),
    ],
)
def test_errors_by_status(
    fake: FakeS3, status: int, code: str, acts: str, expected: type[StoreError]
) -> None:
    """Each answer has its type, says what the store said, and never the secret."""
    store = fake.store(deadline_s=0.2)
    fake.answer = lambda _: (status, error(code, f"your key is {KEYS['AWS_SECRET_ACCESS_KEY']}"))
    for name in acts.split():
        with pytest.raises(StoreError) as caught:
            _ACTS[name](store)
        assert type(caught.value) is expected, name
        assert "hunter2" not in str(caught.value)
        assert "s3://bucket" in str(caught.value)
        assert caught.value.__cause__ is not None
        if expected not in (AlreadyExists, Missing) and name != "size":
            assert code in str(caught.value)


def test_probe_of_a_store_that_does_not_know_the_condition(fake: FakeS3) -> None:
    """501 means no, and is found at once."""
    fake.answer = lambda r: (501, error("NotImplemented")) if r.method == "PUT" else None
    assert honours_create(fake.store()) is False


def test_dead_port() -> None:
    """Nobody there is `Unreachable` soon after the deadline, with the reason in it."""
    location = parse(f"s3://bucket?endpoint=http://127.0.0.1:{free_ports(1)[0]}")
    store = ObjectStore(location, deadline_s=0.3, environment=KEYS)
    for name, act in _ACTS.items():
        began = time.monotonic()
        with pytest.raises(Unreachable, match="Connection refused"):
            act(store)
        assert time.monotonic() - began < 5, name


def test_server_that_never_answers() -> None:
    """Silence is `Unreachable` soon after the deadline."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        location = parse(f"s3://bucket?endpoint=http://127.0.0.1:{listening.getsockname()[1]}")
        store = ObjectStore(location, deadline_s=0.3, environment=KEYS)
        for name, act in _ACTS.items():
            began = time.monotonic()
            with pytest.raises(Unreachable, match="TimedOut"):
                act(store)
            assert time.monotonic() - began < 5, name


def test_no_credentials_anywhere(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variables to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    location = parse(f"s3://bucket?endpoint=http://127.0.0.1:{fake.port}")
    with pytest.raises(StoreError, match="set AWS_ACCESS_KEY_ID"):
        ObjectStore(location, deadline_s=0.3, environment={}).read("key")


@pytest.mark.servers
def test_wrong_secret_at_a_real_server(seaweedfs: S3Server) -> None:
    """Every verb says that the credentials are refused; none of them shows them."""
    wrong = {**seaweedfs.environment, "AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}
    store = ObjectStore(parse(seaweedfs.url("a")), deadline_s=5, environment=wrong)
    for act in _ACTS.values():
        with pytest.raises(StoreError, match="credentials") as caught:
            act(store)
        assert "hunter2" not in str(caught.value)


@pytest.mark.servers
def test_missing_bucket_at_a_real_server(seaweedfs: S3Server) -> None:
    """A bucket that is not there is no missing key: every verb says so."""
    location = parse(f"s3://no-such-bucket/a?endpoint={seaweedfs.endpoint}")
    store = ObjectStore(location, deadline_s=5, environment=seaweedfs.environment)
    for act in _ACTS.values():
        with pytest.raises(StoreError, match="no such bucket") as caught:
            act(store)
        assert type(caught.value) is StoreError


@pytest.mark.servers
def test_probe_of_a_server_that_ignores_the_condition(rclone: S3Server) -> None:
    """Accepting every create without a word is found out."""
    assert honours_create(rclone.store("probed")) is False


@pytest.mark.servers
def test_prefixes_do_not_meet(seaweedfs: S3Server) -> None:
    """Two stores in one bucket share nothing, even where one prefix begins like the other."""
    first, second = seaweedfs.store("prefix/größe 1"), seaweedfs.store("prefix/größe 10")
    first.create("a", b"1")
    second.create("a", b"10")
    assert [entry.key for entry in first.list("")] == ["a"]
    assert first.read("a") == b"1"
    whole = seaweedfs.store("prefix")
    assert sorted(e.key for e in whole.list("")) == ["größe 1/a", "größe 10/a"]


# --- without obstore


def test_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"pip install 'onward\[objects\]'"):
        ObjectStore(parse("s3://bucket"), environment=KEYS)


def test_import_without_use() -> None:
    """Importing the stores imports no object-store client."""
    code = "import onward.stores, sys; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.servers
def test_ranges_from_a_server_that_ignores_ranges(rclone: S3Server) -> None:
    """Such a server sends the whole object; the range is cut out of it."""
    store = rclone.store("whole")
    data = bytes(range(256)) * 4096
    store.put("object", [data], len(data))
    for start, size in [(0, 10), (300_000, 1000), (len(data) - 5, 100), (5, None), (1 << 30, 4)]:
        end = None if size is None else start + size
        assert store.read("object", start, size) == data[start:end]
