"""Every byte of what MindSpore trained changed, one at a time: refused, or provably not needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import mindspore as ms
import pytest
from benchmarks.mindspore_bit_flips import (
    AS_SAVED,
    REFUSED,
    WRONG,
    Files,
    Ours,
    Theirs,
    Training,
    filled,
    flipped,
    outcomes,
)

import onward
from onward.errors import OnwardError
from onward.repository import filling, open_repository, verify
from onward.repository import log as log_module
from tests.repository.outputs import FULL


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    """A network, its Adam, randomness and a loader in the middle of a shuffled epoch."""
    ms.set_context(pynative_synchronize=True)
    return Ours(tmp_path_factory.mktemp("whole") / "output")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quicker, where there is nothing to wait for."""
    monkeypatch.setattr(log_module, "_THREADS", 1)
    monkeypatch.setattr(filling, "_THREADS", 1)


# Of the manifest, whose digest is one for all its bytes, a part is enough.
@pytest.mark.parametrize(("within", "every"), [("/packs/", 7), ("/manifests/", 19), ("/log/", 3)])
@pytest.mark.timeout(3000 if FULL else 300)
def test_flipped_bits(ours: Ours, within: str, every: int) -> None:
    """No flip restores anything else than what was saved; what is not read, `verify` sees."""
    found: Counter[str] = Counter()
    for what, changed in flipped(ours.files, every=0 if FULL else every, within=within):
        outcome = ours.outcome(changed)
        found[outcome] += 1
        assert outcome != WRONG, what
        if outcome == AS_SAVED:
            assert within == "/packs/", f"{what}: only the header of a pack is not read"
            assert not _verified(changed), f"{what}: `verify` sees nothing"
    assert found[REFUSED] > 100


def test_flips_seen_by_a_script_that_opens_its_output_again(ours: Ours, tmp_path: Path) -> None:
    """`onward.open` raises for a flip of anything that it reads, and else restores every bit."""
    found: Counter[str] = Counter()
    assert _opened(ours.files, tmp_path / "whole") == ours.saved
    for number, (what, changed) in enumerate(flipped(ours.files, every=499)):
        try:
            values = _opened(changed, tmp_path / str(number))
        except OnwardError:
            found[REFUSED] += 1
            continue
        assert values == ours.saved, what
        assert "/packs/" in what
    assert found[REFUSED] >= 20


def test_a_reader_that_checks_less_is_found_out(
    ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above has teeth: without the digests of tensors, flips are loaded."""
    monkeypatch.setattr(filling, "_agrees", lambda hasher, digest: True)
    flips = flipped(ours.files, every=5, within="/packs/")
    assert any(ours.outcome(changed) == WRONG for _, changed in flips)


def test_what_is_said_of_mindspores_own_files(tmp_path: Path) -> None:
    """Without its CRC most flips of a `.ckpt` are loaded, with it none is, as the docs say."""
    found = {}
    for crc in (False, True):
        place = tmp_path / str(crc)
        place.mkdir()
        theirs = Theirs(place, form="ckpt", crc=crc)
        found[crc] = outcomes(theirs, [f for _, f in flipped(theirs.files, every=29)])
    assert found[False][WRONG] > found[False].total() / 2
    assert found[True] == {REFUSED: found[True].total()}


def _verified(files: Files) -> bool:
    return verify(open_repository(filled(files)), every_byte=True).intact


def _opened(files: Files, folder: Path) -> dict[str, bytes]:
    """What a script holds that opens an output of these files."""
    for key, data in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    training = Training(seed=2)
    run = onward.open(str(folder), **training.objects(), save_every_seconds=None)
    run.close()
    return training.values()
