"""Clients that the data name: their number, their names, their test parts."""

import csv
import json

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.config import ConfigError
from fedjax_mrl.partitions import PartitionError

FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1"]
SMALL = {"models": ("mlp",), "shared_model": "mlp", "rounds": 1}


def table(number, seed=0):
    y = np.arange(number) % 3
    return np.random.default_rng(seed).normal(size=(number, 4)) + y[:, None], y


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Three clients, one of whose names is full of what a csv must quote."""
    monkeypatch.chdir(tmp_path)
    x, y = table(90)
    ids = np.array(["Rome", 'Graz, "St"', "Oslo"])[np.arange(90) % 3]
    np.savez("own.npz", x=x, y=y, clients=ids)
    return tmp_path


def test_natural_takes_as_many_clients_as_the_data_name(file, capsys):
    flags = ["--dataset", "own.npz", "--partition", "natural", *FLAGS]
    assert main(["run", *flags, "--quiet", "--out", "a"]) == 0
    assert json.loads((file / "a" / "config.json").read_text())["num_clients"] == 3
    assert main(["resume", "a", "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", "a"]) == 0
    with (file / "a" / "client_names.csv").open(newline="") as text:
        assert list(csv.reader(text)) == [
            ["client", "name"], ["0", 'Graz, "St"'], ["1", "Oslo"], ["2", "Rome"],
        ]  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", "a", "--clients"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (oslo,) = [line.split() for line in lines if "Oslo" in line]
    assert oslo[:3] == ["1", "Oslo", "mlp"]
    built = fm.load("a")
    assert built.config.num_clients == 3


@pytest.mark.slow
def test_a_comparison_goes_on_with_clients_that_nobody_counted(file, capsys):
    flags = ["--dataset", "own.npz", "--partition", "natural", *FLAGS[:4], "--quiet"]
    ask = ["compare", "--algorithms", "fml", *flags, "--out", "c", "--rounds"]
    assert main([*ask, "1"]) == 0
    assert main([*ask, "2"]) == 0
    config = json.loads((file / "c" / "fml-0" / "config.json").read_text())
    assert config["num_clients"] == 3 and config["schedule_rounds"] == 1
    assert "already done" not in capsys.readouterr().out


def test_the_number_is_found_in_python_too():
    x, y = table(60)
    data = fm.arrays(x, y, clients=np.arange(60) % 4)
    built = fm.Federation(dataset=data, partition="natural", **SMALL)
    assert built.config.num_clients == len(built.train) == 4
    held = built.with_settings(held_out_clients=1)
    assert held.config.num_training_clients == 3
    with pytest.raises(ConfigError, match="at least one of the 4 clients"):
        built.with_settings(held_out_clients=4)
    with pytest.raises(ConfigError, match="--num-clients must be at least 1; got 0"):
        fm.Federation(dataset=data, num_clients=0, **SMALL)
    with pytest.raises(PartitionError, match="but these do not; give the array"):
        fm.Federation(partition="natural", **SMALL)


@pytest.mark.parametrize(("number", "warned"), [(4, True), (5, False), (0, False)])
def test_very_few_test_examples_are_told_of(number, warned):
    x, y = table(60)
    ids = ["a", "b"] * 30
    own = ["a"] * number + ["b"] * (30 - number)
    data = fm.arrays(x, y, *table(30, 1), clients=ids, clients_test=own)
    notes = fm.Federation(dataset=data, partition="natural", **SMALL).pieces.notes
    found = [note for note in notes if "test examples" in note]
    assert len(found) == warned
    if warned:
        assert found[0].startswith(
            "1 of 2 clients have fewer than 5 test examples, client 0 (a) 4, so that"
        )


@pytest.mark.slow
def test_a_comparison_tells_of_them_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = table(40)
    np.savez("own.npz", x=x, y=y, clients=np.arange(40) % 4)  # two each for testing
    flags = ["--dataset", "own.npz", "--partition", "natural", *FLAGS]
    assert main(["compare", "--algorithms", "fml,fd", *flags, "--out", "c"]) == 0
    told = capsys.readouterr().err
    assert told.count("4 of 4 clients have fewer than 5 test examples") == 1
    assert told.count("no test part") == 1


@pytest.mark.slow
def test_newcomers_from_outside_need_no_test_part_and_have_a_file_each(file, capsys):
    flags = ["--dataset", "own.npz", "--partition", "natural", *FLAGS]
    assert main(["run", *flags, "--quiet", "--out", "a"]) == 0
    for seed, name in enumerate(("zoe", "al b")):
        x, y = table(30, seed)
        np.savez(f"{name}.npz", x=x, y=y)
        capsys.readouterr()
        ask = ["personalize", "a", "--data", f"{name}.npz", "--epochs", "1"]
        assert main(ask) == 0
        told = capsys.readouterr().err
        assert "no test part: 6 of 30 examples are kept for testing" in told
    made = sorted(path.name for path in (file / "a").glob("personalized-*"))
    assert made == [
        "personalized-fine-tuned-al_b.csv",
        "personalized-fine-tuned-zoe.csv",
    ]
    before = (file / "a" / made[0]).read_bytes()
    assert main(ask) == 2  # there already
    assert made[0] in capsys.readouterr().err
    assert (file / "a" / made[0]).read_bytes() == before
    again = [*flags, "--quiet", "--overwrite", "--out", "a"]
    assert main(["run", *again]) == 0  # a new run does not keep tables of the old one
    assert not list((file / "a").glob("personalized-*"))


@pytest.mark.slow
def test_newcomers_without_a_test_part_in_python():
    x, y = table(60)
    data = fm.arrays(x, y, clients=np.arange(60) % 2)
    built = fm.Federation(dataset=data, partition="natural", **SMALL)
    built.fit(progress=False)
    row = built.personalize(data=table(30, 1), epochs=1).rows()[0]
    assert (row["num_train"], row["num_test"]) == (24, 6)
    with pytest.raises(ValueError, match="x_test and y_test belong together"):
        built.personalize(data=(*table(30, 1), table(9)[0], None), epochs=1)
    with pytest.raises(ValueError, match="can be spared"):
        built.personalize(data=table(3), epochs=1)  # one of each class
