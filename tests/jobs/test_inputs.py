"""Several inputs, under names of the script's choice; only what is new in the data counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onward.errors import BadURL, UsageError
from onward.jobs.plan import make_plan
from onward.jobs.spec import Input, JobSpec
from onward.stores import open_store
from tests.jobs.bench import TRAIN, Bench

TELL = """
import json, os, sys
names = ("ONWARD_DATA", "WORDS", "IMAGES", "RESULT", "DATA_URL", "TRAIN_URL")
told = {name: os.environ[name] for name in names if name in os.environ}
print(json.dumps({"argv": sys.argv[1:], "env": told}))
"""


def told(bench: Bench) -> tuple[dict[str, str], dict[str, str]]:
    """The arguments and the variables of the last script."""
    document = json.loads(bench.printed().splitlines()[-1])
    argv = document["argv"]
    return dict(zip(argv[::2], argv[1::2], strict=True)), document["env"]


@pytest.fixture
def words(bench: Bench) -> Path:
    folder = bench.folder / "words"
    folder.mkdir()
    (folder / "words.txt").write_text("a b c")
    return folder


def test_a_script_gets_every_place_under_its_own_name(bench: Bench, words: Path) -> None:
    """As arguments or in the environment, each as was asked; local ones are passed through."""
    bench.run(
        TELL, data=str(bench.data), data_name="images", output_name="result",
        inputs=(Input("words", str(words)), Input("more", str(words), "env")),
    )  # fmt: skip
    arguments, variables = told(bench)
    assert arguments == {
        "--images": str(bench.data), "--words": str(words), "--result": str(bench.output)
    }  # fmt: skip
    assert "DATA_URL" not in variables
    assert variables["ONWARD_DATA"] == str(bench.data)

    bench.run(
        TELL, data=str(bench.data), data_name="images", data_pass_as="env", output_name="result",
        inputs=(Input("words", str(words), "env"),),
    )  # fmt: skip
    arguments, variables = told(bench)
    assert arguments == {"--result": str(bench.output)}
    assert (variables["IMAGES"], variables["WORDS"]) == (str(bench.data), str(words))


def test_names_are_as_ever_where_nothing_is_said(bench: Bench) -> None:
    """`data_url` and `train_url`, together as arguments or in the environment."""
    bench.run(TELL, data=str(bench.data))
    assert told(bench)[0] == {"--data_url": str(bench.data), "--train_url": str(bench.output)}
    bench.run(TELL, data=str(bench.data), pass_as="env")
    arguments, variables = told(bench)
    assert arguments == {}
    assert (variables["DATA_URL"], variables["TRAIN_URL"]) == (str(bench.data), str(bench.output))


def test_only_new_data_counts(bench: Bench, words: Path) -> None:
    """An input that grows makes no increment; without data, nothing is known to be new."""
    inputs = (Input("words", str(words)),)
    known = 'parser.add_argument("--data_url")'
    script = TRAIN.replace(known, f'{known}; parser.add_argument("--words")')
    bench.run(script, data=str(bench.data), inputs=inputs)
    (words / "more.txt").write_text("d")
    again = bench.run(script, data=str(bench.data), inputs=inputs).outcome
    assert (again.exit_code, again.attempts) == (0, [])
    (bench.data / "b.txt").write_text("day 2")
    third = bench.run(script, data=str(bench.data), inputs=inputs).outcome
    assert [attempt.verb for attempt in third.attempts] == ["continue"]


@pytest.mark.servers
def test_inputs_of_an_object_store_are_fetched(bench: Bench, s3_url: Callable[[str], str]) -> None:
    """Each to a place of its own, whole before the script begins; the same bytes are not fetched
    twice, and the plan says beforehand what would be."""
    for name in ("words", "images"):
        open_store(s3_url(name)).put(f"{name}.txt", [name.encode()], len(name))
    spec = JobSpec(
        bench.script(TELL), str(bench.output), data=s3_url("images"), data_name="images",
        inputs=(Input("words", s3_url("words"), "env"),),
    )  # fmt: skip
    plan = make_plan(spec)
    assert (plan.inputs["words"].fetch_items, plan.inputs["words"].fetch_bytes) == (1, 5)
    assert any(line.startswith("input words: ") for line in plan.lines())
    assert plan.document()["inputs"]["words"]["items"] == 1
    ended = bench.run(TELL, data=spec.data, data_name="images", inputs=spec.inputs)
    arguments, variables = told(bench)
    assert Path(arguments["--images"], "images.txt").read_text() == "images"
    assert Path(variables["WORDS"], "words.txt").read_text() == "words"
    assert ended.said.count("fetching data (1 object): done") == 2
    assert make_plan(spec).inputs["words"].fetch_items == 0


def test_nothing_at_an_input_is_said_by_its_name(bench: Bench) -> None:
    """Before anything is fetched or started."""
    ended = bench.run(TELL, inputs=(Input("words", str(bench.folder / "missing")),))
    assert isinstance(ended.outcome.error, BadURL)
    assert "--input words" in str(ended.outcome.error)
    assert not bench.output.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": (Input("train_url", "/tmp"),)},
        {"inputs": (Input("a", "/tmp"), Input("a", "/tmp"))},
        {"inputs": (Input("a b", "/tmp"),)},
        {"inputs": (Input("a", "/tmp", "pipe"),)},
        {"inputs": (Input("path", "/tmp", "env"),)},
        {"inputs": (Input("ld_preload", "/tmp", "env"),)},
        {"inputs": (Input("a", "/tmp", "env"), Input("A", "/tmp", "env"))},
        {"output_name": "onward_claim", "pass_as": "env"},
        {"data": "/tmp", "data_name": "train_url"},
        {"data": "/tmp", "data_pass_as": "file"},
        {"strategy": "forget"}, {"strategy": "er"}, {"strategy": "er:0"}, {"strategy": "lwf:5"},
        {"budget": "a lot"}, {"budget": "0"}, {"margin": -0.1}, {"margin": float("nan")},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_first(bench: Bench, wrong: dict[str, object]) -> None:
    """Names that clash or decide how scripts start, strategies and budgets that do not exist."""
    spec = JobSpec(bench.script(TELL), str(bench.output), **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        spec.check()


def test_the_command_and_the_document_say_all(bench: Bench, words: Path) -> None:
    """What goes on with a job is the same job; so is what comes back from JSON."""
    spec = JobSpec(
        bench.script(TELL), str(bench.output), data=str(bench.data), data_name="images",
        data_pass_as="env", output_name="result", inputs=(Input("words", str(words), "env"),),
        strategy="er:100", budget="500 steps", margin=0.02, promote=False, keep_best=("loss:min",),
    )  # fmt: skip
    spec.check()
    assert JobSpec.of(json.loads(json.dumps(spec.document()))) == spec
    words_ = spec.command().split()
    for expected in (
        f"--input words={words}:env",
        "--data-name images",
        "--data-pass-as env",
        "--output-name result",
        "--strategy er:100",
        "--margin 0.02",
        "--no-promote",
    ):
        assert expected in spec.command()
    assert "--budget" in words_
    out, _ = bench.command(*spec.arguments, *_words(spec.command()))
    arguments = json.loads(out.splitlines()[-1])
    assert arguments["env"]["WORDS"] == str(words)


def _words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)[2:]


@pytest.mark.parametrize("text", ["words", "=x", "words=", ""])
def test_an_input_is_a_name_and_a_place(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError):
        Input.parse(text)
