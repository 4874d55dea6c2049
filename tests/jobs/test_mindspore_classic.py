"""The tutorials' MindSpore script, which knows nothing of Onward, under `onward run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import CheckpointConfig, Model, ModelCheckpoint

from onward.jobs.numbers import choose_latest
from onward.jobs.series import version_of
from onward.jobs.torn import format_is_known, why_torn
from tests.jobs.bench import Bench
from tests.jobs.classic import EXAMPLES, Classic, code_without_docstring, write_npz

NAME = "mindspore_classic.py"
SMALL = ("--batch_size", "8", "--epochs")


def test_it_knows_nothing_of_onward_and_is_short() -> None:
    """Code without a trace of it; at most 120 lines or so."""
    assert "onward" not in code_without_docstring(EXAMPLES / NAME)
    assert len((EXAMPLES / NAME).read_text().splitlines()) <= 122


@pytest.mark.servers
def test_another_machine_goes_on_from_the_last_of_the_last_start(
    bench: Bench, s3_url: Callable[[str], str]
) -> None:
    """Three starts, each on another machine: epoch 12, a restart that ends at 1, and all."""
    write_npz(bench.data, 16)
    classic = Classic(NAME, bench, s3_url)
    out, _ = classic.run(*SMALL, "12")
    assert "loaded" not in out
    assert {"net-8_2.ckpt", "net-9_2.ckpt", "net-12_2.ckpt"} <= classic.at_store()
    classic.forget_this_machine()

    out, err = classic.run(*SMALL, "1")
    assert "loaded net-12_2.ckpt" in out
    assert "plain files: net-12_2.ckpt (epoch 12, step 2), not net-11_2.ckpt" in err
    assert {"net-12_2.ckpt", "net_1-1_2.ckpt"} <= classic.here()
    first, second = (parameters(classic, key) for key in ("net-12_2.ckpt", "net_1-1_2.ckpt"))
    assert (first["global_step"].item(), second["global_step"].item()) == (24, 26)
    assert np.any(first["moments.head.weight"])
    classic.forget_this_machine()

    chosen = {file["key"] for file in classic.plan()["files"]["fetch"]}
    assert "net_1-1_2.ckpt" in chosen
    assert "net-12_2.ckpt" not in chosen
    out, _ = classic.run(*SMALL, "1", predownload="all")
    assert "loaded net_1-1_2.ckpt" in out
    assert "net_2-1_2.ckpt" in classic.at_store()


def parameters(classic: Classic, key: str) -> dict[str, np.ndarray]:
    path = classic.bench.folder / key
    path.write_bytes(classic.store.read(key))
    return {name: p.asnumpy() for name, p in mindspore.load_checkpoint(str(path)).items()}


class Counting(nn.Cell):
    """One parameter; its loss is no function of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Dense(1, 1)

    def construct(self, x: mindspore.Tensor, _: mindspore.Tensor) -> mindspore.Tensor:
        return self.dense(x).mean()


def start(folder: Path, prefix: str, *, epochs: int = 1, **config: object) -> str:
    """One start of a script; the file that it wrote last."""
    net = Counting()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    x = np.ones((4, 1), np.float32)
    data = mindspore.dataset.NumpySlicesDataset((x, x), ["x", "y"], shuffle=False).batch(2)
    saving = ModelCheckpoint(
        prefix, str(folder), CheckpointConfig(save_checkpoint_steps=1, **config)
    )
    Model(net, optimizer=optimizer).train(epochs, data, callbacks=[saving])
    return Path(saving.latest_ckpt_file_name).name


@pytest.mark.parametrize("prefix", ["net", "resnet50", "resnet_50", "CKP", "a-1_2", "v2.5_1"])
def test_what_mindspore_wrote_last_is_chosen_however_often_it_starts(
    tmp_path: Path, prefix: str
) -> None:
    """Its own naming, of prefixes that end in numbers too, longer and shorter than before."""
    for epochs in (3, 2, 1, 1):
        last = start(tmp_path, prefix, epochs=epochs, keep_checkpoint_max=2)
        keys = [path.name for path in tmp_path.glob("*.ckpt")]
        assert choose_latest(keys).chosen == [last]
    assert len({version_of(path.name).series for path in tmp_path.glob("*.ckpt")}) == 1


@pytest.mark.parametrize("crc", [False, True])
def test_a_checkpoint_of_mindspore_that_was_cut_off_is_torn(tmp_path: Path, crc: bool) -> None:
    """Wherever it was cut, but for the places between two parameters: there nobody can tell."""
    path = tmp_path / start(tmp_path, "net", crc_check=crc)
    whole = path.read_bytes()
    names = mindspore.load_checkpoint(str(path)).keys()
    path.chmod(0o600)
    assert why_torn(path) == ""
    assert format_is_known(path)
    unseen = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if not why_torn(path):
            unseen.append(length)
    assert len(unseen) == len(names) - (not crc)
