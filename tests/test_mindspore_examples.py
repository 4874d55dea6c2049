"""The example in MindSpore, by the same laws as the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_examples import (
    IN_MINDSPORE,
    Example,
    check_that_deleted_images_are_remembered,
    check_that_it_goes_on_and_grows,
)


@pytest.mark.parametrize("name", IN_MINDSPORE)
def test_the_same_command_goes_on_with_new_data_and_grows(name: str, tmp_path: Path) -> None:
    """The second run goes on, has more rows, and scores old and new holdouts; then nothing is new.

    By `onward run` and as an ordinary script, at one output.
    """
    check_that_it_goes_on_and_grows(Example(name, tmp_path))


def test_images_that_are_deleted_are_remembered(tmp_path: Path) -> None:
    """With a memory the old files may go; of what is remembered, all classes are replayed."""
    check_that_deleted_images_are_remembered(Example("mindspore_vision", tmp_path))
