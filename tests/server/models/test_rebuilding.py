"""The index is made again from outputs, and is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from onward.engines.machine import ThisMachine
from onward.errors import UsageError
from onward.repository import open_or_create
from onward.server import models
from onward.server.alone import alone_in
from onward.server.app import Parts
from onward.server.database import open_database
from onward.server.database.tables import Base
from onward.server.models.rebuilding import rebuild, rebuild_index
from onward.server.settings import Settings
from tests.cli.conftest import AsJson, as_json, onward  # noqa: F401
from tests.cli.outputs import Output
from tests.cli.scored import Scored
from tests.server.lab import AddModel
from tests.servers import S3Server


def documents(parts: Parts) -> list[dict[str, Any]]:
    with parts.database.read() as session:
        listed, _ = models.list_models(session, limit=100)
    found = []
    for each in listed:
        model = models.model_document(parts.settings, parts.database, each["id"])
        page = models.checkpoints_page(
            parts.settings, parts.database, each["id"], limit=500, dropped=True
        )
        found.append({**model, "synced_at": None, "checkpoints_page": page})
    return found


def test_a_database_that_is_lost_is_made_again(
    parts: Parts, lab: Path, digits: Scored, add: AddModel
) -> None:
    """Models, checkpoints and lineage are equal, dropped ones and names among them."""
    digits.repository.set_alias("champion", list(digits.repository.history.commits)[1])
    other = Output(lab / "team" / "deep" / "letters")
    commits = other.chain(4)
    other.repository.pin(commits[1].checkpoint)
    other.repository.drop([commits[0].checkpoint])
    for name in ("digits", "team/deep/letters"):
        add(name)
    before = documents(parts)
    assert [each["name"] for each in before] == ["digits", "letters"]
    assert all(each["lineage"]["nodes"] for each in before)
    with parts.database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    assert documents(parts) == []
    for _ in range(2):  # again changes nothing
        done = rebuild(parts.settings, parts.database, storages={"lab": str(lab)})
        assert done.models == ["lab:digits", "lab:team/deep/letters"]
        assert (done.checkpoints, done.problems) == (6, {})
        assert documents(parts) == before


def test_what_cannot_be_read_keeps_nothing_else_from_coming_back(parts: Parts, lab: Path) -> None:
    """A damaged output is a problem with a name; links and what is in outputs are no outputs."""
    Output(lab / "fine").chain(2)
    Output(lab / "damaged").chain(2)
    record = sorted((lab / "damaged" / "onward" / "log").iterdir())[1]
    record.write_bytes(b"{}")
    (lab / "link").symlink_to(lab / "fine")
    (lab / "fine" / "onward" / "onward" / "log").mkdir(parents=True)
    (lab / "fine" / "onward" / "onward" / "log" / ("0" * 20 + ".json")).write_text("{}")
    done = rebuild(parts.settings, parts.database)
    assert done.models == ["lab:fine"]
    assert list(done.problems) == ["lab:damaged"]


def test_outputs_in_buckets_come_back(parts: Parts, seaweedfs: S3Server, tmp_path: Path) -> None:
    """With keys from secrets whose files are there, though no row knows them."""
    prefix = f"rebuild-{tmp_path.name}"
    for name in ("a", "b/c"):
        open_or_create(seaweedfs.store(f"{prefix}/{name}"))
    seaweedfs.store(prefix).put("d/onward/other.txt", [b"1"], 1)
    parts.settings.secrets.mkdir(parents=True)
    secrets = {}
    for variable, value in seaweedfs.environment.items():
        secrets[variable] = variable.lower().replace("_", "-")
        (parts.settings.secrets / secrets[variable]).write_text(value)
    done = rebuild(
        parts.settings, parts.database, storages={"bucket": seaweedfs.url(prefix)},
        secrets={"bucket": secrets},
    )  # fmt: skip
    assert (done.models, done.problems) == (["bucket:a", "bucket:b/c"], {})


def test_the_command_rebuilds_into_an_empty_folder(
    tmp_path: Path,
    as_json: AsJson,  # noqa: F811
) -> None:
    """A new folder, no database: its tables are made. A server that runs keeps it out."""
    Output(tmp_path / "lab" / "out").chain(3)
    folder = tmp_path / "server"
    said = as_json("server", "rebuild", "--folder", folder, "--storage", f"lab={tmp_path / 'lab'}")
    assert (said["models"], said["checkpoints"]) == (["lab:out"], 3)
    settings = Settings(folder=folder)
    database = open_database(settings.database_url)
    parts = Parts(settings, database, ThisMachine())
    assert [each["location"] for each in documents(parts)] == ["lab:out"]
    database.close()
    with alone_in(folder), pytest.raises(UsageError, match="another server"):
        rebuild_index(settings, storages={}, secrets={}, say=lambda _: None)
    for wrong in ("lab", "=x", "lab="):
        as_json("server", "rebuild", "--folder", folder, "--storage", wrong, code=2)
