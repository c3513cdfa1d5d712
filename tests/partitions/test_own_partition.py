"""A split that the user made: every usual form is taken, every other one refused."""

import functools

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import partitions
from fedjax_mrl.cli.main import main
from fedjax_mrl.partitions import Partition, PartitionError
from fedjax_mrl.runs import pictures

N, M = 30, 12
TRAIN = ([3, 1, 2], [9, 7, 20, 8], [5])
TEST = ([11, 0], [4], [1, 2, 3])


def take(split, num_clients=3):
    return partitions.given("mine", split, num_clients, N, M)


def assert_same(a, b):
    for part, other in zip(a, b, strict=True):
        for x, y in zip(part, other, strict=True):
            assert x.dtype == np.int32
            np.testing.assert_array_equal(x, y)


def expected(test=TEST):
    join = lambda parts: tuple(np.array(sorted(p), np.int32) for p in parts)
    return Partition(join(TRAIN), join(test))


@pytest.mark.parametrize(
    "kind",
    [np.int64, np.uint8, np.int16, ">i4", list, tuple, set],
)
@pytest.mark.parametrize("outer", [list, tuple, dict, Partition, "array"])
def test_lists_tuples_dicts_and_all_integer_types_are_one_split(kind, outer):
    def inner(part):
        return (
            kind(part)
            if isinstance(kind, type) and kind in (list, tuple, set)
            else (np.array(part, kind))
        )

    def join(parts):
        found = [inner(part) for part in parts]
        if outer is dict:
            return dict(reversed(list(enumerate(found))))
        if outer == "array":
            held = np.zeros(len(found), object)
            held[:] = found
            return held
        return tuple(found) if outer is Partition else outer(found)

    pair = (join(TRAIN), join(TEST))
    split = Partition(*pair) if outer is Partition else pair
    assert_same(take(split), expected())
    assert_same(take(list(split)), expected())


@pytest.mark.parametrize("train", [TRAIN, list(TRAIN), dict(enumerate(TRAIN))])
def test_without_test_parts_everyone_has_all_test_images(train):
    for split in (train, (train, None), [train, None], (train, np.arange(M)[::-1])):
        found = take(split)
        assert_same(found, expected([range(M)] * 3))
        assert found.test[0] is found.test[2]  # one array, not one a client
    assert_same(take((train, {4, 2})), expected([[2, 4]] * 3))


def test_two_clients_parts_are_no_pair():
    for split in ([[0, 1], [2, 3]], ([0, 1], [2, 3]), np.arange(4).reshape(2, 2)):
        found = take(split, 2)
        assert [part.tolist() for part in found.train] == [[0, 1], [2, 3]]
        assert found.test[0].size == M
    pair = take(([[0, 1], [2, 3]], [[4], [5]]), 2)
    assert [part.tolist() for part in pair.test] == [[4], [5]]


def test_only_training_parts_must_be_disjoint():
    assert_same(take((TRAIN, ([1, 2], [2, 3], []))), expected(([1, 2], [2, 3], [])))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ((([1], [1], [2]), TEST), "train parts of 'mine' the position 1 does"),
        ((([1], [2, 2], [3]), TEST), "train parts of 'mine' the position 2 does"),
        ((TRAIN, ([1, 1], [2], [3])), "test parts of 'mine' the position 1 does"),
        ((TRAIN, [1, 1]), "test parts of 'mine' the position 1 does"),
        (([1], [2]), "one train part a client, but .* 2 for 3 clients"),
        ((TRAIN, TEST[:2]), "one test part a client, but .* 2 for 3 clients"),
        (([-1], [2], [3]), r"in \[0, 30\), but .* reach from -1 to 3"),
        (([1], [2], [30]), r"in \[0, 30\), but .* reach from 1 to 30"),
        ((TRAIN, [12]), r"in \[0, 12\), but the test parts .* from 12 to 12"),
        (([2**40], [2], [3]), "train part of client 0 reaches from 1099511627776"),
        (([1.0], [2.0], [3.0]), "part of client 0 is of float64; convert it"),
        ((["1"], ["2"], ["3"]), "part of client 0 is of <U1; convert it"),
        (([1], [True, False], [3]), "client 1 is a mask.*flatnonzero"),
        (([[1, 2], [3, 4]], [[1]], [[2]]), r"client 0 has the shape \[2, 2\]"),
        (([1], [2], 3), r"client 2 has the shape \[\]"),
        (([1], [], [3]), "the client 1 has none"),
        (({1: [1], 2: [2], 3: [3]}), "keys 0 to 2, .* but has 1, 2, 3"),
        (({"0": [1], "1": [2], "2": [3]}), r"has '0', '1', '2'; .*int\(k\)"),
        ((TRAIN, ([], [], [])), "Some client must have a test image"),
        (7, "must be a list or a dict .* got int"),
        ({1, 2, 3}, "must be a list or a dict .* got set"),
    ],
)
def test_everything_else_is_refused_with_what_to_do(split, words):
    with pytest.raises(PartitionError, match=words) as caught:
        take(split)
    assert "\n" not in str(caught.value)


@functools.cache
def data():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (N, 4, 4)).astype(np.uint8)
    return fm.arrays(x, np.arange(N) % 3, x[:M], np.arange(M) % 3)


def federation(partition, num_clients=3, **options):
    return fm.Federation(
        algorithm="standalone",
        dataset=data(),
        partition=partition,
        num_clients=num_clients,
        models=("mlp",),
        shared_model="mlp",
        feature_dim=4,
        rounds=1,
        **options,
    )


def test_a_federation_trains_on_what_it_is_given_and_tests_who_has_tests():
    order = np.random.default_rng(1).permutation(N)
    split = ({0: order[:1], 1: order[1:9], 2: order[9:]}, ([3, 1], [], [1, 2]))
    (result,) = federation(split).rounds()
    assert result.scores.num_test.tolist() == [2, 0, 2]
    accuracy = result.scores.accuracy[0, 0]
    assert np.isnan(accuracy).tolist() == [False, True, False]
    assert np.isfinite(result.played.metrics["total"]).all()
    ordered = tuple(
        tuple(np.sort(p).astype(np.int32) for p in half)
        for half in (split[0].values(), map(np.array, ([3, 1], np.zeros(0), [1, 2])))
    )
    (again,) = federation(Partition(*ordered)).rounds()
    np.testing.assert_array_equal(again.scores.loss_sum, result.scores.loss_sum)


def test_an_own_split_goes_through_file_and_picture(tmp_path):
    made = take((TRAIN, ([1, 2], [2, 3], [])))
    path = tmp_path / "split.npz"
    partitions.save(path, made)
    assert_same(partitions.load(path), made)
    pictures.partition(tmp_path / "p.png", made, data().y_train, data().label_names)
    assert (tmp_path / "p.png").stat().st_size > 1000
    found = federation(f"file:{path}")
    assert_same(found.partition, made)


def test_a_file_of_somebody_elses_positions_is_normalised(tmp_path):
    path = tmp_path / "split.npz"
    np.savez(
        path,
        train=np.array([5, 3, 9]),
        train_offsets=[0, 2, 3],
        test=np.array([1, 0, 1]),
        test_offsets=[0, 2, 3],
    )
    found = partitions.make(f"file:{path}", data().y_train, data().y_test, 2, seed=0)
    assert [part.tolist() for part in found.train] == [[3, 5], [9]]
    assert [part.tolist() for part in found.test] == [[0, 1], [1]]


def test_the_command_line_takes_a_file_with_common_tests(tmp_path, capsys):
    path = tmp_path / "split.npz"
    thirds = np.array_split(np.random.default_rng(0).permutation(60), 3)
    partitions.save(path, partitions.given("mine", thirds, 3, 60, 20))
    argv = ["run", "--algorithm", "standalone", "--models", "mlp", "--feature-dim", "4"]
    argv += ["--shared-model", "mlp", "--num-clients", "3", "--rounds", "1"]
    argv += ["--partition", f"file:{path}", "--out", str(tmp_path / "a"), "--quiet"]
    assert main(argv) == 0
    saved = partitions.load(tmp_path / "a" / "partition.npz")
    assert [part.size for part in saved.test] == [20] * 3
    path.write_bytes(b"no zip")
    assert main([*argv, "--overwrite"]) == 2
    assert "must be a file that `partitions.save` wrote" in capsys.readouterr().err


def test_test_examples_of_held_out_clients_alone_are_refused_before_training():
    split = ([[0], [1], [2]], [[], [], [0, 1, 2]])
    with pytest.raises(PartitionError, match="all of the 1 clients that are held out"):
        federation(split, held_out_clients=1)
