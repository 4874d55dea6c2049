"""A newcomer's path in a real browser, from an empty server to a model that was rolled back.

The server is killed in the middle. Nothing that the browser complains about is let pass, but for
the requests that no server answers. On the way every page is looked at in both themes, two widths
and two languages (in CI in two of the four combinations); with ONWARD_SCREENSHOTS=1 the pictures
are kept in docs/console/.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from examples.data import fashion_mnist
from playwright.sync_api import expect, sync_playwright

from onward.server.scheduling.cron import next_ticks, zone_of
from tests.server.console.sight import CHROMIUM, PATIENCE_MS, WIDTHS, Sight, sight, texts
from tests.server.process import ServerProcess

HERE = Path(__file__).parent
KEPT = HERE.parents[2] / "docs" / "console"
KEEPS = os.environ.get("ONWARD_SCREENSHOTS") == "1"
LOOKS = (("en", "light"), ("zh", "dark"), ("en", "dark"), ("zh", "light"))
FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
LOOKED = LOOKS if KEEPS or FULL else LOOKS[:2]
AUDITED = {("en", "wide")}
"""By axe-core, where not all are: it takes its time, and colours are looked at by `is_faint`."""
TRAINED, HELD = 2400, 400
"""Images of each increment."""

expect.set_options(timeout=PATIENCE_MS)
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium")


@pytest.fixture
def lab() -> Iterator[Path]:
    """What a newcomer has: a script, and the first part of the data."""
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        folder = Path(name)
        (folder / "code" / "trainer").mkdir(parents=True)
        (folder / "models").mkdir()
        shutil.copy(HERE / "trainer.py", folder / "code" / "trainer" / "train.py")
        add_data(folder, 0)
        yield folder


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "served")
    process.start()
    yield process
    process.stop()


def add_data(lab: Path, part: int) -> None:
    """One more part of Fashion-MNIST to learn, and one to be examined on."""
    arrays, data = fashion_mnist.load(), lab / "data" / "fashion"
    data.mkdir(parents=True, exist_ok=True)
    for name, kind, count in (("part", "train", TRAINED), ("test", "test", HELD)):
        chosen = slice(part * count, (part + 1) * count)
        fashion_mnist.write_npz(
            data / f"{name}-{part:03d}.npz",
            images=arrays[f"{kind}-images"][chosen],
            labels=arrays[f"{kind}-labels"][chosen],
        )


class Album:
    """Looks at a page as everybody would see it, and takes its picture."""

    def __init__(self, seen: Sight, folder: Path, lab: Path) -> None:
        self.seen, self.folder, self.lab, self.problems = seen, folder, lab, list[str]()

    def look(self, name: str, address: str = "", *, ready: str = "") -> None:
        """At the page `address`, or at the one that is open, as it is after a reload."""
        page = self.seen.page
        address = address or page.url
        for language, theme in LOOKED:
            self.seen.look(language, theme)
            page.goto(address)
            if ready:
                page.locator(ready).first.wait_for()
            for width in WIDTHS:
                self.seen.resize(width)
                self.note(name, language, theme, width)
        self.seen.look("en", "light")
        self.seen.resize("wide")
        page.goto(address)

    def note(
        self, name: str, language: str = "en", theme: str = "light", width: str = "wide"
    ) -> None:
        """At the page as it is."""
        where = f"{name}-{language}-{theme}-{width}"
        self.seen.picture(self.folder / f"{where}.png", folder=self.lab)
        self.problems += [f"{where} is too wide: {each}" for each in self.seen.sticks_out()]
        self.problems += [f"{where} is faint: {each}" for each in self.seen.is_faint()]
        if FULL or (language, width) in AUDITED:
            self.problems += [f"{where}: {each}" for each in self.seen.violations()]


@pytest.mark.timeout(900)  # every look of every page, on a machine that has much else to do
def test_a_newcomer_trains_continues_promotes_and_rolls_back(
    lab: Path, served: ServerProcess, tmp_path: Path
) -> None:
    """The main job of the console, with a power cut in the middle."""
    with sync_playwright() as playwright, sight(playwright) as seen:
        album = Album(seen, KEPT if KEEPS else tmp_path / "pictures", lab)
        sign_in(seen, served, album)
        register(seen, lab, album)
        first = create(seen, tmp_path / "go", album)
        watch(seen, served, tmp_path / "go", album)
        before = promote(seen, served, 1)
        add_data(lab, 1)
        go_on(seen, first)
        model = judge(seen, served, before)
        schedule(seen, served, album, first)
        look_around(seen, served, album, job=first, model=model)
        assert not album.problems, "\n".join(album.problems)
        assert seen.complaints == []


def sign_in(seen: Sight, served: ServerProcess, album: Album) -> None:
    page = seen.page
    # An answer that asks for a token is a 401, which Chromium mentions.
    with seen.expecting("401"):
        page.goto(served.url)
        album.look("login", served.url)
        page.get_by_label("Token").fill("onw_not-this-one")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("unknown")
        page.get_by_label("Token").fill(served.token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    album.note("begin")


def register(seen: Sight, lab: Path, album: Album) -> None:
    page = seen.page
    page.get_by_role("main").get_by_role("link", name="Register a storage").click()
    storages = page.locator("#storages")
    expect(storages).to_contain_text("Begin here")
    album.note("settings-begin")
    storages.get_by_label("Alias").fill("lab")
    storages.get_by_label("Place").fill(str(lab))
    assert seen.reach("Register")
    storages.get_by_role("button", name="Register").click()
    expect(storages.get_by_role("status")).to_have_text("Done.")
    expect(storages.locator("tbody")).to_contain_text(str(lab))


def create(seen: Sight, go: Path, album: Album) -> str:
    """Fills in the form; returns the job's address."""
    page = seen.page
    page.get_by_role("link", name="New job").click()
    page.get_by_label("Name", exact=True).fill("fashion")
    page.locator("[data-browse=f-code]").click()
    for folder in ("lab", "code"):
        page.locator("#places").get_by_role("button", name=folder).first.click()
    album.note("browse")
    page.get_by_role("button", name="Choose trainer").click()
    expect(page.locator("#f-code")).to_have_value("lab:code/trainer")
    page.locator("#f-input_location_1").fill("lab:data/fashion")
    page.locator("#f-output_location").fill("lab:models/fashion")
    page.get_by_label("Yes: the latest").check()
    page.get_by_label("A checkpoint that passes the gate").uncheck()
    page.get_by_text("Environment, secrets, notifications").click()
    page.locator("#f-environment").fill(f"SLOW_UNTIL={go}")
    page.get_by_text("Environment, secrets, notifications").click()
    expect(page.locator("#plan")).to_contain_text("the output has no checkpoint yet")
    for width in WIDTHS:
        seen.resize(width)
        album.note("new-job", width=width)
    seen.resize("wide")
    assert seen.reach("Create the job")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/jobs/job-"))
    return page.url


def watch(seen: Sight, served: ServerProcess, go: Path, album: Album) -> None:
    """Lines and steps come by themselves, also after the server was killed and is there again."""
    page = seen.page
    page.evaluate("window.sameDocument = true")
    expect(page.locator("#log")).to_contain_text("epoch 0 step 10 ")
    expect(page.locator("#live")).to_contain_text(re.compile(r"step \d"))
    expect(page.locator(".chart").first).to_have_attribute("data-points", re.compile(r"[3-9]|\d\d"))
    album.note("job-live")
    with seen.expecting(served.url, "ERR_", "Failed to fetch", "NetworkError"):
        served.kill()
        # Until the page has noticed, it has not been tried.
        page.wait_for_event("requestfailed", timeout=PATIENCE_MS)
        served.start()
        expect(page.locator("#log")).to_contain_text(re.compile(r"step 150 "))
        go.touch()
        expect(page.locator("#live .badge").first).to_have_text("succeeded")
    assert page.evaluate("window.sameDocument") is True, "the page was loaded again"
    assert len(texts(page, "#live tbody tr")) == 1, "it went on in another attempt"


def go_on(seen: Sight, first: str) -> None:
    """The same job again, with more data."""
    page = seen.page
    page.goto(first)
    assert seen.reach("Continue")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/jobs/job-" in url and url != first)
    expect(page.locator("#live .badge").first).to_have_text("succeeded")
    expect(page.locator("#live")).to_contain_text("continue")


def promote(seen: Sight, served: ServerProcess, versions: int) -> str:
    """The newest, once the server has looked at the output; returns the champion's version."""
    page = seen.page
    page.goto(served.url)
    page.get_by_role("main").get_by_role("link", name="fashion", exact=True).first.click()
    increments = page.locator(".facts > div", has_text="Increments").locator("dd")
    while not increments.inner_text().startswith(str(versions)):
        page.wait_for_timeout(200)
        page.reload()
    page.get_by_role("button", name="Promote the newest").click()
    page.locator("#ask-yes").click()
    expect(page.get_by_role("status").first).to_contain_text("is the champion now")
    return champion(seen)


def champion(seen: Sight) -> str:
    shown = seen.page.locator(".facts > div", has_text="Champion").locator("a")
    return shown.first.inner_text()


def judge(seen: Sight, served: ServerProcess, before: str) -> str:
    """Both increments on both holdouts, a verdict; promoted, rolled back. Returns the address."""
    page = seen.page
    now = promote(seen, served, 2)
    assert now != before
    model = page.url.partition("?")[0]
    page.get_by_role("link", name="Learning").first.click()
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    for holdout in ("test-000", "test-001"):
        expect(page.locator(".matrix thead")).to_contain_text(holdout)
    reading = page.locator("[data-reading]").first
    seen.tab_to("[data-plots]")
    page.keyboard.press("End")
    expect(reading).to_contain_text(re.compile(r"Increment 2 · mean 0\.\d+ .*test-001 0\.\d+"))
    page.keyboard.press("ArrowLeft")
    expect(reading).to_contain_text("Increment 1 · mean 0.")
    page.locator(".plotted circle[data-at='2']").first.hover()
    expect(reading).to_contain_text("Increment 2 ·")
    verdicts = page.locator("[aria-labelledby=verdicts-title]")
    expect(verdicts.locator(".badge").first).to_be_visible()
    page.goto(model)
    page.get_by_role("button", name="Roll back").click()
    page.locator("#ask-yes").click()
    expect(page.get_by_role("status").first).to_contain_text("is the champion again")
    assert champion(seen) == before
    return model


def schedule(seen: Sight, served: ServerProcess, album: Album, job: str) -> None:
    """The same job every night by itself; then less often, then paused."""
    page = seen.page
    page.goto(f"{served.url}/jobs/new?like={job.rpartition('/')[2]}")
    page.get_by_label("By the clock").check()
    zone = zone_of(page.locator("#f-timezone").input_value())  # the browser's
    for line, first in (("30 2 * * mon-fri", ""), ("30 2 * * sun", "30 2 * * mon-fri")):
        expect(page.locator("#f-cron")).to_have_value(first)
        page.locator("#f-cron").fill(line)
        expect(page.locator("#times li")).to_have_count(3)
        (soonest,) = next_ticks(line, zone, time.time(), 1)
        expect(page.locator("#times li").first).to_contain_text(
            f"{datetime.fromtimestamp(soonest, zone):%Y-%m-%d} 02:30 "
        )
        expect(page.locator("#plan dl")).to_be_visible()
        page.locator("#times").scroll_into_view_if_needed()
        album.note("schedule-form")
        page.get_by_role("button", name=re.compile("(Create|Save) the schedule")).click()
        row = page.locator("tbody tr")
        expect(row).to_contain_text(line)
        if not first:
            row.get_by_role("link", name="Change").click()
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".badge")).to_have_text("paused")


def look_around(
    seen: Sight, served: ServerProcess, album: Album, *, job: str, model: str
) -> None:  # fmt: skip
    """At every page there is."""
    album.look("models", f"{served.url}/models")
    album.look("model", model)
    newest = seen.page.locator("main a[href*='/checkpoints/']").first.get_attribute("href")
    album.look("checkpoint", f"{served.url}{newest}")
    for page in ("learning", "data", "savings"):
        album.look(page, f"{model}/{page}")
    album.look("all-savings", f"{served.url}/savings")
    album.look("jobs", f"{served.url}/jobs")
    album.look("job", job, ready=".chart canvas")
    album.look("schedules", f"{served.url}/schedules")
    album.look("settings", f"{served.url}/settings")
    album.look("new-job-empty", f"{served.url}/jobs/new")
