"""Data that name the client of every example, and data without a test part."""

import json

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import partitions
from fedjax_mrl.cli.main import main
from fedjax_mrl.data import drawn_test
from fedjax_mrl.data.dataset import DatasetError
from fedjax_mrl.partitions import PartitionError

SMALL = {"models": ("mlp",), "shared_model": "mlp", "rounds": 1}
FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1"]


def table(number=120, seed=0):
    """Features of three classes."""
    y = np.arange(number) % 3
    x = np.random.default_rng(seed).normal(size=(number, 4)) + 2 * y[:, None]
    return x, y


def federation(ids, ids_test=None, *, tested=True, **options):
    x, y = table(len(ids))
    test = table(30, seed=1) if tested else (None, None)
    data = fm.arrays(x, y, *test, clients=ids, clients_test=ids_test)
    return fm.Federation(dataset=data, **{**SMALL, "partition": "natural", **options})


def owned(parts, ids):
    """The one id of each part."""
    return [str(*set(np.asarray(ids)[part].tolist())) for part in parts]


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        ([10, 9, 100] * 40, ["9", "10", "100"]),
        (["10", "9", "100"] * 40, ["10", "100", "9"]),
        (np.array([b"b", b"\xc3\xa4", b"a"] * 40), ["a", "b", "ä"]),
        (np.array(["b", "a", "c"] * 40, object)[:, None], ["a", "b", "c"]),
    ],
)
def test_clients_are_those_that_the_data_name_in_the_order_of_their_ids(ids, order):
    built = federation(ids, num_clients=3)
    text = [i.decode() if isinstance(i, bytes) else str(i) for i in np.ravel(ids)]
    assert owned(built.partition.train, text) == order
    assert built.client_names == built.dataset.clients.names == tuple(order)
    assert sorted(np.concatenate(built.partition.train)) == list(range(120))
    for part in built.partition.test:  # without clients_test, one common test set
        assert part is built.partition.test[0] and part.size == 30


def test_every_client_has_its_own_test_part():
    ids, tests = np.arange(120) % 4, np.array([0, 3] * 15)
    built = federation(ids, tests, num_clients=4)
    assert owned([built.partition.test[0], built.partition.test[3]], tests) == [
        "0",
        "3",
    ]
    assert [part.size for part in built.partition.test] == [15, 0, 0, 15]
    assert built.fit(progress=False).rows("clients")


def test_fewer_clients_are_the_first_ones_and_the_user_is_told():
    ids = np.arange(120) % 6
    built = federation(ids, num_clients=2)
    assert owned(built.partition.train, ids) == ["0", "1"]
    assert "the first 2 take part, 0 to 1; --num-clients 6" in built.pieces.notes[0]
    # A limit is of what those have that take part, and they keep their shares.
    limited = federation(ids, num_clients=2, limit_train=12)
    assert [part.size for part in limited.partition.train] == [6, 6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_clients": 7}, "name 6 clients, so 'natural' has no more; got --num-cl"),
        ({"partition": "natural:2"}, "takes no argument"),
        ({"num_clients": 6, "limit_train": 4}, "raise --limit-train"),
        (
            {"partition": "class:2", "num_clients": 4},
            "natural takes these 6",
        ),
    ],
)
def test_a_split_that_cannot_be_is_answered(options, words):
    with pytest.raises(PartitionError, match=words):
        federation(np.arange(120) % 6, **{"num_clients": 2, **options})


def test_another_partition_tells_of_the_clients():
    built = federation(np.arange(120) % 6, partition="iid", num_clients=4)
    assert "--partition natural takes these 6 as clients" in built.pieces.notes[0]
    assert "Now they are split by iid" in built.pieces.notes[0]
    assert built.client_names == ()
    with pytest.raises(PartitionError, match="but these do not; give the array clien"):
        fm.Federation(partition="natural", **SMALL)


@pytest.mark.parametrize(
    ("ids", "ids_test", "words"),
    [
        (None, [0] * 30, "clients_test needs clients"),
        ([0] * 119, None, r"for each of the 120 .*has the shape \[119\]"),
        ([0.5] * 120, None, "whole numbers or text, but is of float64"),
        ([True] * 120, None, "but is of bool"),
        ([None, "a"] * 60, None, "but is of NoneType, str"),
        (np.array([b"\xff"] * 120), None, "no UTF-8"),
        ([0] * 120, ["0"] * 30, "both whole numbers or both text"),
        ([0] * 120, [0, 7, 8] * 10, "2 of clients_test have none in clients: 7, 8"),
    ],
)
def test_ids_that_cannot_be_used_are_refused(ids, ids_test, words):
    x, y = table()
    with pytest.raises(DatasetError, match=words):
        fm.arrays(x, y, *table(30), clients=ids, clients_test=ids_test)


def test_a_test_part_is_drawn_from_every_class_by_the_data_seed():
    x, y = table(100)
    data = fm.arrays(x, y)
    options = {**SMALL, "partition": "iid", "num_clients": 4}
    built = fm.Federation(dataset=data, **options)
    assert np.bincount(built.dataset.y_test).tolist() == [7, 7, 7]
    assert len(built.dataset.y_train) == 79
    both = np.concatenate([built.dataset.x_train, built.dataset.x_test])
    assert sorted(both[:, 0]) == sorted(np.float32(x[:, 0]))
    assert "21 of its 100 examples, 0.2 of every class's" in built.pieces.notes[0]
    again = fm.Federation(dataset=data, seed=7, **options)
    assert again.dataset.sha256() == built.dataset.sha256()
    other = fm.Federation(dataset=data, data_seed=1, test_fraction=0.5, **options)
    assert len(other.dataset.y_test) == 51  # halves go up
    # The same data in another federation are not drawn from again.
    more = other.with_settings(rounds=2)
    assert more.dataset.sha256() == other.dataset.sha256()


def test_without_a_test_part_every_client_gives_some_of_its_own():
    ids = np.repeat(["a", "b", "c"], [100, 19, 1])
    built = federation(ids, tested=False, num_clients=3)
    assert [part.size for part in built.partition.test] == [20, 4, 0]
    assert [part.size for part in built.partition.train] == [80, 15, 1]


def test_a_class_keeps_its_only_example_for_training():
    y = np.array([0, 1] * 10 + [2])
    x = np.arange(21.0)[:, None]
    data = fm.arrays(x, y, clients=[0] * 10 + [1] * 9 + [2, 2])
    for seed in range(4):
        built = fm.Federation(
            dataset=data, partition="natural", num_clients=3, data_seed=seed, **SMALL
        )
        assert 2 in built.dataset.y_train


def test_images_are_normalised_by_the_part_that_is_trained_on():
    x = np.zeros((40, 4, 4), np.uint8)
    x[:] = np.arange(40)[:, None, None]
    built = fm.Federation(
        dataset=fm.arrays(x, np.arange(40) % 2), partition="iid", num_clients=2, **SMALL
    )
    mean = built.dataset.x_train.mean() / 255
    assert built.dataset.mean == pytest.approx((mean,))


@pytest.mark.parametrize(
    ("fraction", "test", "words"),
    [
        (0.0, False, "above 0 and below 1; got 0"),
        (1.0, False, "above 0 and below 1; got 1"),
        (0.5, True, "--test-fraction is for data without a test part"),
    ],
)
def test_a_fraction_that_makes_no_sense_is_refused(fraction, test, words):
    data = fm.arrays(*table(), *(table(30) if test else ()))
    with pytest.raises(ValueError, match=words):
        fm.Federation(dataset=data, test_fraction=fraction, partition="iid", **SMALL)


def test_a_half_of_a_test_part_is_refused():
    x, y = table()
    with pytest.raises(DatasetError, match="there is x_test and no y_test"):
        fm.arrays(x, y, x)
    with pytest.raises(DatasetError, match="none of its 2 examples can be spared"):
        fm.Federation(dataset=fm.arrays(x[:2], y[:2]), **SMALL)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An npz without test part, with ids and an array too many."""
    monkeypatch.chdir(tmp_path)
    x, y = table()
    ids = np.array(["zoë", "al b", "c"])[np.arange(120) % 3]
    np.savez("own.npz", x=x, y=y, clients=ids, spare=1)
    return tmp_path


def test_the_command_line_trains_the_clients_of_a_file(file, capsys):
    flags = [*FLAGS, "--dataset", "own.npz"]
    flags += ["--partition", "natural"]
    assert main(["run", *flags, "--num-clients", "4", "--out", "a"]) == 2
    assert "--num-clients 3" in capsys.readouterr().err
    assert not (file / "a").exists()
    assert main(["run", *flags, "--out", "a"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert "no meaning here: spare" in told[0] and "no test part: 24" in told[1]
    assert len(told) == 2
    with np.load(file / "a" / "partition.npz") as saved:
        assert saved["clients"].tolist() == ["al b", "c", "zoë"]
    assert main(["resume", "a", "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", "a"]) == 0
    assert [part.size for part in fm.load("a").partition.test] == [8, 8, 8]
    assert (
        main(["compare", "--algorithms", "fml", *flags, "--quiet", "--out", "c"]) == 0
    )
    more = ["compare", "--algorithms", "fml", "--seeds", "1", *flags, "--out", "c"]
    assert main([*more, "--quiet"]) == 0  # the same data, so the same comparison
    x, y = table()
    np.savez("own.npz", x=x, y=y, clients=np.arange(120) % 3)  # other ids, the same x
    assert main(["verify", "a"]) == 2
    assert "not those that" in capsys.readouterr().err
    assert (
        json.loads((file / "a" / "config.json").read_text())["partition"] == "natural"
    )


def test_a_saved_split_with_names_is_a_split(file):
    ids = np.arange(120) % 4
    built = federation(ids, num_clients=4)
    partitions.save("p.npz", built.partition, built.client_names)
    other = federation(ids, partition="file:p.npz", num_clients=4)
    assert other.pieces.notes == ()
    for one, two in zip(built.partition.train, other.partition.train, strict=True):
        np.testing.assert_array_equal(one, two)


def test_examples_are_the_same_wherever_the_data_come_from(file, monkeypatch):
    monkeypatch.setattr(drawn_test, "_AT_ONCE", 7)  # of 96
    x, y = table()
    ids = np.array(["zoë", "al b", "c"])[np.arange(120) % 3]
    options = {**SMALL, "partition": "natural", "num_clients": 3}
    given = fm.Federation(dataset=fm.arrays(x, y, clients=ids), **options)
    read = fm.Federation(dataset="own.npz", **options)  # overwritten in place
    assert given.dataset.sha256() == read.dataset.sha256()
    np.testing.assert_array_equal(x, table()[0])  # the user's own is left alone


def test_data_that_were_moved_are_given_again(file, capsys):
    flags = [*FLAGS, "--partition", "iid", "--num-clients", "2", "--quiet"]
    assert main(["run", "--dataset", "own.npz", *flags, "--out", "a"]) == 0
    (file / "new").mkdir()
    (file / "own.npz").rename(file / "new" / "own.npz")
    assert main(["resume", "a", "--rounds", "2"]) == 2
    assert "No such file" in capsys.readouterr().err
    assert fm.load("a", dataset="new/own.npz").state.round == 1
    moved = ["--dataset", "new/own.npz", "--quiet"]
    assert main(["resume", "a", "--rounds", "2", *moved]) == 0
    assert main(["verify", "a"]) == 0
    x, y = table(seed=9)
    np.savez("other.npz", x=x, y=y)
    assert main(["resume", "a", "--rounds", "3", "--dataset", "other.npz"]) == 2
    assert "not those that" in capsys.readouterr().err
    assert main(["resume", "a", "--rounds", "3", "--dataset", "digits"]) == 2
    assert "but these differ: dataset" in capsys.readouterr().err


def test_the_checksum_covers_whose_the_examples_are():
    x, y = table()
    sums = [
        fm.arrays(x, y, *table(30), clients=ids, clients_test=tests).sha256()
        for ids, tests in (
            (None, None),
            (np.arange(120) % 2, None),
            (np.arange(120) % 3, None),
            (np.arange(120) % 3 + 5, None),
            (np.arange(120) % 3, np.zeros(30, int)),
        )
    ]
    assert len({*sums}) == len(sums)
