"""`onward verify`: damage is found, named, and told from mere leftovers."""

from __future__ import annotations

from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats


def test_an_intact_output_is_said_to_be_intact(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    output.chain(3)
    assert "intact" in onward("verify", output.url).stdout
    found = as_json("verify", output.url, "--every-byte")
    assert (found["intact"], found["checkpoints"]) == (True, 3)
    assert found["bytes_read"] > 0


def test_a_flipped_bit_is_found_and_the_tensor_named(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """Lengths do not tell; every byte does: which checkpoint, which tensor, and where to go."""
    first, second, third = output.chain(3)
    (range_,) = next(
        t for t in output.repository.manifest(second).tensors if t.path == "model/w"
    ).ranges()
    output.flip(output.file("packs", f"{range_.pack}.safetensors"), range_.offset)

    onward("verify", output.url)
    text = onward("verify", output.url, "--every-byte", code=1).stdout
    found = as_json("verify", output.url, "--every-byte", code=1)

    assert "damaged" in text
    assert f"v2 {second.checkpoint}  step 20" in text
    assert "tensor model/w is damaged" in text
    assert f"the newest intact one, v3 {third.checkpoint}" in text
    assert [entry["checkpoint"] for entry in found["damaged"]] == [second.checkpoint]
    onward("verify", output.url, first.checkpoint, "--every-byte")
    onward("verify", output.url, "v2", "--every-byte", code=1)


def test_a_truncated_pack_is_found_by_its_length(onward: Onward, output: Output) -> None:
    (only,) = output.chain(1)
    (pack,) = output.repository.manifest(only).packs
    path = output.file("packs", f"{pack}.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    text = onward("verify", output.url, code=1).stdout
    assert pack in text
    assert "it holds model/" in text
    assert "restore the damaged files" in text


def test_a_damaged_record_is_reported_with_what_stands_before_it(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """The log breaks off: what can be checked is checked; other commands refuse, typed."""
    output.chain(3)
    path = output.file("log", f"{4:020d}.json")
    path.write_bytes(path.read_bytes()[:50])

    found = as_json("verify", output.url, code=1)

    assert found["checkpoints"] == 2
    assert found["damaged"][0]["checkpoint"] is None
    assert "log record 4" in found["damaged"][0]["reasons"][0]
    assert "the repository itself" in onward("verify", output.url, code=1).stdout
    assert "log record 4" in onward("log", output.url, code=1).stderr
    assert "log record 4" in onward("verify", output.url, "v1", code=1).stderr


def test_a_hostile_record_is_damage_not_a_crash(onward: Onward, output: Output) -> None:
    """Nesting, duplicate keys, other versions, text that is no JSON: one line each."""
    output.chain(1)
    path = output.file("log", f"{2:020d}.json")
    for hostile in (b"[" * 100_000, b'{"format":1,"format":1}', b'{"format":"x"}', b"\xff\xfe"):
        path.write_bytes(hostile)
        assert "log record 2" in onward("log", output.url, code=1).stderr
    path.write_bytes(b'{"format":4}')
    assert "upgrade onward" in onward("log", output.url, code=1).stderr


def test_leftovers_are_information(onward: Onward, as_json: AsJson, output: Output) -> None:
    output.save({"model": {"w": floats(1)}})
    output.file("packs", f"{'a' * 32}.safetensors").write_bytes(b"cut off")
    text = onward("verify", output.url).stdout
    assert "1 leftover" in text
    assert "harmless" in text
    assert as_json("verify", output.url)["leftovers"] == [
        f"onward/packs/{'a' * 32}.safetensors"
    ]  # fmt: skip
