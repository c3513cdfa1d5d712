"""Reports of a cohort in its order, without uploads that do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import sharding, tree
from fedjax_mrl.simulation import gathering
from fedjax_mrl.simulation.visit import Report
from fedjax_mrl.stores import PADDING_ROW

K = 6


def reports(first, number):
    """Those of a wave: each number tells whose it is."""
    ids = np.arange(first, first + number, dtype=np.float32)
    stack = np.tile(ids[:, None], (1, 3))
    return Report(
        bytes_up=ids,
        finite={"upload": ids > 0},
        metrics={"total": 10 * ids},
        sound=np.ones(number, bool),
        upload={"w": stack, "n": ids.astype(np.int32)},
    )


@pytest.fixture(params=[gathering.InMemory, gathering.OnDevices])
def gather(request):
    def of(waves, reject=False):
        """Gathers waves of places, counts and reports."""
        gatherer, gathered = request.param(K, reject, sharding.mesh(1)), None
        for places, counts, report in waves:
            places, counts = np.array(places, np.int32), np.array(counts, bool)
            gathered = gatherer.add(gathered, places, counts, report)
        done = gatherer.done(gathered)
        assert {leaf.sharding for leaf in jax.tree.leaves(done)} == {gatherer.place}
        return jax.device_get(done)

    return of


def test_reports_stand_in_the_order_of_the_cohort(gather):
    waves = [
        ([4, 0, PADDING_ROW], [True] * 3, reports(1, 3)),  # the third one is nobody
        ([2, 1, PADDING_ROW], [True] * 3, reports(5, 3)),
    ]
    found = gather(waves)
    np.testing.assert_array_equal(found.bytes_up, [2, 6, 5, 0, 1, 0])
    np.testing.assert_array_equal(found.metrics["total"], [20, 60, 50, 0, 10, 0])
    np.testing.assert_array_equal(found.upload["w"][:, 2], [2, 6, 5, 0, 1, 0])
    np.testing.assert_array_equal(found.upload["n"], [2, 6, 5, 0, 1, 0])


@pytest.mark.parametrize("reject", [False, True])
def test_uploads_that_do_not_count_are_zeros_and_the_rest_of_the_report_stays(
    gather, reject
):
    report = reports(1, 3)
    report.upload["w"][1:] = np.nan  # one without a weight, and one that diverged
    report.sound[2] = False
    found = gather([([0, 1, 2], [True, False, True], report)], reject)
    np.testing.assert_array_equal(found.bytes_up[:3], [1, 2, 3])
    np.testing.assert_array_equal(found.sound[:3], [True, True, False])
    np.testing.assert_array_equal(found.upload["w"][:2, 0], [1, 0])
    np.testing.assert_array_equal(found.upload["n"][:3], [1, 0, 0 if reject else 3])
    assert np.isnan(found.upload["w"][2]).all() != reject
    assert not found.upload["w"][3:].any()


def test_on_a_cpu_reports_are_gathered_in_its_memory(monkeypatch):
    mesh = sharding.mesh(1)
    assert isinstance(gathering.make(K, False, mesh), gathering.InMemory)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert isinstance(gathering.make(K, False, mesh), gathering.OnDevices)


FLOATS, COUNTS = np.ones((1, 3), np.float32), np.ones(1, np.int32)


@pytest.mark.parametrize(
    ("upload", "told"),
    [
        (
            {"w": FLOATS},
            r"\['n'\] is int32\[\] for some clients and missing for others",
        ),
        ({"w": FLOATS, "m": COUNTS}, r"\['m'\] is missing for some"),
        ({"w": FLOATS[:, :1], "n": COUNTS}, r"float32\[3\] .* float32\[1\]"),
        ({"w": np.float64(FLOATS), "n": COUNTS}, r"float32\[3\] .* float64\[3\]"),
    ],
)
def test_reports_of_another_kind_are_refused(upload, told, gather):
    second = reports(3, 1)._replace(upload=upload)
    waves = [([0, 1], [True] * 2, reports(1, 2)), ([2], [True], second)]
    with jax.enable_x64(True), pytest.raises(ValueError, match=told):
        gather(waves)


def test_keys_of_random_numbers_may_be_uploaded():
    keys = jax.random.split(jax.random.key(1), 2)
    report = reports(1, 2)._replace(upload={"k": keys})
    gatherer = gathering.InMemory(K, False, sharding.mesh(1))
    places, counts = np.array([3, 0]), np.ones(2, bool)
    found = gatherer.done(gatherer.add(None, places, counts, report)).upload["k"]
    assert found.dtype == keys.dtype and found.shape == (K,)
    data = np.asarray(jax.random.key_data(found))
    np.testing.assert_array_equal(data[[3, 0]], jax.random.key_data(keys))


def test_a_mean_of_half_precision_counts_all_examples():
    weights = jnp.full(20, 4000, jnp.float32)  # 80,000 are more than float16 knows
    for dtype in (jnp.float16, jnp.bfloat16):
        mean = tree.weighted_mean(jnp.ones((20, 3), dtype), weights)
        assert mean.dtype == dtype
        np.testing.assert_allclose(np.asarray(mean, np.float32), 1, rtol=0.05)
