"""The console by keyboard alone in a real browser, while its live parts ask again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright
from sqlalchemy import select

from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Job, Storage
from onward.server.jobs import requests
from onward.server.jobs.moves import move_job
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from tests.server.console.sight import CHROMIUM, PATIENCE_MS, Sight, sight
from tests.servers import free_ports

expect.set_options(timeout=PATIENCE_MS)
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium")


class Served:
    """A console of this process whose jobs stay as the test moves them."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        # No slot and no tick: nothing starts by itself.
        self.settings = Settings(folder=folder / "server", port=port, slots=0, tick_s=1e6)
        self.database: Database = open_database(self.settings.database_url)
        migrate(self.database)
        self.lab = folder / "lab"
        for name in ("code", "data"):
            (self.lab / name).mkdir(parents=True)
        (self.lab / "code" / "train.py").touch()
        with self.database.write() as session:
            _, self.token = make_token(session, "ada", "admin", by="test")
            session.add(
                Storage(
                    alias="lab", url=str(self.lab), single_writer=False, environment={},
                    created_at=0.0, created_by="test",
                )
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        app = make_app(Parts(self.settings, self.database, ThisMachine()))
        self.server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run)

    def start(self) -> None:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.database.close()

    def submit(self, name: str) -> str:
        request = JobRequest.model_validate(
            {
                "name": name, "command": ["train.py"], "code": {"folder": "lab:code"},
                "output": {"location": f"lab:{name}"},
            }
        )  # fmt: skip
        with self.database.write() as session:
            return requests.submit(session, request, by="ada").id

    def move(self, job_id: str, state: str) -> None:
        with self.database.write() as session:
            move_job(session, requests.find_job(session, job_id), state, by="test")

    def states(self) -> dict[str, str]:
        with self.database.read() as session:
            return {job.name: job.state for job in session.scalars(select(Job))}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("served"))
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def seen(served: Served) -> Iterator[Sight]:
    """Signed in, by keyboard as well."""
    with sync_playwright() as playwright, sight(playwright) as found:
        with found.expecting("401"):
            found.page.goto(served.url)
            expect(found.page.locator("#token")).to_be_focused()
            found.page.keyboard.type(served.token)
            found.page.keyboard.press("Enter")
            expect(found.page.locator("main#main")).to_be_visible()
        yield found
        assert found.complaints == []


def test_several_jobs_are_chosen_and_cancelled_by_keyboard(served: Served, seen: Sight) -> None:
    """What is chosen stays chosen, and the focus stays, while the list is asked for again."""
    page, ids = seen.page, [served.submit(name) for name in ("one", "two", "three")]
    page.goto(f"{served.url}/jobs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for number in (0, 2):
        seen.tab_to(f"input[value={ids[number]}]")
        page.keyboard.press("Space") if number == 0 else seen.back_to(f"input[value={ids[1]}]")
    page.keyboard.press("Space")
    served.move(ids[2], "paused")
    expect(page.locator("tr", has_text="three").locator(".badge")).to_have_text("paused")
    chosen = page.locator("input[name=job]:checked")
    expect(chosen).to_have_count(2)
    expect(page.locator("[data-count]")).to_have_text("2")
    expect(page.locator(f"input[value={ids[1]}]")).to_be_focused()
    seen.tab_to("button[value=cancel]")
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_visible()
    assert seen.violations() == []
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.locator("button[value=cancel]")).to_be_focused()
    page.keyboard.press("Enter")
    seen.tab_to("#ask-yes")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("2 jobs were asked.")
    states = served.states()
    assert [states[n] for n in ("one", "two", "three")] == ["cancelled", "cancelled", "paused"]


def test_a_job_is_made_by_keyboard(served: Served, seen: Sight) -> None:
    """Places are browsed, choices made, the plan's parts opened; they stay open as it changes."""
    page, press = seen.page, seen.page.keyboard.press
    page.goto(f"{served.url}/jobs/new")
    seen.tab_to("#f-name")
    page.keyboard.type("by hand")
    seen.tab_to("[data-browse=f-code]")
    press("Enter")
    for place in ('[data-place="lab:"]', '[data-choose="lab:code"]'):
        expect(page.locator(f"#places .places {place}")).to_be_visible()
        assert page.evaluate("!!document.activeElement.closest('#browser')"), (
            "focus left the dialog"
        )
        assert seen.violations() == []
        seen.tab_to(f"#places .places {place}")
        press("Enter")
    expect(page.locator("#browser")).to_be_hidden()
    expect(page.locator("#f-code")).to_be_focused()
    expect(page.locator("#f-code")).to_have_value("lab:code")
    seen.tab_to("#f-output_location")
    page.keyboard.type("lab:out")
    seen.tab_to("[name=predownload]")
    press("ArrowRight")
    expect(page.locator("[name=predownload][value=no]")).to_be_checked()
    press("ArrowLeft")
    seen.tab_to("#f-budget")
    page.keyboard.type("2 epochs")
    seen.tab_to("[name=start]")
    press("ArrowRight")
    seen.tab_to("#f-cron")
    page.keyboard.type("@daily")
    expect(page.locator("#times li")).to_have_count(3)
    seen.back_to("[name=start]")
    press("ArrowLeft")
    expect(page.locator("#f-cron")).to_be_hidden()
    summary = page.locator("#plan summary", has_text="TOML")
    expect(summary).to_be_visible()
    seen.tab_to("#plan-toml > summary")
    press("Enter")
    expect(page.locator("#as-toml")).to_contain_text('budget = "2 epochs"')
    seen.back_to("#f-budget")
    press("End")
    page.keyboard.type("0")
    press("Control+a")
    page.keyboard.type("30 steps")
    expect(page.locator("#as-toml")).to_contain_text('budget = "30 steps"')
    expect(page.locator("#as-toml")).to_be_visible()
    assert seen.violations() == []
    seen.tab_to("form .stick > button.primary")
    press("Enter")
    page.wait_for_url("**/jobs/job-*")
    assert served.states()["by hand"] == "queued"
