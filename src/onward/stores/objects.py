"""Buckets as stores, through obstore: S3 and what speaks its protocol, Google Cloud, Azure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from onward.errors import Missing, StoreError, UsageError
from onward.stores.base import Chunk, Entry, checked_key
from onward.stores.connections import Connection, Keys, connection
from onward.stores.fingerprint import Fingerprint, in_parts
from onward.stores.handoff import Handoff
from onward.stores.keys import checked_prefix, counted, is_key
from onward.stores.object_errors import Verb, status_of, translated
from onward.stores.urls import Location

PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 8
_HASHERS = 2
_MOST_PARTS = 10_000  # of one upload, in Amazon's S3
_CLIENTS = {"s3": "S3Store", "obs": "S3Store", "gs": "GCSStore", "az": "AzureStore"}


def part_bytes_for(size_bytes: int) -> int:
    """How large the parts of an upload are; more only where there would be too many of them."""
    return max(PART_BYTES, -(-size_bytes // _MOST_PARTS))


class ObjectStore:
    """Objects below a prefix in a bucket.

    An upload is believed only when the store reports its length, and an ETag that can only come of
    the same bytes; where ETags are made otherwise, it is read back and compared. What fails on the
    way is repeated for `deadline_s`, except `create`: its callers must look for themselves.
    """

    def __init__(
        self,
        location: Location,
        *,
        deadline_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.location = location
        reached = connection(
            location, os.environ if environment is None else environment, deadline_s=deadline_s
        )
        self._obstore = _imported_obstore()
        keys = reached.keys
        self._secrets = [keys.access_key, keys.secret_key, keys.token or ""] if keys else []
        self._client = self._connected(reached, reached.retries)
        self._creating = self._connected(reached, {**reached.retries, "max_retries": 0})
        self._bucket_seen = False

    @property
    def url(self) -> str:
        return self.location.display

    def create(self, key: str, data: bytes) -> None:
        fingerprint = Fingerprint()
        fingerprint.add(data)
        with self._translated("create", key):
            result = self._obstore.put(self._creating, checked_key(key), data, mode="create")
        if not fingerprint.is_etag(result["e_tag"]):
            self._verify(key, fingerprint)

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        checked_key(key)
        fingerprint = Fingerprint()
        part_bytes = part_bytes_for(size_bytes)
        views = counted(chunks, size_bytes, key)
        if size_bytes <= part_bytes:
            whole = b"".join(in_parts(views, max(1, size_bytes)))
            fingerprint.add(whole)
            with self._translated("put", key):
                self._obstore.put(self._client, key, whole, use_multipart=False)
        else:
            self._upload(key, in_parts(views, part_bytes), part_bytes, fingerprint)
        self._verify(key, fingerprint)

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        return bytes(self.read_view(key, start, size_bytes))

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        found = self.read_view(key, start, target.nbytes)
        target[: found.nbytes] = found
        return found.nbytes

    def read_view(self, key: str, start: int = 0, size_bytes: int | None = None) -> memoryview:
        """As `read`, without a copy: for what is only passed on."""
        if size_bytes == 0:  # not a range that can be asked for
            self.size(key)
            return memoryview(b"")
        options: dict[str, Any] = {}
        if size_bytes is not None:
            options = {"range": (start, start + size_bytes)}
        elif start:
            options = {"range": {"offset": start}}
        with self._translated("read", key):
            try:
                result = self._obstore.get(self._client, checked_key(key), options=options)
                return memoryview(result.bytes())
            except self._obstore.exceptions.GenericError as error:
                if status_of(error) == 416:  # it is there, and ends before `start`
                    return memoryview(b"")
                if "non-partial response" in str(error):
                    return memoryview(self._read_through(key, start, size_bytes))
                raise

    def _read_through(self, key: str, start: int, size_bytes: int | None) -> bytes:
        """A range from a server that ignores ranges: reads all, keeps what was asked for."""
        end = None if size_bytes is None else start + size_bytes
        kept, position = bytearray(), 0
        for chunk in self._obstore.get(self._client, key).stream():
            kept += memoryview(chunk)[max(0, start - position) :]
            position += len(chunk)
            if end is not None and position >= end:
                break
        return bytes(kept if size_bytes is None else kept[:size_bytes])

    def size(self, key: str) -> int:
        return int(self._head(key)["size"])

    def list(self, prefix: str) -> Iterator[Entry]:
        # The client knows only whole folders as prefixes.
        folder = checked_prefix(prefix).rpartition("/")[0]
        with self._translated("list", prefix):
            for batch in self._obstore.list(self._client, folder or None):
                for found in batch:
                    key = found["path"]
                    if key.startswith(prefix) and is_key(key):
                        version = found["e_tag"] or found["last_modified"].isoformat()
                        yield Entry(key, found["size"], version)

    def look_into(self, folder: str) -> tuple[Sequence[str], Sequence[Entry]]:
        """The names of folders and the objects right in `folder`, a key or empty: for people.

        Names that could be no key are left out, and so are markers of empty folders.
        """
        prefix = f"{checked_key(folder)}/" if folder else ""
        with self._translated("list", prefix):
            found = self._obstore.list_with_delimiter(self._client, prefix or None)
        folders = [path.rstrip("/") for path in found["common_prefixes"]]
        return (
            [path[len(prefix) :] for path in folders if path.startswith(prefix) and is_key(path)],
            [
                Entry(each["path"][len(prefix) :], each["size"], str(each["e_tag"] or ""))
                for each in found["objects"]
                if each["path"].startswith(prefix) and is_key(each["path"])
            ],
        )

    def delete(self, key: str) -> None:
        try:
            with self._translated("delete", key):
                self._obstore.delete(self._client, checked_key(key))
        except Missing:
            return  # what Google and Azure say where others say nothing

    def _upload(
        self, key: str, parts: Iterable[Chunk], part_bytes: int, fingerprint: Fingerprint
    ) -> None:
        """Upload parts as they come, and nothing if their source fails.

        Reading the source, hashing and several parts on the network overlap; a part that fails is
        repeated by itself. The client has a thread of its own, because it cannot be called from
        within an iteration that it makes itself, and the source of the parts may well be reading
        from another bucket.
        """
        handoff = Handoff()
        with ThreadPoolExecutor(1 + _HASHERS) as threads:
            upload = threads.submit(
                self._obstore.put,
                self._client,
                key,
                iter(handoff),
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=_PARTS_AT_ONCE,
            )
            upload.add_done_callback(lambda _: handoff.stop())
            try:
                for part in fingerprint.noting(parts, threads):
                    if not handoff.give(part):
                        break
            except BaseException:
                handoff.give_up()
                raise
            handoff.finish()
            with self._translated("put", key):
                upload.result()

    def _verify(self, key: str, fingerprint: Fingerprint) -> None:
        try:
            found = self._head(key)
            if found["size"] != fingerprint.size_bytes:
                why = f"it holds {found['size']:,} bytes of {fingerprint.size_bytes:,}"
            elif fingerprint.is_etag(found["e_tag"]) or self._holds(key, fingerprint):
                return
            else:
                why = "what it gives back is not what was sent"
        except Missing:
            why = "it took the upload and does not have it"
        raise StoreError(
            f"{self.url} does not hold {key!r} as it was sent",
            why=why,
            do="store it again; if that happens again, do not trust this store",
        )

    def _holds(self, key: str, fingerprint: Fingerprint) -> bool:
        with self._translated("read", key):
            stream = self._obstore.get(self._client, key).stream(min_chunk_size=PART_BYTES)
            return fingerprint.is_content(stream)

    def _head(self, key: str) -> Any:
        try:
            with self._translated("size", key):
                found = self._obstore.head(self._client, checked_key(key))
        except Missing:
            # The reply has no body that would tell a missing key from a missing bucket.
            self._see_bucket()
            raise
        self._bucket_seen = True
        return found

    def _see_bucket(self) -> None:
        if not self._bucket_seen:
            with self._translated("list", ""):
                next(iter(self._obstore.list(self._client, chunk_size=1)), None)
            self._bucket_seen = True

    @contextmanager
    def _translated(self, verb: Verb, key: str) -> Iterator[None]:
        try:
            yield
        except (self._obstore.exceptions.BaseError, FileNotFoundError) as error:
            place = f"{self.url}/{key}".rstrip("/")
            bucket = self.location.bucket
            raise translated(error, verb, place, bucket=bucket, secrets=self._secrets) from error

    def _connected(self, reached: Connection, retries: dict[str, Any]) -> Any:
        client = getattr(self._obstore.store, _CLIENTS[self.location.scheme])
        arguments: dict[str, Any] = {"credential_provider": _provider(reached.keys)}
        try:
            return client(
                self.location.bucket,
                prefix=self.location.prefix or None,
                client_options=reached.client_options,
                retry_config=retries,
                **{name: value for name, value in arguments.items() if value is not None},
                **reached.config,
            )
        except (self._obstore.exceptions.BaseError, ValueError) as error:
            why = translated(error, "list", self.url, secrets=self._secrets).why
            raise UsageError(f"{self.url} cannot be reached", why=why) from error


def _provider(keys: Keys | None) -> Callable[[], dict[str, Any]] | None:
    if keys is None:
        return None
    # Given this way, and not as settings, so that the client adds nothing from its environment.
    credentials = {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": None,
    }
    return lambda: credentials


def _imported_obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise UsageError(
            "object stores cannot be used here",
            why="the package obstore is not installed",
            do="pip install 'onward[objects]'",
        ) from error
    return obstore
