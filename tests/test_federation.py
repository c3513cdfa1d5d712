"""A federation built from a configuration: what it refuses and what it counts."""

import functools
import itertools

import numpy as np
import pytest

from fedjax_mrl import programs
from fedjax_mrl.building.splits import hold_out
from fedjax_mrl.config import ConfigError
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.federation import Federation
from fedjax_mrl.partitions import Partition, PartitionError
from fedjax_mrl.simulation.state import ConsumedError
from fedjax_mrl.stores import host as rows

WIDE = True  # its hidden layer is 512 wide, as users have it
PIXELS, HIDDEN, WIDTH, SHARED, CLASSES = 16, 512, 6, 4, 3
SIZES = (10, 4, 7)


@functools.cache
def dataset():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (30, 4, 4, 1)).astype(np.uint8)
    y = (np.arange(30) % CLASSES).astype(np.int32)
    return Dataset("toy", x, y, x, y, ("a", "b", "c"), (0.5,), (0.25,), "none")


def partition(*sizes, start=0):
    parts = np.split(np.arange(start, 30, dtype=np.int32), np.cumsum(sizes))[:-1]
    return Partition(tuple(parts), tuple(parts))


def federation(algorithm="fedmrl", made=None, **options):
    if algorithm == "fedmrl":
        options.setdefault("shared_dim", SHARED)
    return Federation(
        dataset=dataset(),
        partition=made or partition(*SIZES),
        **{
            "algorithm": algorithm,
            "models": ("mlp",),
            "shared_model": "mlp",
            "feature_dim": WIDTH,
            "num_clients": 3,
            "batch_size": 4,
            **options,
        },
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (partition(4, 4), "one train part a client, but .* has 2 for 3 clients"),
        (partition(4, 4, 4, 4), "has 4 for 3 clients"),
        (partition(4, 0, 4), "a training image, but .* the client 1 has none"),
        (
            partition(4, 4, 4)._replace(test=partition(4, 4, 4).test[::-1][:2]),
            "one test part a client",
        ),
        (
            Partition(*[tuple(p + 20 for p in partition(4, 4, 4).train)] * 2),
            r"in \[0, 30\), but .* reach from 20 to 31",
        ),
        (Partition(*[(np.arange(4, dtype=np.int32),) * 3] * 2), "may occur twice"),
    ],
)
def test_a_given_partition_that_does_not_fit_is_refused(made, message):
    with pytest.raises(PartitionError, match=message):
        federation(made=made)


# Multiply-adds of one example in one network: forward, and by the weights backward;
# by the inputs it is all layers but the first.
def layers(*widths):
    return [a * b for a, b in itertools.pairwise(widths)]


def test_flops_of_a_visit_are_those_of_the_network_times_the_examples():
    products = layers(PIXELS, HIDDEN, WIDTH, CLASSES)
    an_example = 2 * (2 * sum(products) + sum(products[1:]))
    found = federation("standalone", epochs=3).flops()
    np.testing.assert_allclose(found, 3 * an_example * np.array(SIZES))


def test_flops_of_fedmrl_are_those_of_three_networks():
    small = layers(PIXELS, HIDDEN, SHARED)
    large = layers(PIXELS, HIDDEN, WIDTH)
    after = [(SHARED + WIDTH) * WIDTH, WIDTH * CLASSES, SHARED * CLASSES]
    products = [*small, *large, *after]
    inputs = [*small[1:], *large[1:], *after]
    an_example = 2 * (2 * sum(products) + sum(inputs))
    # Heads of the single networks are in the trace, but training does not read them.
    found = federation().flops()
    np.testing.assert_allclose(found, an_example * np.array(SIZES))


@pytest.mark.parametrize("algorithm", ["fedkd", "fedproto", "fedmrl"])
def test_flops_do_not_depend_on_how_examples_are_cut_into_minibatches(algorithm):
    # What a visit does once, as compressing an update, is counted once.
    found = [federation(algorithm, batch_size=b).flops() for b in (1, 64)]
    np.testing.assert_allclose(*found)
    # Work is a constant and a share for each example.
    slopes = np.diff(found[0]) / np.diff(SIZES)
    np.testing.assert_allclose(slopes[0], slopes[1])


def test_what_is_held_out_is_a_share_of_every_clients_examples():
    train = partition(20, 1, 3, 6).train
    rest, kept = hold_out(train, 0.25, seed=0)
    assert [part.size for part in kept] == [5, 0, 1, 2]
    for whole, a, b in zip(train, rest, kept, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate([a, b])), whole)
        assert (np.diff(a) > 0).all()
    again, other = hold_out(train, 0.25, seed=0)[1], hold_out(train, 0.25, seed=1)[1]
    np.testing.assert_array_equal(kept[0], again[0])
    assert not np.array_equal(kept[0], other[0])
    assert [part.size for part in hold_out(train, 0.0, seed=0)[1]] == [0] * 4


def test_another_seed_changes_the_weights_but_not_the_split():
    made = federation("standalone")
    other = made.with_trial(3)
    assert (made.config.seed, other.config.seed) == (0, 3)
    assert other.partition is made.partition and other.train is made.train
    fresh = federation("standalone", seed=3)
    kernels = [
        np.array(f.init().clients["mlp"][0].private.header["kernel"])
        for f in (made, other, fresh)
    ]
    assert not np.array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[1], kernels[2])
    assert np.array_equal(
        made.init().clients["mlp"][0].private.header["kernel"], kernels[0]
    )


@pytest.mark.parametrize(
    "change",
    [{"dataset": "cifar10"}, {"partition": "iid"}, {"num_clients": 2}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_keep_the_data_and_their_split(change):
    built = federation()
    (name,) = change
    with pytest.raises(ConfigError, match=f"that {name} cannot be changed; got"):
        built.with_settings(**change)
    same = {name: getattr(built.config, name)}
    assert built.with_settings(**same, epochs=2).config.epochs == 2


def test_after_a_round_that_was_interrupted_nothing_is_computed_from_its_state(
    monkeypatch,
):
    built = federation("fedavg", client_store="host", rounds=3)
    (first,) = built.rounds(until=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rows.Rows, "_set", interrupted)
        with pytest.raises(KeyboardInterrupt):
            built.fit()
    assert built.state.round == first.state.round == 1
    for ask in (built.fit, built.evaluate, lambda: built.predict(dataset().x_test)):
        with pytest.raises(ConsumedError, match="interrupted or failed, begin again"):
            ask()
    built.state = built.init()
    assert len(built.fit()) == 3


@pytest.mark.parametrize("algorithm", ["standalone", "fedmrl"])
def test_federations_with_one_folder_do_not_touch_each_others_states(
    algorithm, tmp_path
):
    one = federation(algorithm, client_store="disk", client_folder=tmp_path)
    one.fit(2)
    digest, _ = one.digester()(one.state)
    one.arrays(one.state)  # from here on states are read from the files
    one.with_settings(learning_rate=0.1).fit(3)
    assert one.digester()(one.state)[0] == digest


def test_rounds_may_be_a_whole_number_of_numpy_and_flops_are_counted_once(monkeypatch):
    built = federation("standalone")
    assert len(built.fit(np.int64(1))) == 1
    counted = built.flops()
    monkeypatch.setattr(programs.visit_flops, "visit_flops", None)
    assert built.flops() is counted
