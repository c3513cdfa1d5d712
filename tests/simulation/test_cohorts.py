"""Cohorts that somebody else chooses: any order, any integers, no mistakes."""

import numpy as np
import pytest

from tests import helpers
from tests.helpers import assert_trees_equal

CHOSEN = (6, 1, 3)


def after(chosen):
    toy = helpers.toy("fedgh", sample=lambda round: chosen)
    state, played = toy.make()(toy.init())
    return state, played.fetch()


@pytest.fixture(scope="module")
def usual():
    return after(np.sort(np.array(CHOSEN)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        list(CHOSEN),
        CHOSEN,
        np.array(CHOSEN, np.uint8),
        np.array(CHOSEN, np.int32)[::-1],
    ],
    ids=["list", "tuple", "uint8", "reversed"],
)
def test_neither_order_nor_type_of_a_chosen_cohort_changes_a_bit(chosen, usual):
    state, played = after(chosen)
    np.testing.assert_array_equal(played.cohort, [1, 3, 6])
    assert_trees_equal(state, usual[0])
    assert_trees_equal(played.metrics, usual[1].metrics)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([1, 3, 1], "list of different client ids"),
        ([1.0, 2.5], "whole numbers"),
        ([[1, 2]], "list of different client ids"),
        ([True, False], "whole numbers"),
        ([-1, 2], "at least 0 and below 8"),
        ([1, 8], "at least 0 and below 8"),
        ([0, 1, 2, 3, 4, 5], "at most 5 ids"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(chosen, words):
    with pytest.raises(ValueError, match=words):
        after(chosen)
