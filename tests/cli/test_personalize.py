"""`fedjax-mrl personalize` as its user sees it: table, files, statuses."""

import csv
import errno
import hashlib
import os
import pathlib

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import RunDirectory

SMALL = ["--models", "mlp", "--shared-model", "mlp", "--feature-dim", "8"]
SMALL += ["--shared-dim", "4", "--num-clients", "5", "--held-out-clients", "2"]
SMALL += ["--limit-train", "200", "--rounds", "1", "--quiet"]
TABLE = "personalized-fine-tuned.csv"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by the store that they kept their states in, made when they are needed."""
    made = {}

    def run(store="device"):
        if store not in made:
            made[store] = tmp_path_factory.mktemp(store) / "a"
            argv = ["run", *SMALL, "--client-store", store]
            assert main([*argv, "--out", str(made[store])]) == 0
        return made[store]

    return run


def table(path):
    with pathlib.Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def sums(folder):
    """Checksums of all files but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != ".lock"
    }


@pytest.mark.parametrize(
    "store", [pytest.param("host", marks=pytest.mark.slow), "disk"]
)
def test_the_table_is_added_and_no_other_file_changes(store, runs, capsys):
    run = runs(store)
    before = sums(run)
    assert main(["personalize", str(run), "--epochs", "1"]) == 0
    after = sums(run)
    assert after.pop(TABLE) and after == before
    rows = table(run / TABLE)
    (run / TABLE).unlink()
    assert [row["client"] for row in rows] == ["3"] * 4 + ["4"] * 4
    shown = capsys.readouterr().out
    assert f"written to {run / TABLE}" in shown
    for row in rows:
        about = row["round"], row["shared"], row["epochs"], row["learning_rate"]
        assert about == ("1", "fine-tuned", "1", "0.01")
        assert f"{float(row['after']):.4f}" in shown
    found = fm.load(run).personalize(epochs=1).rows()
    assert [float(row["after"]) for row in rows] == pytest.approx(
        [row["after"] for row in found], abs=1e-5
    )


@pytest.mark.slow
def test_an_earlier_table_is_replaced_only_if_asked(runs, tmp_path, capsys):
    run, out = runs(), tmp_path / "x.csv"
    ask = ["personalize", str(run), "--epochs", "1", "--clients", "4"]
    ask += ["--shared", "frozen", "--out", str(out)]
    assert main(ask) == 0
    first = out.read_bytes()
    capsys.readouterr()
    assert main([*ask, "--learning-rate", "0.1"]) == 2
    said = capsys.readouterr()
    assert "Give --overwrite" in said.err and not said.out  # before any training
    assert out.read_bytes() == first
    assert main([*ask, "--learning-rate", "0.1", "--overwrite"]) == 0
    assert {row["learning_rate"] for row in table(out)} == {"0.1"}
    assert {row["shared"] for row in table(out)} == {"frozen"}
    assert os.listdir(tmp_path) == ["x.csv"]


@pytest.mark.slow
def test_into_a_run_that_is_being_written_nothing_is_written(runs, capsys):
    run = runs()
    other = RunDirectory.open(run)
    other.lock()
    before = sums(run)
    try:
        assert main(["personalize", str(run), "--epochs", "1"]) == 0
    finally:
        other.unlock()
    said = capsys.readouterr()
    assert "mix_large" in said.out and "written to" not in said.out
    assert "another process is writing that run" in said.err
    assert sums(run) == before


def test_a_full_disk_leaves_nothing_half_written(runs, capsys, monkeypatch):
    run = runs()
    before = sums(run)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["personalize", str(run), "--epochs", "1"]) == 1
    said = capsys.readouterr()
    assert "mix_large" in said.out  # it was computed, and is shown
    assert "No space left on device" in said.err and len(said.err.splitlines()) == 1
    assert sums(run) == before


def test_a_client_from_outside_comes_with_its_file(runs, tmp_path, capsys):
    data = fm.load(runs()).dataset
    some = np.flatnonzero(np.isin(data.y_train, (3, 7)))[:30]  # two classes of ten
    arrays = {"x_train": data.x_train[some], "y_train": data.y_train[some]}
    arrays |= {"x_test": data.x_train[some[:8]], "y_test": data.y_train[some[:8]]}
    file, out, models = (tmp_path / name for name in ("new.npz", "new.csv", "models"))
    np.savez(file, **arrays)
    ask = ["personalize", str(runs()), "--epochs", "1", "--data", str(file)]
    ask += ["--model", "mlp", "--out", str(out)]
    assert main([*ask, "--export", str(models)]) == 0
    assert f"written to {models / 'new'}: the model" in capsys.readouterr().out
    model = fm.load_model(models / "new")  # named after the file, as the table is
    assert model.description.newcomer["data"] == str(file)
    says = model.predict(arrays["x_test"])
    right = (says.argmax(-1) == arrays["y_test"]).mean()
    (row, *_) = table(out)
    wanted = {"client": "5", "architecture": "mlp", "num_train": "30", "num_test": "8"}
    assert wanted.items() <= row.items() and float(row["after"]) == right
    np.savez(file, label_names=[f"animal {i}" for i in range(10)], **arrays)
    assert main([*ask, "--overwrite"]) == 2
    assert "label_names must be those of the federation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--clients", "1"], "client 1 took part in the rounds"),
        (["--clients", "7"], "There is no client 7"),
        (["--clients", "3,x"], "--clients takes whole numbers"),
        (["--epochs", "0"], "--epochs takes a whole number"),
        (["--learning-rate", "fast"], "--learning-rate takes a number"),
        (["--learning-rate", "-1"], "learning_rate must be a number, at least 0"),
        (["--shared", "frosen"], "Did you mean frozen?"),
        (["--model", "cnn1"], "Give data as well"),
        (["--data", "nowhere.npz"], "Cannot read the data set nowhere.npz"),
        (["--out", "nowhere/x.csv"], "does not exist"),
        (["--out", "."], "is a folder"),
        (["--export", __file__], "is a file"),
        (["--export", f"{__file__}/x"], "lies below one"),
    ],
)
def test_wrong_use_exits_2_with_a_sentence(words, answer, runs, capsys):
    before = sums(runs())
    assert main(["personalize", str(runs()), *words]) == 2
    said = capsys.readouterr()
    assert answer in said.err and len(said.err.splitlines()) == 1 and not said.out
    assert sums(runs()) == before


OWN = """
from flax import linen as nn
class Small(nn.Module):
    feature_dim: int = 8
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6)(x.reshape(x.shape[0], -1) / 1.0))
        return nn.relu(nn.Dense(self.feature_dim)(x))
"""


@pytest.mark.parametrize("known", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_client_from_outside_may_have_a_model_of_its_own_file(
    known, runs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("mine.py").write_text(OWN)
    run = runs()
    if known:  # by the run already, which keeps the path in full
        run = tmp_path / "known"
        mine = ["--models", "mine.py:Small,mlp", "--out", str(run)]
        assert main(["run", *SMALL, *mine]) == 0
    data = fm.load(run).dataset
    np.savez("new.npz", x=data.x_train[:40], y=data.y_train[:40])
    ask = ["personalize", str(run), "--epochs", "1", "--data", "new.npz"]
    assert main([*ask, "--model", "mine.py:Small", "--out", "new.csv"]) == 0
    assert {row["architecture"] for row in table("new.csv")} == {"Small"}


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "checkpoints/x.csv"])
def test_no_part_of_a_run_is_replaced_by_a_table(name, runs, capsys):
    before = sums(runs())
    out = str(runs() / name)
    assert main(["personalize", str(runs()), "--out", out, "--overwrite"]) == 2
    assert "is a part of the run in" in capsys.readouterr().err
    assert sums(runs()) == before


def test_divergence_exits_3_and_writes_nothing(runs, capsys):
    before = sums(runs())
    ask = ["personalize", str(runs()), "--epochs", "1", "--learning-rate", "1e30"]
    assert main(ask) == 3
    assert "client 3" in capsys.readouterr().err
    assert sums(runs()) == before


def test_there_must_be_a_run_with_a_checkpoint(runs, tmp_path, capsys):
    assert main(["personalize", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    begun = RunDirectory.create(
        tmp_path / "b", config=(runs() / "config.json").read_text()
    )
    begun.unlock()
    (tmp_path / "b" / "partition.npz").write_bytes(
        (runs() / "partition.npz").read_bytes()
    )
    assert main(["personalize", str(tmp_path / "b")]) == 2
    assert "There is no checkpoint" in capsys.readouterr().err


def test_models_are_written_for_all_who_come_or_refused_before_they_train(
    runs, tmp_path, capsys, monkeypatch
):
    ask = ["personalize", str(runs()), "--epochs", "1", "--export", str(tmp_path / "m")]
    assert main([*ask, "--out", str(tmp_path / "a.csv")]) == 0
    made = {path.name: fm.load_model(path) for path in (tmp_path / "m").iterdir()}
    assert sorted(made) == ["client-3", "client-4"]
    told = made["client-4"].description
    assert told.newcomer["shared"] == "fine-tuned" and told.newcomer["data"] is None
    assert told.round == 1 and told.run == str(runs())
    capsys.readouterr()
    ask += ["--clients", "4", "--out", str(tmp_path / "b.csv")]
    with monkeypatch.context() as patched:
        patched.setattr("fedjax_mrl.personalizing.play", None)
        assert main(ask) == 2
    said = capsys.readouterr()
    assert "client-4 holds an exported model already" in said.err and not said.out
    assert not (tmp_path / "b.csv").exists()

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fedjax_mrl.exporting.folder.write", full)
    before = sums(tmp_path / "m")
    assert main([*ask, "--overwrite"]) == 1
    said = capsys.readouterr().err
    assert "client-4: No space left on device" in said and len(said.splitlines()) == 1
    assert (tmp_path / "b.csv").exists() and sums(tmp_path / "m") == before


@pytest.mark.slow
def test_a_new_run_in_the_folder_takes_the_table_with_it(tmp_path):
    (tmp_path / TABLE).write_text("of the run before\n")
    argv = ["run", *SMALL, "--rounds", "0", "--out", str(tmp_path)]
    assert main(argv) == 2
    assert main([*argv, "--overwrite"]) == 0
    assert not (tmp_path / TABLE).exists()


@pytest.mark.parametrize("command", ["export", "predict"])
def test_who_was_held_out_has_no_model_yet(command, runs, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 32, 3), np.uint8))
    words = [command, str(runs()), "--client", "4"]
    words += ["--out", str(tmp_path / "m")] * (command == "export")
    words += [str(tmp_path / "x.npy")] * (command == "predict")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and "client 4 is held out" in err and err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_frozen_client_of_fedavg_is_told_that_it_trained_nothing(tmp_path, capsys):
    run = str(tmp_path / "a")
    argv = [word for word in SMALL if word not in ("--shared-dim", "4")]
    assert main(["run", "--algorithm", "fedavg", *argv, "--out", run]) == 0
    for shared, told in (("frozen", True), ("fine-tuned", False)):
        assert main(["personalize", run, "--epochs", "1", "--shared", shared]) == 0
        assert ("nothing was trained" in capsys.readouterr().out) == told
