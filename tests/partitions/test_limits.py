"""A part of a data set: drawn by the data seed, and known to every command."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_mrl as fm
from fedjax_mrl import datasets, partitions
from fedjax_mrl.cli.main import main
from fedjax_mrl.partitions import PartitionError, subset

WORDS = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
WORDS += ["--num-clients", "5", "--feature-dim", "4", "--quiet"]
FEW = ["--limit-train", "100", "--limit-test", "40"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_a_draw_keeps_the_shares_of_the_classes_and_each_class(sizes, data):
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    number = data.draw(st.integers(len(sizes), y.size))
    found = subset("train", y, number, seed=3)
    assert found.dtype == np.int32 and found.size == number
    assert (np.diff(found) > 0).all()
    counts = np.bincount(y[found], minlength=len(sizes))
    share = 1 + (number - len(sizes)) * (np.array(sizes) - 1) / max(
        y.size - len(sizes), 1
    )
    assert (np.abs(counts - share) < 1).all() and (counts >= 1).all()
    np.testing.assert_array_equal(found, subset("train", y, number, seed=3))


def test_draws_differ_by_seed_and_part_and_grow():
    y = np.arange(200) % 4
    small, large = subset("train", y, 20, 0), subset("train", y, 60, 0)
    assert set(small) < set(large)
    assert set(small) != set(subset("train", y, 20, 1))
    assert set(small) != set(subset("test", y, 20, 0))
    assert not np.array_equal(small, np.arange(20))  # not the first ones
    np.testing.assert_array_equal(subset("train", y, None, 0), np.arange(200))


@pytest.mark.parametrize("number", [3, 201])
def test_a_limit_that_cannot_hold_is_refused(number):
    with pytest.raises(PartitionError, match=f"from 4, .* to 200, .*got {number}"):
        subset("test", np.arange(200) % 4, number, 0)


def federation(**options):
    return fm.Federation(
        algorithm="standalone",
        models=("mlp",),
        shared_model="mlp",
        num_clients=5,
        **options,
    )


def test_positions_stay_those_of_the_data_set_as_loaded():
    data = datasets.load("digits")
    found = federation(limit_train=100, limit_test=40, partition="iid")
    assert len(found.dataset.y_train) == len(data.y_train)
    for part, y, number in (("train", data.y_train, 100), ("test", data.y_test, 40)):
        used = np.sort(np.concatenate(getattr(found.partition, part)))
        np.testing.assert_array_equal(used, subset(part, y, number, seed=0))
    other = federation(limit_train=100, limit_test=40, partition="iid", data_seed=1)
    assert set(other.partition.train[0]) != set(found.partition.train[0])


def test_a_given_split_leaves_nothing_to_limit(tmp_path):
    made = federation(limit_train=100, partition="iid").partition
    assert federation(limit_train=100, partition=made).partition.train[0].size == 20
    partitions.save(tmp_path / "p.npz", made)
    for split in (made, f"file:{tmp_path / 'p.npz'}"):
        with pytest.raises(ValueError, match=r"--limit-train 50 as well. Leave"):
            federation(limit_train=50, partition=split)
        with pytest.raises(ValueError, match=r"--limit-test 50 as well. Leave"):
            federation(limit_test=50, partition=split)


@pytest.mark.slow
def test_all_commands_know_the_limits(tmp_path, capsys):
    folder = tmp_path / "a"
    argv = ["run", *WORDS, *FEW, "--rounds", "1", "--out", str(folder)]
    assert main(argv) == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["limit_train"], config["limit_test"]) == (100, 40)
    saved = partitions.load(folder / "partition.npz")
    assert max(part.max() for part in saved.train) > 100
    assert main(["resume", str(folder), "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", str(folder), "--rounds", "2", "--quiet"]) == 0
    assert "2 rounds are equal" in capsys.readouterr().out
    assert main(["resume", str(folder), "--limit-train", "99"]) == 2
    assert "limit_train: 100 -> 99" in capsys.readouterr().err
    argv = ["compare", *WORDS[2:], *FEW, "--rounds", "1", "--out", str(tmp_path / "c")]
    assert main([*argv, "--algorithms", "standalone"]) == 0
    compared = partitions.load(tmp_path / "c" / "standalone-0" / "partition.npz")
    np.testing.assert_array_equal(compared.train[0], saved.train[0])
    assert main(["run", *WORDS, "--limit-train", "9"]) == 2
    assert "--limit-train must be from 10" in capsys.readouterr().err
