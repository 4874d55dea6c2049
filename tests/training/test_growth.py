"""New classes, users and items: a run goes on with more rows, each where its name is."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

import onward
from onward import errors
from onward.frameworks import torch as framework
from onward.learning.names import Names
from onward.repository import open_repository, pack_key
from onward.stores import open_store, parse
from onward.training.places import claim_working_copy
from tests.frameworks.torch_training import same, through_bytes
from tests.servers import S3Server

CLASSES = [f"class {n}" for n in (3, 1, 4, 15, 9, 2, 6, 5)]
TEN = [*CLASSES, "class 0", "class 7"]
TWELVE = [*TEN, "class 8", "class 10"]


class Net(nn.Module):
    def __init__(self, classes: int, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


class Script:
    """What a user's script makes: a model with a row per class, and all that goes with it."""

    def __init__(self, classes: Names, *, seed: int = 0, width: int = 6) -> None:
        torch.manual_seed(seed)
        self.classes = classes
        self.model = Net(len(classes), width)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, fused=True)
        self.scheduler = LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.ema = AveragedModel(self.model)

    @property
    def objects(self) -> dict[str, Any]:
        return {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "ema": self.ema, "classes": self.classes,
        }  # fmt: skip

    @property
    def grow(self) -> dict[str, Names]:
        return {"model.head": self.classes, "ema.module.head": self.classes}

    def open(self, output: Path | str, **options: Any) -> onward.Run:
        options = {"save_every_seconds": None, "grow": self.grow, **options}
        return onward.open(output, **self.objects, **options)

    def train(self, run: onward.Run, labels: list[str], *, stop: int | None = None) -> None:
        """Learns items of these classes; with `stop`, breaks off after so many steps."""
        x = torch.arange(4.0 * len(labels)).reshape(-1, 4).sin()
        data = torch.utils.data.TensorDataset(x, torch.arange(len(labels)))
        loader = run.loader(data, batch_size=4)
        for _epoch in run.epochs(2):
            for values, numbers in loader:
                rows = torch.from_numpy(self.classes.rows([labels[n] for n in numbers]))
                loss = nn.functional.cross_entropy(self.model(values), rows)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                self.ema.update_parameters(self.model)
                run.step(loss=loss)
                if run.increment_step == stop:
                    run.save()
                    run.close()
                    return
        run.finish()


def increment(
    output: Path | str, labels: list[str], *, seed: int = 0, stop: int | None = None, **options: Any
) -> tuple[Script, onward.Run]:
    """What a script does from its first to its last line."""
    classes = onward.names(output, "classes", labels)
    script = Script(classes, seed=seed)
    run = script.open(output, **options)
    script.train(run, labels, stop=stop)
    return script, run


def state(script: Script) -> Any:
    return through_bytes(framework.capture(script.objects))


def records(output: Path) -> int:
    return open_repository(open_store(output)).history.seq


def test_three_increments_each_with_more_classes(tmp_path: Path) -> None:
    """Old rows begin bit for bit as they ended, moments too; new ones as the script made them."""
    before, _ = increment(tmp_path, CLASSES * 2)
    for number, labels in ((2, TEN), (3, TWELVE)):
        data = CLASSES * 2 + [name for wider in (TEN, TWELVE)[: number - 1] for name in wider]
        classes = onward.names(tmp_path, "classes", data)
        assert list(classes) == labels
        assert classes.later == ()
        script = Script(classes, seed=number)
        fresh = {key: value.clone() for key, value in script.model.state_dict().items()}
        run = script.open(tmp_path)
        assert (run.verb, run.increment) == ("continue", number)
        old = len(before.classes)
        for part in ("weight", "bias"):
            now, then = getattr(script.model.head, part), getattr(before.model.head, part)
            assert torch.equal(now[:old], then)
            assert torch.equal(now[old:], fresh[f"head.{part}"][old:])
            averaged, was = (getattr(s.ema.module.head, part) for s in (script, before))
            assert torch.equal(averaged[:old], was)
            for slot in ("exp_avg", "exp_avg_sq"):
                moment = script.optimizer.state[now][slot]
                assert torch.equal(moment[:old], before.optimizer.state[then][slot])
                assert moment.shape == now.shape
                assert not moment[old:].any()
            assert script.optimizer.state[now]["step"] == before.optimizer.state[then]["step"]
        assert torch.equal(script.model.body.weight, before.model.body.weight)
        assert script.optimizer.param_groups[0]["lr"] == 0.01  # the new budget's own schedule
        assert list(script.classes) == labels
        script.train(run, data)
        before = script
    commits = open_repository(open_store(tmp_path)).history.live()
    assert [c.increment for c in commits if c.finished] == [1, 2, 3]
    assert list(onward.names(tmp_path, "classes", [])) == TWELVE


def test_a_grown_increment_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed in the middle, and again before its first save: the same bits as never killed."""
    finals = []
    data = CLASSES * 2 + TEN
    for name in ("whole", "broken"):
        output = tmp_path / name
        increment(output, CLASSES * 2)
        if name == "broken":
            lost = Script(onward.names(output, "classes", data), seed=1)
            run = lost.open(output)  # and no more: nothing of it was saved
            run.close()
            _, run = increment(output, data, seed=1, stop=1)
            assert (run.verb, run.increment) == ("continue", 2)
            _, run = increment(output, data, seed=99, stop=3)
            assert (run.verb, run.increment_step) == ("resume", 3)
        script, run = increment(output, data, seed=1)
        finals.append(state(script))
    assert list(script.classes) == TEN
    assert same(finals[0], finals[1])


def test_names_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    """A script that sorts its classes loses nothing; each row is where its name is."""
    before, _ = increment(tmp_path, CLASSES * 2)
    script = Script(Names(sorted(TEN)), seed=1)
    script.open(tmp_path).close()
    rows = script.classes.rows(CLASSES)
    assert rows.tolist() != list(range(len(CLASSES)))
    assert torch.equal(script.model.head.weight[rows], before.model.head.weight)
    slot = "exp_avg_sq"
    now, then = script.model.head.bias, before.model.head.bias
    assert torch.equal(script.optimizer.state[now][slot][rows], before.optimizer.state[then][slot])
    assert list(script.classes) == sorted(TEN)
    turned = Script(Names(CLASSES[::-1]), seed=1)  # no row more, only elsewhere
    turned.open(tmp_path).close()
    assert torch.equal(turned.model.head.weight.flip(0), before.model.head.weight)
    assert torch.equal(turned.ema.module.head.bias.flip(0), before.ema.module.head.bias)


def test_an_unfinished_increment_keeps_its_rows(tmp_path: Path) -> None:
    """New names wait in `later`; a model that was built with them all the same is refused."""
    increment(tmp_path, CLASSES * 2, stop=2)
    seq = records(tmp_path)
    classes = onward.names(tmp_path, "classes", [*TEN, *TEN])
    assert list(classes) == CLASSES
    assert classes.later == ("class 0", "class 7")
    with pytest.raises(errors.UnknownLabel):
        classes.row("class 0")
    for names in (Names(TEN), Names(CLASSES[::-1])):
        script = Script(names, seed=5)
        untouched = state(script)
        with pytest.raises(errors.Mismatch, match="exactly the rows that it has") as caught:
            script.open(tmp_path)
        assert "classes: the checkpoint has 8 names" in str(caught.value)
        assert same(state(script), untouched)
    assert records(tmp_path) == seq
    increment(tmp_path, CLASSES * 2)
    assert list(onward.names(tmp_path, "classes", TEN)) == TEN


def test_a_class_that_disappeared_is_refused(tmp_path: Path) -> None:
    """With all other differences, before anything is touched or claimed."""
    increment(tmp_path, CLASSES * 2)
    seq = records(tmp_path)
    script = Script(Names([*CLASSES[2:], "class 0"]), width=7)
    untouched = state(script)
    with pytest.raises(errors.Mismatch) as caught:
        script.open(tmp_path)
    text = str(caught.value)
    assert "classes: 'class 3', 'class 1' had rows in the checkpoint" in text
    assert "a name keeps its row for good" in text
    for line in (
        "model.body.weight: the checkpoint has F32 [6, 4], the live model F32 [7, 4]",
        "model.head.weight: the checkpoint has F32 [8, 6], the live model F32 [7, 7]",
        "ema.module.head.bias: the checkpoint has F32 [8], the live model F32 [7]",
    ):
        assert line in text
    assert same(state(script), untouched)
    assert records(tmp_path) == seq


def test_another_width_is_no_growth(tmp_path: Path) -> None:
    """Shapes are shown as they were stored, not as growth would make them."""
    increment(tmp_path, CLASSES * 2)
    with pytest.raises(errors.Mismatch) as caught:
        Script(Names(TEN), width=7).open(tmp_path)
    text = str(caught.value)
    assert "model.head.weight: the checkpoint has F32 [8, 6], the live model F32 [10, 7]" in text
    assert "model.head.bias" not in text  # that one could grow


def test_more_rows_without_grow_are_refused_with_a_hint(tmp_path: Path) -> None:
    """Today's error, and that there is a way."""
    model = nn.Linear(2, 2)
    run = onward.open(tmp_path, model=model)
    run.step()
    run.finish()
    with pytest.raises(errors.Mismatch, match=r'grow=\{"model.weight": names\}') as caught:
        onward.open(tmp_path, model=nn.Linear(2, 3))
    assert "model.bias: the checkpoint has F32 [2], the live model F32 [3]" in str(caught.value)
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(tmp_path, model=nn.Linear(3, 2))
    assert "grow=" not in str(caught.value)


def test_names_without_tables_may_only_grow_at_their_end(tmp_path: Path) -> None:
    """Their order is what rows mean to somebody; growing them needs no table."""

    def learn(names: Names) -> onward.Run:
        run = onward.open(tmp_path, model=nn.Linear(2, 2), classes=names)
        run.step()
        run.finish()
        return run

    learn(Names(["a", "b"]))
    names = Names(["a", "b", "c"])
    assert learn(names).verb == "continue"
    assert list(names) == ["a", "b", "c"]
    with pytest.raises(errors.Mismatch, match="row 0 is 'a' there and 'c' here"):
        learn(Names(["c", "b", "a"]))
    assert list(onward.names(tmp_path, "classes", list("dab"))) == [*"abcd"]


def test_users_and_items_grow_each_by_its_names(tmp_path: Path) -> None:
    """Sparse tables and dense biases, by SparseAdam and Adam, in one run."""

    class Ratings(nn.Module):
        def __init__(self, users: int, items: int) -> None:
            super().__init__()
            self.users = nn.Embedding(users, 4, sparse=True)
            self.items = nn.Embedding(items, 4, sparse=True)
            self.user_bias = nn.Parameter(torch.randn(users))

    def learn(ids: list[int], films: list[str]) -> tuple[Ratings, dict[str, Any]]:
        users = onward.names(tmp_path, "users", np.array(ids))
        items = onward.names(tmp_path, "items", films)
        model = Ratings(len(users), len(items))
        sparse = torch.optim.SparseAdam([model.users.weight, model.items.weight], lr=0.1)
        dense = torch.optim.Adam([model.user_bias], lr=0.1)
        run = onward.open(
            tmp_path, model=model, sparse=sparse, dense=dense, users=users, items=items,
            grow={"model.users": users, "model.user_bias": users, "model.items.weight": items},
        )  # fmt: skip
        began = {key: value.clone() for key, value in model.state_dict().items()}
        u, i = (torch.from_numpy(n.rows(of)) for n, of in ((users, ids), (items, films)))
        for optimizer in (sparse, dense):
            optimizer.zero_grad()
        ((model.users(u) * model.items(i)).sum(1) + model.user_bias[u]).sum().backward()
        sparse.step()
        dense.step()
        run.step()
        run.finish()
        return model, began

    first, _ = learn([70, 7, 9], ["x", "y", "x"])
    second, began = learn([9, 11, 8], ["z", "x", "y"])
    assert began["users.weight"].shape == (5, 4)
    assert torch.equal(began["users.weight"][:3], first.users.weight)
    assert torch.equal(began["user_bias"][:3], first.user_bias)
    assert torch.equal(began["items.weight"][:2], first.items.weight)
    assert list(onward.names(tmp_path, "users", [])) == [70, 7, 9, 11, 8]
    assert second.items.weight.shape == (3, 4)


def test_a_branch_takes_weights_by_name(tmp_path: Path) -> None:
    """A new output with more classes; its optimizer is fresh, the old one is left alone."""
    before, _ = increment(tmp_path / "a", CLASSES * 2, stop=2)
    origin = str(tmp_path / "a")
    classes = onward.names(tmp_path / "b", "classes", TEN, branch_from=origin)
    assert list(classes) == TEN
    script = Script(Names(reversed(list(classes))), seed=3)
    run = script.open(tmp_path / "b", branch_from=origin)
    assert run.verb == "branch"
    rows = script.classes.rows(CLASSES)
    assert torch.equal(script.model.head.weight[rows], before.model.head.weight)
    assert torch.equal(script.ema.module.head.weight[rows], before.ema.module.head.weight)
    assert not script.optimizer.state
    script.train(run, TEN * 2)
    assert list(onward.names(tmp_path / "b", "classes", [])) == TEN[::-1]
    plain = onward.open(tmp_path / "c", model=Net(8))
    plain.step()
    plain.finish()
    with pytest.raises(errors.UsageError, match=r"no names under 'classes'.*none at all"):
        onward.names(tmp_path / "d", "classes", TEN, branch_from=str(tmp_path / "c"))
    names = Names(TEN)
    with pytest.raises(errors.Mismatch, match="has no names 'classes'"):
        onward.open(
            tmp_path / "d", model=Net(10), classes=names, grow={"model.head": names},
            branch_from=str(tmp_path / "c"),
        )  # fmt: skip


def test_what_grow_cannot_mean_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """Not names, names that are not kept, a wrong path, a wrong size, one tensor twice."""
    names, others = Names(CLASSES), Names(range(8))
    model = Net(8)
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"grow": {"model.head": CLASSES}}, {}, "is a list"),
        ({"grow": names}, {"classes": names}, "grow is a Names"),
        ({"grow": {"model.head": names}}, {}, "not among the objects"),
        ({"grow": {"model.hat": names}}, {"classes": names}, "there is no such module; there are"),
        ({"grow": {"model.body": names}}, {"classes": names}, r"there is model.body.weight \[6, 4"),
        (
            {"grow": {"model.head": names, "model": others}},
            {"classes": names, "others": others},
            "grow gives model.head.weight to classes and to others",
        ),
    ]
    for options, objects, message in cases:
        with pytest.raises(errors.UsageError, match=message):
            onward.open(tmp_path / "out", model=model, **objects, **options)
    assert not (tmp_path / "out").exists()


def test_rows_that_change_places_need_an_exact_name(tmp_path: Path) -> None:
    """Two layers of as many rows under one name: which of them has a row per class?"""

    def opened(names: Names, path: str) -> onward.Run:
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        return onward.open(tmp_path, model=model, classes=names, grow={path: names})

    run = opened(Names(["a", "b", "c"]), "model")
    run.step()
    run.finish()
    turned = Names(["c", "b", "a"])
    with pytest.raises(errors.Mismatch, match=r"whose rows are meant.*\n.*name each tensor"):
        opened(turned, "model")
    opened(turned, "model.1").close()


def test_tied_tables_grow_together(tmp_path: Path) -> None:
    """An embedding that is also the head is one table with one set of moments."""

    def learn(present: list[str]) -> tuple[Any, Any, torch.Tensor]:
        words = onward.names(tmp_path, "words", present)
        torch.manual_seed(len(words))
        model: Any = nn.ModuleDict(
            {"embedding": nn.Embedding(len(words), 3), "out": nn.Linear(3, len(words), bias=False)}
        )
        model["out"].weight = model["embedding"].weight
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        run = onward.open(
            tmp_path, model=model, optimizer=optimizer, words=words, grow={"model.out": words}
        )
        began = model["out"].weight.detach().clone()
        assert model["out"].weight is model["embedding"].weight
        model["out"](model["embedding"](torch.arange(len(words)))).logsumexp(1).sum().backward()
        optimizer.step()
        run.step()
        run.finish()
        return model, optimizer, began

    first, optimizer, _ = learn(["a", "b"])
    second, other, began = learn(["c", "d"])
    assert torch.equal(began[:2], first["out"].weight)
    assert began.shape == (4, 3)
    moments = [
        o.state[m["out"].weight]["exp_avg"] for m, o in ((first, optimizer), (second, other))
    ]
    assert [tuple(moment.shape) for moment in moments] == [(2, 3), (4, 3)]


def test_onward_names_chooses_as_open_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output, verb and checkpoint come from the environment or the call, like there."""
    assert list(onward.names(tmp_path / "none", "classes", ["b", "a", "b"])) == ["b", "a"]
    assert not (tmp_path / "none").exists()
    with pytest.raises(errors.UsageError, match="needs an output"):
        onward.names(None, "classes", CLASSES)
    increment(tmp_path, CLASSES * 2)
    first = open_repository(open_store(tmp_path)).history.latest()
    assert first is not None
    increment(tmp_path, CLASSES * 2 + TEN)
    assert list(onward.names(tmp_path, "classes", ["new"])) == [*TEN, "new"]
    earlier = onward.names(tmp_path, "classes", ["new"], checkpoint=first.checkpoint)
    assert list(earlier) == [*CLASSES, "new"]
    with pytest.raises(errors.WrongVerb):
        onward.names(tmp_path, "classes", [], verb="resume")
    with pytest.raises(errors.UnknownCheckpoint):
        onward.names(tmp_path, "classes", [], checkpoint="feed")
    with pytest.raises(errors.UsageError, match="has them under 'classes'"):
        onward.names(tmp_path, "model", [])
    monkeypatch.setenv("ONWARD_OUTPUT", str(tmp_path))
    monkeypatch.setenv("ONWARD_CHECKPOINT", first.checkpoint)
    for place in (None, tmp_path):
        assert list(onward.names(place, "classes", ["new"])) == [*CLASSES, "new"]
    monkeypatch.setenv("ONWARD_VERB", "resume")
    with pytest.raises(errors.WrongVerb):
        onward.names(None, "classes", [])


def test_damaged_names_are_damage(tmp_path: Path) -> None:
    """Refused, or passed over for the next intact checkpoint where that is asked for."""
    increment(tmp_path, CLASSES * 2)
    increment(tmp_path, CLASSES * 2 + TEN, save_every_epoch=False)
    repository = open_repository(open_store(tmp_path))
    newest = repository.history.latest()
    assert newest is not None
    manifest = repository.manifest(newest)
    text = next(t for t in manifest.tensors if t.path.startswith("classes/text"))
    range_ = text.parts[0].range  # type: ignore[union-attr]
    path = tmp_path / pack_key(range_.pack)
    data = bytearray(path.read_bytes())
    data[range_.offset] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(errors.Damaged):
        onward.names(tmp_path, "classes", [])
    with pytest.raises(errors.Damaged):
        Script(Names(TEN)).open(tmp_path)
    classes = onward.names(tmp_path, "classes", ["more"], on_damage="fall-back")
    assert list(classes) == [*CLASSES, "more"]
    script = Script(classes)
    run = script.open(tmp_path, on_damage="fall-back")
    assert (run.verb, run.increment) == ("continue", 2)
    run.close()


def test_names_are_read_without_a_framework(tmp_path: Path) -> None:
    """`onward.names` must be quick: it imports no torch."""
    increment(tmp_path, CLASSES * 2)
    code = (
        "import onward, sys, json\n"
        f"names = onward.names({str(tmp_path)!r}, 'classes', ['é'])\n"
        "print(json.dumps([list(names), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[*CLASSES, "é"], False]


@pytest.fixture
def machine(
    seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Makes this process look like another machine: an empty home of working copies."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    return lambda name: monkeypatch.setenv("ONWARD_HOME", str(tmp_path / name))


@pytest.mark.servers
def test_growth_on_an_object_store(seaweedfs: S3Server, machine: Callable[[str], None]) -> None:
    """The names come from the output itself: another machine grows the model."""
    url = seaweedfs.url("growth")
    machine("one")
    before, _ = increment(url, CLASSES * 2)
    machine("two")
    assert list(onward.names(url, "classes", TEN)) == TEN
    script = Script(onward.names(url, "classes", TEN))
    run = script.open(url)
    assert run.verb == "continue"
    assert torch.equal(script.model.head.weight[:8], before.model.head.weight)
    script.train(run, CLASSES * 2 + TEN)
    machine("three")
    assert list(onward.names(url, "classes", [])) == TEN


@pytest.mark.servers
@pytest.mark.parametrize(
    ("how", "pushed"), [({}, 2), ({"stop": 4}, 0)], ids=["finished", "unfinished"]
)
def test_names_of_checkpoints_that_were_left_behind(
    seaweedfs: S3Server,
    machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, int],
    pushed: int,
) -> None:
    """What a killed run did not push is pushed by the next, and its rows count already before."""
    place = f"left-behind-{len(how)}-{pushed}"
    url = seaweedfs.url(place)
    machine("one")
    increment(url, CLASSES * 2)
    if pushed:
        increment(url, CLASSES * 2 + TEN, stop=pushed)
    remote = open_repository(seaweedfs.store(place))
    before = remote.history.seq
    gc.collect()  # a process that ended would hold its working copy no more
    folder, _, writer = claim_working_copy(
        url, "killed", single_writer=False, checkpoint="", fall_back=False, say=print
    )
    monkeypatch.setenv("ONWARD_OUTPUT", str(folder.output))
    monkeypatch.setenv("ONWARD_OUTPUT_URL", parse(url).url)
    monkeypatch.setenv("ONWARD_CLAIM", f"{writer.writer}:{writer.generation}")
    increment(url, CLASSES * 2 + TEN, **how)  # and never pushed
    for name in ("ONWARD_OUTPUT", "ONWARD_OUTPUT_URL", "ONWARD_CLAIM"):
        monkeypatch.delenv(name)
    folder.release()
    claimed = remote.refresh().seq
    assert claimed == before + 1
    assert list(onward.names(url, "classes", [])) == TEN
    assert remote.refresh().seq == claimed  # nothing was touched
    labels = CLASSES * 2 + TEN + TWELVE[-1:]
    if how:
        assert onward.names(url, "classes", labels).later == ("class 10",)
        _, run = increment(url, CLASSES * 2 + TEN)
        assert (run.verb, run.increment) == ("resume", 2)
    script, run = increment(url, labels)
    assert (run.verb, run.increment) == ("continue", 3)
    assert list(script.classes) == [*TEN, "class 10"]
