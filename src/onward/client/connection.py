"""Requests to a server. What changes something is sent with a key of its own, so that it can be
sent again when no answer came, and has one effect."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any
from uuid import uuid4

import httpx2

from onward.client.errors import ServerUnreachable, refusal
from onward.client.login import Login
from onward.errors import UsageError

_TRIES = 5
_FIRST_PAUSE_S = 0.2
_AGAIN = frozenset({429, 502, 503, 504})
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_SILENCE_S = 30.0
"""Streams say something every ten seconds; one that says nothing for so long is gone."""

Query = Mapping[str, Any]
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobEvents:
    """An event of a stream: what it is called, and its document."""

    event: str
    data: Document


class Client:
    """A server's API. Raises `ServerUnreachable` and `ServerRefused`; to be used in a `with`."""

    def __init__(
        self, login: Login, *, transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.server = login.server
        self._pause = pause
        self._http = httpx2.Client(
            base_url=login.server, timeout=_TIMEOUT, transport=transport,
            headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json"},
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._http.close()

    # Jobs.

    def submit(self, spec: Document) -> Document:
        """The new job."""
        return self._post("/api/v1/jobs", spec)

    def job(self, job_id: str) -> Document:
        return self._get(f"/api/v1/jobs/{_segment(job_id)}")

    def jobs(self, *, most: int, **filters: Any) -> list[Document]:
        """The newest that fit the filters, at most so many."""
        return list(_first(most, self._pages("/api/v1/jobs", filters, min(most, 500))))

    def attempts(self, job_id: str, *, most: int = 100) -> list[Document]:
        """The newest first."""
        path = f"/api/v1/jobs/{_segment(job_id)}/attempts"
        return list(_first(most, self._pages(path, {}, min(most, 500))))

    def act(self, job_id: str, action: str, changes: Document | None = None) -> Document:
        """Pause, resume, stop, cancel, retry, continue; the job as it is now, or the new one."""
        return self._post(f"/api/v1/jobs/{_segment(job_id)}/{action}", changes)

    def act_on_many(self, jobs: Sequence[str], action: str) -> list[Document]:
        """The same of several; a result for each."""
        found: list[Document] = self._post(
            "/api/v1/jobs/bulk", {"action": action, "jobs": list(jobs)}
        )["results"]
        return found

    def wait(self, job_id: str, *, timeout_s: float) -> Document:
        """The job when it has ended or is paused, or as it is after at most so many seconds."""
        wait_s = max(0.0, min(timeout_s, 20.0))
        return self._get(f"/api/v1/jobs/{_segment(job_id)}/wait", {"timeout_s": wait_s})

    def log(self, job_id: str, **query: Any) -> Document:
        """Lines by range: `offset` and `limit`, or `tail`."""
        return self._get(f"/api/v1/jobs/{_segment(job_id)}/log", query)

    def follow_log(self, job_id: str, **query: Any) -> Iterator[JobEvents]:
        """The log as it is printed, until its job has ended. A connection that breaks is made
        again, and nothing is missed or told twice."""
        return self._stream(f"/api/v1/jobs/{_segment(job_id)}/log/follow", query)

    def upload_code(self, archive: IO[bytes], *, name: str) -> Document:
        """Stores an archive (tar.gz); its `digest` is what a job names."""

        def content() -> Iterator[bytes]:
            archive.seek(0)
            while block := archive.read(256 << 10):
                yield block

        found: Document = self._send(
            "POST", "/api/v1/code", params={"name": name}, make_content=content,
            headers={"Content-Type": "application/octet-stream", "Idempotency-Key": _key()},
        )  # fmt: skip
        return found

    def cut_log(self, job_id: str, *, keep_bytes: int, attempt: int | None = None) -> Document:
        """Frees all but the newest bytes of a log; `begin` is where what is left begins."""
        body = {"keep_bytes": keep_bytes} | ({"attempt": attempt} if attempt else {})
        return self._post(f"/api/v1/jobs/{_segment(job_id)}/log/cut", body)

    # What is kept under a name or an id: schedules, secrets, storages, tokens, webhooks.

    def all_of(self, kind: str) -> list[Document]:
        """Every one that there is."""
        return list(self._pages(f"/api/v1/{kind}", {}, 500))

    def add(self, kind: str, document: Document) -> Document:
        """The new one."""
        return self._post(f"/api/v1/{kind}", document)

    def put(self, kind: str, name: str, document: Document) -> Document:
        """Puts this in the place of what it was as a whole."""
        return self._change("PUT", f"/api/v1/{kind}/{_name(name)}", document)

    def remove(self, kind: str, name: str) -> Document:
        """What it was."""
        return self._change("DELETE", f"/api/v1/{kind}/{_name(name)}")

    def ask(self, kind: str, name: str, action: str) -> Document:
        """Asks something of it; what came of that."""
        return self._post(f"/api/v1/{kind}/{_name(name)}/{action}")

    def deliveries(self, webhook: str, *, most: int) -> list[Document]:
        """Messages to a webhook, the latest first."""
        path = f"/api/v1/webhooks/{_name(webhook)}/deliveries"
        return list(_first(most, self._pages(path, {}, min(most, 500))))

    # Below: how.

    def _get(self, path: str, query: Query | None = None) -> Document:
        found: Document = self._send("GET", path, params=_given(query or {}))
        return found

    def _post(self, path: str, body: Document | None = None) -> Document:
        return self._change("POST", path, body)

    def _change(self, method: str, path: str, body: Document | None = None) -> Document:
        found: Document = self._send(
            method, path, json_body=body, headers={"Idempotency-Key": _key()}
        )
        return found

    def _pages(self, path: str, filters: Query, limit: int) -> Iterator[Document]:
        cursor = ""
        while True:
            page = self._get(path, {**filters, "limit": limit, "cursor": cursor or None})
            yield from page["items"]
            cursor = page["next"] or ""
            if not cursor:
                return

    def _send(
        self, method: str, path: str, *, params: Query | None = None,
        json_body: Document | None = None, headers: Mapping[str, str] | None = None,
        make_content: Callable[[], Iterator[bytes]] | None = None,
    ) -> Any:  # fmt: skip
        """Sends it until there is an answer. Everything sent here is safe to send again."""
        pause_s = _FIRST_PAUSE_S
        for left in reversed(range(_TRIES)):
            try:
                answer = self._http.request(
                    method, path, params=params, headers=headers, json=json_body,
                    content=make_content() if make_content is not None else None,
                )  # fmt: skip
            except httpx2.TransportError as error:
                if not left:
                    raise self._unreachable(error) from error
            except httpx2.HTTPError as error:
                raise self._unreachable(error) from error
            else:
                if answer.status_code < 400:
                    return self._document(answer)
                refused = refusal(answer.status_code, _json(answer))
                # Busy: the same request, sent before, is still under way.
                if not left or not (answer.status_code in _AGAIN or refused.kind == "Busy"):
                    raise refused
                pause_s = max(pause_s, _asked_pause(answer))
            self._pause(pause_s)
            pause_s *= 2
        raise AssertionError("unreachable")

    def _stream(self, path: str, query: Query) -> Iterator[JobEvents]:
        last, silent = "", 0

        def heard(lines: Iterable[str]) -> Iterator[str]:
            nonlocal silent
            for line in lines:
                if line.startswith(":"):
                    silent = 0  # it has nothing to tell, and is there
                yield line

        timeout = httpx2.Timeout(_SILENCE_S, connect=10.0)
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            try:
                with self._http.stream(
                    "GET", path, params=_given(query), headers=headers, timeout=timeout
                ) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        if answer.status_code not in _AGAIN:
                            raise refusal(answer.status_code, _json(answer))
                    else:
                        for id_, event, data in _events(heard(_lines(answer.iter_text()))):
                            last, silent = id_ or last, 0
                            if event == "problem":
                                raise refusal(int(data.get("status", 500)), data)
                            yield JobEvents(event, data)
                            if event == "end":
                                return
                broken: Exception | None = None
            except httpx2.HTTPError as error:
                broken = error
            # The server was stopped or the connection broke: go on where it was.
            silent += 1
            if silent > _TRIES:
                raise self._unreachable(broken) from broken
            self._pause(_FIRST_PAUSE_S * 2**silent)

    def _document(self, answer: httpx2.Response) -> Any:
        found = _json(answer)
        if found is None:
            raise refusal(answer.status_code, None)
        return found

    def _unreachable(self, error: Exception | None) -> ServerUnreachable:
        return ServerUnreachable(
            f"{self.server} does not answer",
            why=str(error) if error is not None else "it ends every connection",
            do="check the address and that `onward serve` runs; the same command may be repeated",
        )


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Split where events are, at line ends: text may hold other marks that Python splits at."""
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        yield from whole


def _events(lines: Iterable[str]) -> Iterator[tuple[str, str, Document]]:
    id_ = event = data = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            id_ = value
        elif name == "event":
            event = value
        elif name == "data":
            data = value
        elif not line and event:
            yield id_, event, json.loads(data)
            id_ = event = data = ""


def _first(most: int, items: Iterator[Document]) -> Iterator[Document]:
    for _, item in zip(range(most), items, strict=False):
        yield item


def _given(query: Query) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value not in (None, "", [], ())}


def _segment(job_id: str) -> str:
    """An id as a part of a path; what is none stays one part, and the server knows no such job."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in job_id) or "_"


def _name(text: str) -> str:
    """A name as a part of a path. Raises `UsageError`: what is none must not become another's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise UsageError(f"{text!r} is no name", do="use the name or the id that the list shows")
    return text


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _asked_pause(answer: httpx2.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0


def _key() -> str:
    return str(uuid4())
