"""When a job need not start: the newest checkpoint has learned all of the very same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onward.jobs.newness import nothing_new
from onward.training.opening import Asked
from tests.cli.outputs import Output
from tests.data.ledgers import keyed, learned, state_with


def finished(folder: Path, **facts: Any) -> Output:
    """An increment that is over, which learned two items of one snapshot."""
    output = Output(folder)
    state = state_with(train=learned(keyed({"a": 1, "b": 2})).state_dict())
    about = {"data_snapshot": "same", "data": {"train": facts}}
    output.save(state, finished=True, about=about)
    output.repository.refresh()
    return output


def test_all_of_the_same_data_is_nothing_new(tmp_path: Path) -> None:
    output = finished(tmp_path / "out", items=3, held_out=1)
    assert nothing_new(Asked(), output.repository, "same") is not None
    assert nothing_new(Asked(), output.repository, "other") is None


@pytest.mark.parametrize("facts", [{"items": 3}, {"items": 4, "held_out": 1}, {}])
def test_what_was_not_met_is_still_to_be_learned(tmp_path: Path, facts: dict[str, int]) -> None:
    """Items that came while the increment was interrupted, or that its budget never met."""
    output = finished(tmp_path / "out", **facts)
    assert nothing_new(Asked(), output.repository, "same") is None
