"""A job from a folder of code to the message about its end, through a server that is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess
from tests.server.webhooks.receiver import Receiver

SCRIPT = """
import os, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("images:", open(arguments["--images"] + "/a.txt").read())
print("words:", open(os.environ["WORDS"] + "/w.txt").read())
open(arguments["--result"] + "/model.pth.txt", "w").write("done")
open("beside.txt", "w").write("a script may write where it is")
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "served")
    process.start()
    yield process
    process.stop()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What it gives once it gives something."""
    end_s = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.05)


def test_a_message_outlives_the_server_that_was_sending_it(
    served: ServerProcess, receiver: Receiver, tmp_path: Path
) -> None:
    """Code of a folder, inputs by their own names, moves told: and SIGKILL while one is told."""
    lab = tmp_path / "lab"
    for name, text in (("code/train.py", SCRIPT), ("images/a.txt", "1"), ("words/w.txt", "2")):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text(text)
    receiver.drip = True  # the receiver has the message, and does not say so
    with served.client() as client:

        def put(path: str, body: Any, method: str = "POST") -> Any:
            answer = client.request(method, path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json()

        put("/api/v1/storages", {"alias": "lab", "url": str(lab)})
        put("/api/v1/secrets/signing", {"value": "a secret that signs"}, method="PUT")
        hook = {"name": "team", "url": receiver.url, "secret": "signing", "allow_private": True}
        put("/api/v1/webhooks", hook)
        job = put(
            "/api/v1/jobs",
            {
                "name": "many inputs", "command": ["train.py"], "code": {"folder": "lab:code"},
                "inputs": {
                    "images": {"location": "lab:images"},
                    "words": {"location": "lab:words", "pass_as": "env"},
                },
                "output": {"location": "lab:out", "name": "result"}, "notify": ["team"],
            },
        )  # fmt: skip
        (lab / "code" / "train.py").write_text("raise SystemExit('not what was submitted')")
        wait_for(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "succeeded")
        log = client.get(f"/api/v1/jobs/{job['id']}/log").json()
        text = "\n".join(line["text"] for line in log["lines"])
        assert "images: 1" in text
        assert "words: 2" in text
    wait_for(lambda: receiver.received)
    served.kill()
    receiver.drip = False
    before = list(receiver.received)
    served.start()

    def told() -> bool:
        since = receiver.received[len(before) :]
        types = {json.loads(each.body)["type"] for each in since}
        ids = {each.headers["webhook-id"] for each in since}
        return "job.succeeded" in types and {m.headers["webhook-id"] for m in before} <= ids

    wait_for(told)
    assert (lab / "out" / "model.pth.txt").read_text() == "done"
    assert not (lab / "code" / "beside.txt").exists()
