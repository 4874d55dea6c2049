"""The document of a model with 5,000 checkpoints: first seen, opened anew, and again."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from starlette.testclient import TestClient

from benchmarks.history import Undurable
from onward.engines.machine import ThisMachine
from onward.repository import Facts, open_or_create
from onward.server.app import Parts, make_app
from onward.server.database import open_database
from onward.server.database.migrating import migrate
from onward.server.models import add_model
from onward.server.models import outputs as kept
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from onward.server.storages import register

_CHECKPOINTS, _INCREMENTS, _TIMES = 5_000, 50, 5


async def measure(seconds: float, database: str) -> list[tuple[str, str, str]]:
    """By the whole application, without a socket."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lab" / "model"
        output.mkdir(parents=True)
        _fill(output)
        settings = Settings(folder=Path(folder) / "server", database=database)
        opened = open_database(settings.database_url)
        migrate(opened)
        with opened.write() as session:
            register(session, settings, "lab", str(output.parent), by="benchmark")
            model = add_model(session, "lab:model").id
            token = make_token(session, "benchmark", "read", by="benchmark")[1]
        app = make_app(Parts(settings, opened, ThisMachine()))
        headers = {"authorization": f"Bearer {token}"}
        with TestClient(app, base_url="http://127.0.0.1:8420", headers=headers) as client:
            first = _ask(client, model)
            anew = []
            for _ in range(_TIMES):
                kept._shelves.clear()  # as after a start of the server
                anew.append(_ask(client, model))
            again = [_ask(client, model) for _ in range(_TIMES)]
            page = [_ask(client, model, "/checkpoints?limit=500") for _ in range(_TIMES)]
        opened.close()
    return [
        ("model of 5,000 checkpoints, indexed for the first time", "", _s([first])),
        ("the same after a start of the server", "≤ 1 s", _s(anew)),
        ("the same again", "≤ 1 s", _s(again)),
        ("a page of 500 of its checkpoints", "≤ 1 s", _s(page)),
    ]


def _ask(client: TestClient, model: str, more: str = "") -> float:
    began = time.perf_counter()
    answer = client.get(f"/api/v1/models/{model}{more}")
    took = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    assert more or answer.json()["checkpoints"] == _CHECKPOINTS
    return took


def _fill(folder: Path) -> None:
    writer = open_or_create(Undurable(folder)).claim("benchmark")
    parent = None
    each = _CHECKPOINTS // _INCREMENTS
    for step in range(_CHECKPOINTS):
        facts = Facts(
            step=step, epoch=step // 100, increment=1 + step // each, parent=parent,
            finished=step % each == each - 1, reason="every 1 steps", verb="resume",
            framework="torch", framework_version="0",
            metrics={"loss": 1 / (step + 1), "accuracy": 0.5},
            about={"data": {"train": {"items": 1000, "new": 10, "known": 990}}},
        )  # fmt: skip
        parent = writer.commit({"step": step}, facts).checkpoint


def _s(values: list[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f} s (slowest {max(values):.2f} s)"
