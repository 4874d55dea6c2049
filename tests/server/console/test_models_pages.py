"""The pages about models: lists, lineage, checkpoints, learning, data, savings, and actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from onward.data.ledger import Ledger
from onward.server.console.languages import language
from onward.server.database.tables import Audit, Verification
from onward.server.models.verifying import Verifier
from tests.cli.outputs import Output, floats
from tests.cli.scored import Scored, answers, three_increments
from tests.data.ledgers import keyed, state_with
from tests.server.console.conftest import Browser
from tests.server.console.pages import Page
from tests.server.lab import AddModel, adder, make_lab

HOSTILE = '<script>x</script><img src=x onerror=x()>" onload="x()'
LANGUAGES = ("en", "zh")


@pytest.fixture
def lab(tmp_path: Path, browser: Browser) -> Path:
    """The folder of the storage `lab`."""
    return make_lab(tmp_path / "lab", browser.database, browser.settings)


@pytest.fixture
def add(lab: Path, browser: Browser) -> AddModel:
    """Lists an output as a model; returns its id."""
    return adder(browser.database)


@pytest.fixture
def digits(lab: Path) -> Scored:
    """Three increments: the second is fine, the third forgets much of `first`."""
    return three_increments(lab / "digits")


@pytest.fixture
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own thread verifies nothing: the test does."""
    monkeypatch.setattr(Verifier, "_run", lambda self: None)


def learned(folder: Path) -> Output:
    """Two increments whose ledger knows its items by key: `b` changes, `a` goes, two come."""
    output, ledger, parent = Output(folder), Ledger(), None
    for number, items in (
        (1, keyed({"a": 1, "b": 2, "c": 3})),
        (2, keyed({"b": 9, "c": 3, "d": 4, "e": 5})),
    ):
        if ledger.pinned is not None:
            ledger.learn_pinned()
        ledger.pin(items)
        parent = output.save(
            state_with(train=ledger.state_dict()), step=10 * number, increment=number,
            finished=True, parent=parent,
            about={"data": {"train": {"items": 3, "digest": "ab" * 32}}},
        ).checkpoint  # fmt: skip
    return output


def is_safe(page: Page) -> bool:
    """No script but ours, no style in place, nothing that runs, no picture of anybody else."""
    return (
        not page.all("img")
        and not page.all("style")
        and all("src" in each.attributes for each in page.all("script"))
        and not [
            e for e in page.elements
            for name in e.attributes if name.startswith("on") or name == "style"
        ]
    )  # fmt: skip


@pytest.mark.parametrize("code", LANGUAGES)
def test_empty_pages_say_what_is_missing(browser: Browser, code: str) -> None:
    """Before any model, before any checkpoint, before a holdout: what would bring one."""
    cookie = f"language={code}"
    page = browser.get("/models", cookie=cookie)
    assert (page.status, "/jobs/new" in page.links()) == (200, True)
    assert ("还没有模型" if code == "zh" else "No model yet") in page.text
    page = browser.get("/savings", cookie=cookie)
    assert ("还没有可比较的" if code == "zh" else "Nothing to compare yet") in page.text


@pytest.mark.parametrize("page_of", ["", "/learning", "/data", "/savings"])
def test_a_model_without_a_checkpoint_explains_itself(
    browser: Browser, add: AddModel, page_of: str
) -> None:
    """Its job is queued, or trains its first steps."""
    page = browser.get(f"/models/{add('fresh')}{page_of}")
    assert page.status == 200
    assert len(page.all("div", class_="empty")) == 1
    assert not page.all("button", class_="danger")


def test_the_list_shows_what_matters(browser: Browser, digits: Scored, add: AddModel) -> None:
    """Champion, latest, increments, forgetting, savings; found by name."""
    model = add("digits")
    second = [*digits.repository.history.commits][1]
    digits.repository.set_alias("champion", second)
    browser.get(f"/models/{model}")  # looks at the output
    page = browser.get("/models")
    row = page.one("tbody").text
    for said in ("lab:digits", "v2", "v3", "3 checkpoints", "first: 0.9 → 0.7"):
        assert said in row
    assert f"/models/{model}/checkpoints/{second}" in page.links()
    assert "No model is like that" in browser.get("/models?q=100%25").text
    assert model in str(browser.get("/models?q=DIG").links())


def test_models_are_paged(browser: Browser, add: AddModel) -> None:
    """Each is on exactly one page."""
    ids = {add(f"model-{n:02}") for n in range(60)}
    first = browser.get("/models?q=model")
    second = browser.get(first.one("a", rel="next").attributes["href"])
    shown = [
        link for page in (first, second) for link in page.links() if link.startswith("/models/mdl-")
    ]
    assert sorted(shown) == sorted(f"/models/{id_}" for id_ in ids)


def test_a_lineage_is_drawn_with_its_data(browser: Browser, lab: Path, add: AddModel) -> None:
    """A dot for each checkpoint that matters, a line to its parent, the delta beside it."""
    output = learned(lab / "out")
    first, second = output.repository.history.commits
    model = add("out")
    page = browser.get(f"/models/{model}")
    drawing = page.one("svg", class_="lineage")
    assert len([e for e in drawing.walk() if e.tag == "circle"]) == 2
    assert len([e for e in drawing.walk() if e.tag == "path"]) == 1
    assert "2 added, 1 changed, 1 removed" in drawing.text
    for id_ in (first, second):
        assert f"/models/{model}/checkpoints/{id_}" in page.links()
        asked = f"output=lab%3Aout&verb=branch&from={id_}"
        assert f"/jobs/new?{asked}" in page.links()
        assert f"/jobs/new?{asked.replace('branch', 'continue')}" in page.links()
    assert is_safe(page)


def test_checkpoints_are_paged(browser: Browser, lab: Path, add: AddModel) -> None:
    """Thirty: 25, then the rest; the lineage draws the ends only."""
    Output(lab / "long").chain(30)
    first = browser.get(f"/models/{add('long')}")
    second = browser.get(first.one("a", rel="next").attributes["href"])
    assert [len(page.one("tbody").walk()[0].children) > 0 for page in (first, second)]
    rows = [len(page.all("tr")) - 1 for page in (first, second)]
    assert rows == [25, 5]


def test_the_gate_is_asked_and_its_refusal_shown(
    browser: Browser, digits: Scored, add: AddModel
) -> None:
    """Promote, be refused, promote all the same, roll back: each by the forms of the page."""
    model = add("digits")
    first, _, third = digits.repository.history.commits
    at = f"/models/{model}"

    def champion() -> str | None:
        digits.repository.refresh()
        return digits.repository.history.aliases.get("champion")

    page = browser.get(at)
    done = browser.submit(page, f"{at}/checkpoints/{first}/promote")
    assert (done.status, champion()) == (303, first)
    page = browser.get(done.location)
    assert "The checkpoint is the champion now." in page.text
    refused = browser.submit(page, f"{at}/promote")
    assert (refused.status, champion()) == (409, first)
    assert "regression" in refused.one("div", role="alert").text
    assert "--force" not in refused.text  # here it is a button
    forced = browser.submit(refused, f"{at}/checkpoints/{third}/promote")
    assert (forced.status, champion()) == (303, third)
    back = browser.submit(browser.get(at), f"{at}/rollback")
    assert (back.status, champion()) == (303, first)
    again = browser.submit(browser.get(at), f"{at}/rollback")
    assert again.status == 404
    assert "no champion to go back to" in again.text
    with browser.database.read() as session:
        noted = list(session.scalars(select(Audit.action).order_by(Audit.id)))
    assert noted == ["model.promote", "model.promote", "model.promote", "model.rollback"]


def test_a_form_sent_twice_has_one_effect(browser: Browser, lab: Path, add: AddModel) -> None:
    """A double click, a page sent again: one record in the output's log, one audit entry."""
    output = Output(lab / "out")
    commits = output.chain(2)
    at = f"/models/{add('out')}"
    action = f"{at}/checkpoints/{commits[0].checkpoint}/pin"
    page = browser.get(at)
    answers_ = [browser.submit(page, action).status for _ in range(2)]
    output.repository.refresh()
    seq = output.repository.history.seq
    assert answers_ == [303, 303]
    assert output.repository.history.pins == {commits[0].checkpoint}
    assert browser.submit(browser.get(at), action.replace("/pin", "/unpin")).status == 303
    assert browser.submit(page, action).status == 303  # the old form: answered as before
    output.repository.refresh()
    assert output.repository.history.pins == frozenset()
    assert output.repository.history.seq == seq + 1
    with browser.database.read() as session:
        assert list(session.scalars(select(Audit.action))) == ["model.pin", "model.unpin"]


def test_whoever_may_only_read_is_offered_nothing_else(
    browser: Browser, digits: Scored, add: AddModel
) -> None:
    """No form, and the route refuses too."""
    from onward.server.security.tokens import make_token

    at = f"/models/{add('digits')}"
    first = next(iter(digits.repository.history.commits))
    with browser.database.write() as session:
        _, token = make_token(session, "eve", "read", by="test")
    browser.headers["authorization"] = f"Bearer {token}"
    for address in (at, f"{at}/checkpoints/{first}", f"{at}/data", "/models"):
        page = browser.get(address)
        assert page.status == 200
        actions = {e.attributes.get("action", "") for e in page.all("form", method="post")}
        assert actions <= {"/look", "/logout"}
    for action in ("promote", "rollback", f"checkpoints/{first}/promote",
                   f"checkpoints/{first}/pin", f"checkpoints/{first}/verify"):  # fmt: skip
        assert browser.post(f"{at}/{action}").status == 403
    assert browser.post("/models", {"location": "lab:x"}).status == 403


def test_a_checkpoint_tells_what_trained_it(browser: Browser, lab: Path, add: AddModel) -> None:
    """Command, seed, configuration, parent and child, data, tensors, metrics."""
    output = learned(lab / "out")
    first, second = output.repository.history.commits
    about = {"host": "box", "command": ["train.py", "--seed", "7", "a b"], "config": {"lr": 0.25}}
    third = output.save(step=30, increment=3, parent=second, about=about).checkpoint
    at = f"/models/{add('out')}"
    browser.get(at)
    page = browser.get(f"{at}/checkpoints/{third}")
    for said in ("train.py --seed 7 'a b'", "box", "lr", "0.25", "model/w", "loss"):
        assert said in page.text
    assert f"{at}/checkpoints/{second}" in page.links()
    page = browser.get(f"{at}/checkpoints/v2")
    assert {f"{at}/checkpoints/{first}", f"{at}/checkpoints/{third}"} <= {*page.links()}
    assert "2 added, 1 changed, 1 removed" in page.text
    assert browser.get(f"{at}/checkpoints/v99").status == 404


def test_verify_tells_at_once_whether_all_is_there(
    browser: Browser, lab: Path, add: AddModel
) -> None:
    """A pack that is missing is damage; a bit that turned is only seen by reading it."""
    output = Output(lab / "out")
    (commit,) = output.chain(1)
    at = f"/models/{add('out')}/checkpoints/{commit.checkpoint}"
    page = browser.submit(browser.get(at), f"{at}/verify")
    assert (page.status, "Intact" in page.text) == (200, True)
    (pack,) = (output.folder / "onward" / "packs").iterdir()
    output.flip(pack)
    assert "Intact" in browser.submit(browser.get(at), f"{at}/verify").text
    pack.unlink()
    assert "Damaged" in browser.submit(browser.get(at), f"{at}/verify").text


@pytest.mark.parametrize("code", LANGUAGES)
def test_reading_every_byte_is_told_of_while_it_is_under_way(
    nobody_reads: None, browser: Browser, lab: Path, add: AddModel, code: str
) -> None:
    """The form comes back at once; the page says how far it is, then what was found, and by whom it
    was asked is in the audit log. Sent twice, it is read once."""
    output = Output(lab / "out")
    (commit,) = output.chain(1)
    model = add("out")
    at = f"/models/{model}/checkpoints/{commit.checkpoint}"
    spoken = language(code).t
    browser.headers["cookie"] = f"language={code}"
    form = browser.get(at)
    assert not form.one("div", id="verification").children[1:]
    for _ in range(2):
        answer = browser.submit(form, f"{at}/verify", every_byte="yes")
        assert (answer.status, answer.location) == (303, f"{at}#verification")
    with browser.database.read() as session:
        (row,) = session.scalars(select(Verification))
        (entry,) = session.scalars(select(Audit))
    assert (entry.action, entry.object) == ("model.verify", f"lab:out {commit.checkpoint}")

    def shown(**values: Any) -> Page:
        with browser.database.write() as session:
            session.execute(update(Verification).values(**values))
        page = browser.get(f"/models/{model}/checkpoints/v1")
        (live,) = [each for each in page.elements if each.attributes.get("id") == "verification"]
        if "data-refresh" in live.attributes:
            assert live.attributes["hx-get"] == at
        part = browser.get(at, hx_request="true")
        assert part.one("div", id="verification").text == live.text
        assert len(part.elements) < 20
        return part

    # What the thread does with the row, step by step.
    page = shown(state="waiting")
    assert spoken("Every byte of it will be read, after other checkpoints.") in page.text
    page = shown(state="running", read_bytes=2048, all_bytes=4096)
    bar = page.one("progress")
    assert (bar.attributes["value"], bar.attributes["max"]) == ("2048", "4096")
    page = shown(state="failed", problem={"what": "its store is silent", "why": "", "do": ""})
    assert "its store is silent" in page.text
    assert "data-refresh" not in page.one("div", id="verification").attributes
    output.flip(next((output.folder / "onward" / "packs").iterdir()))
    shown(state="waiting")
    assert Verifier(browser.settings, browser.database).read_next()
    page = browser.get(at)
    assert spoken("Damaged") in page.text
    assert f"pack {next(iter(output.repository.manifest(commit).packs))} has changed" in page.text
    assert row.state == "waiting"


@pytest.mark.parametrize("code", LANGUAGES)
def test_learning_shows_curves_heat_map_and_verdicts(
    browser: Browser, digits: Scored, add: AddModel, code: str
) -> None:
    """The worst forgetting is named and framed; each holdout has its column."""
    page = browser.get(f"/models/{add('digits')}/learning", cookie=f"language={code}")
    assert page.status == 200
    matrix = page.one("table", class_="matrix")
    cells = [[c.text for c in row.walk() if c.tag == "td"] for row in matrix.walk()
             if row.tag == "tr"][1:]  # fmt: skip
    assert cells == [["0.9", "0.45"], ["0.9", "0.9"], ["0.7", "0.9"]]
    worst = [e.text for e in matrix.walk() if "worst" in e.attributes.get("class", "").split()]
    assert worst == ["0.7"]
    assert len(page.all("svg", class_="plotted wide-only")) == 1
    assert len(page.all("svg", class_="plotted narrow-only")) == 1
    table = page.one("table", data_numbers="")
    rows = [[c.text for c in row.walk() if c.tag in ("th", "td")] for row in table.walk()
            if row.tag == "tr"]  # fmt: skip
    assert rows[0][1:] == ["平均" if code == "zh" else "mean", "second", "first"]
    assert rows[1:] == [["1", "0.675", "0.45", "0.9"], ["2", "0.9", "0.9", "0.9"],
                        ["3", "0.8", "0.9", "0.7"]]  # fmt: skip
    named = "最大遗忘：first" if code == "zh" else "Worst forgetting: first"
    assert named in page.text
    assert ("退步" if code == "zh" else "regression") in page.text
    assert is_safe(page)


def test_data_is_compared_and_items_are_found(browser: Browser, lab: Path, add: AddModel) -> None:
    """Snapshots, a difference, and who saw an item: answers stand on the page that asked."""
    output = learned(lab / "out")
    at = f"/models/{add('out')}"
    browser.get(at)
    page = browser.get(f"{at}/data")
    rows = [[c.text for c in row.walk() if c.tag == "td"] for row in page.all("tr")][1:]
    assert [(row[0], row[1], row[4:7]) for row in rows] == [
        ("2", "v2", ["2", "1", "1"]), ("1", "v1", ["3", "0", "0"]),
    ]  # fmt: skip
    compared = browser.get(f"{at}/data?first=v1&second=v2")
    status = compared.one("div", id="compared").text
    assert status == "Added2Changed1Removed1The same1"
    seen = browser.get(f"{at}/data?item=d").one("div", id="found")
    assert [e.text.split()[0] for e in seen.walk() if e.tag == "li"] == ["seen", "not"]
    newest = [*output.repository.history.commits][-1]
    output.save(step=30, increment=3, finished=True, parent=newest)  # without a ledger
    browser.get(at)
    seen = browser.get(f"{at}/data?item=d").one("div", id="found")
    assert [e.text.split()[0] for e in seen.walk() if e.tag == "li"] == ["cannot", "seen", "not"]
    for query in ("first=v1&second=v9", "item=%00", f"first={HOSTILE}&second=v1"):
        page = browser.get(f"{at}/data?{query}")
        assert page.status == 200
        assert page.one("div", role="alert")
        assert is_safe(page)


def test_savings_compare_with_retraining(browser: Browser, digits: Scored, add: AddModel) -> None:
    """Of all models, and of each increment of one."""
    model = add("digits")
    browser.get(f"/models/{model}")
    page = browser.get(f"/models/{model}/savings")
    assert [e.text for e in page.all("td", data_label="Increment")] == ["1", "2", "3"]
    assert is_safe(page)
    every = browser.get("/savings")
    assert every.status == 200
    assert is_safe(every)


def test_text_of_outputs_is_only_ever_text(browser: Browser, lab: Path, add: AddModel) -> None:
    """Names, reasons, metrics, commands, holdouts, verdicts: nothing becomes markup."""
    output = Scored(lab / "out")
    output.freeze(HOSTILE, 1, metric=HOSTILE)
    output.increment(1, f"regression: {HOSTILE}", **{HOSTILE: answers()})
    assert output.newest is not None
    about: dict[str, Any] = {
        "host": HOSTILE, "command": [HOSTILE], "config": {HOSTILE: HOSTILE},
        "data": {HOSTILE: {"items": 1, "digest": HOSTILE}},
    }  # fmt: skip
    newest = output.save(
        {"model": {HOSTILE: floats(1)}}, step=20, parent=output.newest.checkpoint, about=about,
        reason=HOSTILE, metrics={HOSTILE: 0.5},
    )  # fmt: skip
    at = f"/models/{add('out')}"
    found = ""
    for address in (at, f"{at}/learning", f"{at}/data", f"{at}/savings", "/models", "/savings",
                    f"{at}/checkpoints/{newest.checkpoint}", f"/models?q={HOSTILE}",
                    f"{at}/data?item={HOSTILE}"):  # fmt: skip
        page = browser.get(address)
        assert page.status == 200, address
        assert is_safe(page), address
        found += page.text
    assert found.count("<script>x</script>") > 10


def test_a_damaged_output_keeps_its_pages(browser: Browser, digits: Scored, add: AddModel) -> None:
    """What was seen stays, with the problem; nothing is a server error."""
    model = add("digits")
    browser.get(f"/models/{model}")
    records = sorted((digits.folder / "onward" / "log").iterdir())
    records[-1].write_bytes(records[-1].read_bytes()[:-9])
    records[2].write_bytes(b"{")
    page = browser.get(f"/models/{model}")
    assert (page.status, "v3" in page.text) == (200, True)
    assert "this is how it was last seen" in page.text
    for part in ("/learning", "/data", "/savings"):
        page = browser.get(f"/models/{model}{part}")
        assert page.status == 200
        assert page.one("div", role="alert")


def test_an_administrator_lists_an_output(browser: Browser, digits: Scored) -> None:
    """By its alias and path; any other place is refused beside the field."""
    page = browser.get("/models")
    refused = browser.submit(page, "/models", location="/etc")
    assert refused.status == 422
    assert refused.one("input", id="location").attributes["value"] == "/etc"
    done = browser.submit(refused, "/models", location="lab:digits")
    with browser.database.read() as session:
        assert list(session.scalars(select(Audit.action))) == ["model.add"]
    assert done.status == 303
    assert "v3" in browser.get(done.location).text
    assert browser.get("/models/mdl-" + "0" * 20).status == 404
    with browser.database.read() as session:
        assert list(session.scalars(select(Audit.action))) == ["model.add"]
