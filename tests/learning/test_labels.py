"""Labels outside of the head are named, and what to do about them."""

from __future__ import annotations

import numpy as np
import pytest

from onward.errors import DataError, UnknownLabel
from onward.learning.labels import check_labels


@pytest.mark.parametrize("labels", [[], [0, 1, 2], [[2], [0]], np.array([2], np.uint8)])
def test_labels_that_are_outputs_pass(labels):
    """Of any shape and width."""
    check_labels(np.asarray(labels), 3)


def test_labels_beyond_the_head_are_listed_with_the_way_out():
    """Each once, and how far the head must grow."""
    with pytest.raises(UnknownLabel, match="no output for: 3, 7") as caught:
        check_labels(np.array([0, 7, 3, 7]), 3)
    assert caught.value.labels == [3, 7]
    assert "grow=" in caught.value.do
    assert "at least 8 outputs" in caught.value.do


def test_labels_below_zero_are_listed_too():
    """Growing does not help them, and the message says so."""
    with pytest.raises(UnknownLabel) as caught:
        check_labels(np.array([-100, 0]), 3)
    assert caught.value.labels == [-100]
    assert caught.value.do == "Leave items with labels below 0 out of the data."


def test_a_thousand_unknown_labels_make_a_short_message():
    """The first ten, and how many more."""
    with pytest.raises(UnknownLabel, match="and 990 more"):
        check_labels(np.arange(10, 1010), 10)


@pytest.mark.parametrize("labels", [np.array([0.0, np.nan]), np.array(["cat"])])
def test_labels_that_are_no_whole_numbers_are_refused(labels):
    """They cannot be the number of an output."""
    with pytest.raises(DataError, match="type"):
        check_labels(labels, 3)
