"""Aggregations of uploads are named when a method is built."""

import pytest

from fedjax_mrl import algorithms
from tests.algorithms.tiny import Tiny


@pytest.mark.parametrize("name", ["fedkd", "fedapen", "fml"])
def test_an_unknown_aggregation_is_refused(name):
    assert name in algorithms.names()
    with pytest.raises(ValueError, match=r"mean, uniform, last_client; got 'median'"):
        Tiny(name, aggregation="median")
