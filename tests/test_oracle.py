"""The small copies of the oracle's cases stand for the full ones."""

from fractions import Fraction

import numpy as np
import pytest

from tests import oracle


@pytest.mark.parametrize("name", oracle.NAMES)
def test_a_small_copy_is_that_of_the_full_case(name):
    if not oracle.full(name).exists():
        pytest.skip("the full cases are not here")
    expected = oracle.small(oracle.full(name))
    found = oracle.load(oracle.FIXTURES / f"{name}.npz")
    assert set(found) == set(expected) and len(found) > 90
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_there_is_a_copy_of_every_case_and_a_test_never_loops_over_none():
    there = {path.stem for path in oracle.FIXTURES.glob("*.npz")}
    assert there == set(oracle.NAMES)
    assert all(len(oracle.cases(name)) == 1 for name in oracle.NAMES)
    if oracle.full("fedmrl").parent.is_dir():
        full = {path.stem for path in oracle.full("fedmrl").parent.glob("*.npz")}
        assert full == set(oracle.NAMES)


def test_a_projection_sees_one_wrong_number_and_two_that_are_swapped():
    tensor = np.random.default_rng(0).normal(size=(4, 5))
    right = oracle.projections(tensor)
    wrong, swapped = tensor.copy(), tensor.copy()
    wrong[2, 3] += 1e-3
    swapped[[0, 1]] = swapped[[1, 0]]
    for other in (wrong, swapped, tensor.T):
        assert abs(oracle.projections(other) - right).max() > 1e-4


def test_a_projection_is_the_exact_sum_rounded_once_so_that_machines_agree():
    tensor = np.random.default_rng(1).normal(size=(7, 9)) * np.logspace(-9, 9, 9)
    for odd, found in zip(oracle.HASHES, oracle.projections(tensor), strict=True):
        exact = sum(
            Fraction(float(value * (position * odd % 2**32 / 2**31 - 1)))
            for position, value in enumerate(tensor.ravel().tolist(), start=1)
        )
        assert found == float(exact)
