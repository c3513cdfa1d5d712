"""Loading a run from its folder, in Python and without the command line's set-up."""

import hashlib
import json
import shutil

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import datasets, loading
from fedjax_mrl.cli.main import main
from fedjax_mrl.config import ConfigError
from fedjax_mrl.data.dataset import DatasetError
from fedjax_mrl.runs import runner
from fedjax_mrl.runs.checkpoint import CheckpointError
from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError

WORDS = ["--models", "mlp", "--shared-model", "mlp", "--feature-dim", "4"]
WORDS += ["--num-clients", "5", "--quiet", "--algorithm", "fml", "--rounds", "2"]
WORDS += ["--checkpoint-every", "1", "--learning-rate-decay", "linear:0.5"]
WORDS += ["--limit-train", "300", "--limit-test", "100"]


@pytest.fixture(
    scope="module",
    params=[
        "device",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("host", "disk")),
    ],
)
def ran(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("runs") / request.param
    argv = ["run", *WORDS, "--client-store", request.param, "--out", str(folder)]
    assert main(argv) == 0
    return folder


@pytest.mark.parametrize("text", ['{"parity": [0,', "\0", "[" * 10**5])
def test_damaged_tasks_are_named(text, ran, tmp_path):
    shutil.copytree(ran, tmp_path / "a")
    (tmp_path / "a" / "tasks.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"tasks\.json is damaged: .* no JSON"):
        fm.load(tmp_path / "a")


def contents(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def newest(folder, rounds):
    lines = (folder / "rounds.csv").read_text().splitlines()
    return lines[rounds].split(",")[7]


def test_a_loaded_run_predicts_evaluates_and_goes_on_elsewhere(ran, tmp_path, capsys):
    before = contents(ran)
    writer = RunDirectory(ran)
    writer.lock()  # as another process that writes it would
    federation = fm.load(ran)
    assert federation.state.round == 2 and list(federation.rounds()) == []
    assert federation.digester()(federation.state)[0] == newest(ran, 2)
    scores = federation.evaluate()
    rows = (ran / "clients.csv").read_text().splitlines()[-20:]
    correct = [int(row.split(",")[7]) for row in rows]
    np.testing.assert_array_equal(
        np.moveaxis(scores.correct, -1, 0).ravel(),
        correct,  # client, point, head
    )
    x = federation.dataset.x_test[federation.partition.test[3]]
    right = federation.predict(x, client=3).argmax(-1)
    y = federation.dataset.y_test[federation.partition.test[3]]
    assert (right == y).sum() == scores.correct[0, 0, 3]
    (third,) = federation.rounds(until=3)
    again = fm.load(ran)
    assert again.state.round == 2
    del federation, again
    writer.unlock()
    assert contents(ran) == before  # nothing was written, files of clients included
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    assert main(["resume", str(copy), "--rounds", "3", "--quiet"]) == 0
    assert third.state.round == 3
    loaded = fm.load(copy, rounds=4)
    assert loaded.digester()(loaded.state)[0] == newest(copy, 3)
    assert loaded.config.schedule_rounds == 2


def test_the_newest_undamaged_checkpoint_is_taken(ran, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    for path in (copy / "checkpoints" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint of round 2 .* cannot be read"):
        federation = fm.load(copy)
    assert federation.state.round == 1
    assert [result.state.round for result in federation.rounds()] == [2]
    assert federation.digester()(federation.state)[0] == newest(ran, 2)


def test_what_cannot_be_loaded_is_told_in_one_sentence(ran, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        fm.load(tmp_path / "none")
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* plays the run"):
        fm.load(copy)
    assert not (copy / "checkpoints").exists()
    with pytest.raises(ConfigError, match="no setting that load may change 'seed'"):
        fm.load(ran, seed=1)
    with pytest.raises(ConfigError, match=r"algorithm of the run are .* got 'fedgh'"):
        fm.load(ran, algorithm="fedgh")
    with pytest.raises(ConfigError, match=r"models of the run are .* got 'cnn5'"):
        fm.load(ran, models=["cnn5"])
    told = json.loads((ran / "environment.json").read_text())
    told["data_sha256"] = "0" * 64
    shutil.copytree(ran / "checkpoints", copy / "checkpoints")
    (copy / "environment.json").write_text(json.dumps(told))
    with pytest.raises(DatasetError, match="checksum differs"):
        fm.load(copy)


def test_devices_that_are_not_here_do_not_keep_a_run_from_being_loaded(ran, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"devices": 64}))
    assert fm.load(copy).state.round == 2


def test_a_run_of_own_images_is_loaded_with_them(tmp_path):
    digits = datasets.load("digits")
    data = digits._replace(name="mine", x_train=255 - digits.x_train)
    federation = fm.Federation(
        dataset=data,
        algorithm="standalone",
        models=("mlp",),
        shared_model="mlp",
        feature_dim=4,
        num_clients=2,
        partition=([np.arange(9), np.arange(20, 9, -1)], np.arange(30)),
        rounds=1,
    )
    runner.run(federation, RunDirectory.create(tmp_path / "a"))
    with pytest.raises(DatasetError, match="'mine' is no data set with a name here"):
        fm.load(tmp_path / "a")
    with pytest.raises(DatasetError, match="checksum differs"):
        fm.load(tmp_path / "a", dataset=digits)
    loaded = fm.load(tmp_path / "a", dataset=data)
    assert loaded.state.round == 1
    assert [part.size for part in loaded.partition.train] == [9, 11]


def test_a_run_on_the_disk_that_goes_on_meanwhile_is_loaded(tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = [*WORDS, "--client-store", "disk", "--keep-checkpoints", "1"]
    assert main(["run", *words, "--out", str(run)]) == 0
    read = loading._read

    def later(*arguments):
        assert main(["resume", str(run), "--rounds", "4", "--quiet"]) == 0
        return read(*arguments)

    monkeypatch.setattr(loading, "_read", later)
    federation = fm.load(run)
    assert federation.state.round == 4
    shutil.rmtree(RunDirectory(run).clients)  # what was shown stays
    assert federation.digester()(federation.state)[0]
