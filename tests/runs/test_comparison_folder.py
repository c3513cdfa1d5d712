"""A comparison's folder: what is added, what is kept, what is refused or replaced."""

import csv
import json
import re
import shutil

import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError

OPTIONS = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "4"]
OPTIONS += ["--partition", "iid", "--feature-dim", "8", "--devices", "1", "--quiet"]
OPTIONS += ["--checkpoint-every", "1"]


def compare(folder, names, *more, rounds="0"):
    argv = ["compare", "--algorithms", names, "--out", str(folder), *OPTIONS]
    return main([*argv, "--rounds", rounds, *more])


def trained(*argv):
    return compare(*argv, rounds="1")


def rows(folder):
    key = lambda row: (row["algorithm"], row["seed"], row["learning_rate"])
    with (folder / "comparison.csv").open(newline="") as file:
        return {key(row): row for row in csv.DictReader(file)}


def contents(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """No round is played: enough where only files matter."""
    folder = tmp_path_factory.mktemp("compared") / "c[1]"
    assert compare(folder, "standalone") == 0
    return folder


@pytest.fixture
def copied(compared, tmp_path):
    return shutil.copytree(compared, tmp_path / "c")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "32"], ["standalone-0", "batch_size: 64 -> 32"]),
        (["--learning-rate", "0.2"], ["standalone-0", "learning_rate: 0.01 -> 0.2"]),
        (["--rounds", "2"], ["standalone-0", "rounds: 0 -> 2"]),
        (["--algorithms", "fd", "--epochs", "2"], ["standalone-0", "epochs: 1 -> 2"]),
        (
            [
                *("--set", "server.reject_nonfinite=true"),
                *("--set", "server.max_upload_norm=3", "--algorithms", "fd"),
            ],
            ["standalone-0", "max_upload_norm"],
        ),
    ],
)
def test_other_results_are_refused_before_anything_is_touched(
    copied, capsys, flags, words
):
    before = contents(copied)
    assert compare(copied, "standalone", *flags) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and all(word in told for word in words), told
    assert contents(copied) == before


def test_the_same_command_again_does_nothing(copied):
    before = contents(copied / "standalone-0")
    assert compare(copied, "standalone") == 0
    # Nor does one that is laid out otherwise, or says --overwrite without need.
    more = ["--keep-checkpoints", "5", "--client-store", "host", "--overwrite"]
    assert compare(copied, "standalone", *more) == 0
    assert contents(copied / "standalone-0") == before


def test_what_is_added_stands_beside_what_was_there(tmp_path):
    folder = tmp_path / "c"
    assert trained(folder, "standalone", "--target", "0.05") == 0
    first = rows(folder)["standalone", "0", "0.01"]
    assert first["rounds_to_target"] == "1"
    # Fewer settings, as of an earlier version.
    known = json.loads((folder / "standalone-0" / "config.json").read_text())
    assert known.pop("strategies") == []
    RunDirectory(folder / "standalone-0").write_json("config.json", known)
    before = contents(folder / "standalone-0")
    assert trained(folder, "lg_fedavg") == 0
    assert trained(folder, "standalone", "--seeds", "1") == 0
    assert trained(folder, "standalone", "--learning-rates", "0.02") == 0
    assert trained(folder, "standalone", "--learning-rates", "0.01,0.03") == 0
    found = rows(folder)
    assert list(found) == [  # in one order, whatever was asked last
        ("lg_fedavg", "0", "0.01"),
        ("standalone", "0", "0.01"),
        ("standalone", "1", "0.01"),
        ("standalone", "0", "0.02"),
        ("standalone", "0", "0.03"),
    ]
    assert found["standalone", "0", "0.01"] == first  # its target too
    assert {row["status"] for row in found.values()} == {"done"}
    assert {row["target"] for row in found.values()} == {"0.05"}
    text = (folder / "comparison.md").read_text()
    assert text.count("| standalone | 0.0") == 3 and "| lg_fedavg | 0.01" in text
    assert contents(folder / "standalone-0") == before
    assert not (folder / "standalone-0-lr0.01").exists()


def test_overwrite_replaces_what_is_in_the_way_and_nothing_else(copied, capsys):
    assert compare(copied, "standalone", "--seeds", "1") == 0
    kept = contents(copied / "standalone-1")
    argv = ["standalone", "--batch-size", "32", "--overwrite"]
    assert compare(copied, *argv) == 0
    assert "standalone-1 is of another configuration" in capsys.readouterr().err
    assert list(rows(copied)) == [("standalone", "0", "0.01")]
    assert contents(copied / "standalone-1") == kept
    config = json.loads((copied / "standalone-0" / "config.json").read_text())
    assert config["batch_size"] == 32


@pytest.mark.slow
def test_runs_that_did_not_end_are_in_the_tables_as_such(tmp_path):
    rates = ["--learning-rates", "1e18"]
    assert trained(tmp_path, "standalone", "--seeds", "3", *rates) == 3
    assert trained(tmp_path, "standalone", "--seeds", "1,2") == 0
    (tmp_path / "standalone-1" / "summary.json").unlink()
    assert trained(tmp_path, "standalone") == 0
    found = {key: row["status"] for key, row in rows(tmp_path).items()}
    assert found.pop(("standalone", "3", "1e+18")).startswith("Training diverged")
    assert "fedjax-mrl resume" in found.pop(("standalone", "1", "0.01"))
    assert set(found.values()) == {"done"}


@pytest.mark.parametrize("command", ["verify", "resume", "evaluate", "load"])
def test_a_comparison_is_told_where_a_run_is_asked_for(copied, capsys, command):
    shutil.copytree(copied / "standalone-0", copied / "standalone-1")
    words = f"{copied} holds a comparison, whose runs are standalone-0, standalone-1. "
    words += f"Give one of them, as in {copied / 'standalone-0'}."
    if command == "load":
        with pytest.raises(RunDirectoryError, match=re.escape(words)):
            fm.load(copied)
    else:
        assert main([command, str(copied)]) == 2
        assert capsys.readouterr().err == f"fedjax-mrl: {words}\n"


def test_a_run_and_a_comparison_do_not_share_a_folder(copied, tmp_path, capsys):
    run = ["run", "--algorithm", "standalone", *OPTIONS, "--rounds", "0"]
    assert main([*run, "--overwrite", "--out", str(copied)]) == 2
    assert "holds a comparison" in capsys.readouterr().err
    for flags in ([], ["--overwrite"]):
        assert compare(copied / "standalone-0", "fd", *flags) == 2
        assert "holds a run" in capsys.readouterr().err
    shutil.copytree(copied / "standalone-0", tmp_path / "runs" / "mine")
    assert compare(tmp_path / "runs", "standalone", "--overwrite") == 2
    assert "mine is a run of its own" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{", None])
def test_a_run_without_its_configuration_is_replaced_only_when_told(
    copied, capsys, damage
):
    file = copied / "standalone-0" / "config.json"
    file.unlink() if damage is None else file.write_text(damage)
    before = contents(copied)
    assert compare(copied, "standalone") == 2
    assert "config.json" in capsys.readouterr().err
    assert contents(copied) == before
    assert compare(copied, "standalone", "--overwrite") == 0
    assert file.exists() and len(rows(copied)) == 1


def test_other_images_are_no_addition(copied, capsys):
    file = copied / "standalone-0" / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data_sha256": "0"}))
    assert compare(copied, "lg_fedavg") == 2
    assert "images are not those of now" in capsys.readouterr().err


def test_a_run_that_another_process_plays_stops_no_other(copied, capsys):
    held = RunDirectory(copied / "lg_fedavg-0")
    held.path.mkdir()
    held.lock()
    assert compare(copied, "lg_fedavg", "--seeds", "0,1") == 2
    held.unlock()
    assert "Another process is writing" in capsys.readouterr().err
    statuses = {key[:2]: row["status"] for key, row in rows(copied).items()}
    assert statuses["lg_fedavg", "1"] == statuses["standalone", "0"] == "done"
    assert compare(copied, "lg_fedavg", "--seeds", "0,1") == 0


def test_close_learning_rates_have_folders_of_their_own(tmp_path):
    rates = ["--learning-rates", "0.01,0.010000001"]
    assert compare(tmp_path, "standalone", *rates) == 0
    assert len(rows(tmp_path)) == 2
    assert (tmp_path / "standalone-0-lr0.010000001" / "summary.json").exists()
