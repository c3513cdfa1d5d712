"""Several algorithms and seeds on one split: tables, failures, going on."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy import stats

from fedjax_mrl import partitions
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import comparison
from fedjax_mrl.runs.directory import RunDirectory
from tests.helpers import clockless

WIDE = True  # bits of different programs are compared
OPTIONS = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "4"]
OPTIONS += ["--partition", "iid", "--feature-dim", "8", "--devices", "1", "--quiet"]
OPTIONS += ["--rounds", "2", "--checkpoint-every", "1"]
OPTIONS += ["--limit-train", "400", "--limit-test", "100"]


def compare(folder, names, seeds="0,1", *more):
    argv = ["compare", "--algorithms", names, "--seeds", seeds, "--out", str(folder)]
    return main([*argv, *OPTIONS, *more])


def table(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    assert compare(folder, "lg_fedavg,standalone", "0,1", "--target", "0.05") == 0
    return folder


def test_every_run_has_a_line_and_shares_split_and_initial_weights(compared):
    rows = table(compared)
    assert [(r["algorithm"], r["seed"]) for r in rows] == [
        ("lg_fedavg", "0"),
        ("lg_fedavg", "1"),
        ("standalone", "0"),
        ("standalone", "1"),
    ]
    for row in rows:
        run = compared / f"{row['algorithm']}-{row['seed']}"
        found = json.loads((run / "summary.json").read_text())
        assert float(row["last"]) == found["headline"]["last"]
        assert int(row["bytes_up"]) == found["bytes_up"]
        assert row["status"] == "done" and row["rounds_to_target"] in ("1", "2")
    splits = [
        partitions.load(path) for path in sorted(compared.glob("*/partition.npz"))
    ]
    for split in splits:
        for a, b in zip(split.train, splits[0].train, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (compared / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_difference_to_standalone_is_paired_by_seed(compared):
    rows = table(compared)
    last = {(r["algorithm"], r["seed"]): float(r["last"]) for r in rows}
    gaps = [100 * (last["lg_fedavg", seed] - last["standalone", seed]) for seed in "01"]
    expected = stats.t.interval(0.95, 1, loc=np.mean(gaps), scale=stats.sem(gaps))
    text = (compared / "comparison.md").read_text()
    (line,) = [t for t in text.splitlines() if t.startswith("| lg_fedavg")]
    cell = f"{np.mean(gaps):+.2f} [{expected[0]:+.2f}, {expected[1]:+.2f}]"
    assert cell in line
    assert text.count("**") >= 6  # the best of three columns


def test_a_comparison_goes_on_where_it_stopped(compared, capsys):
    before = table(compared)
    run = RunDirectory.open(compared / "standalone-1")
    digests = [row["digest"] for row in run.rows("rounds.csv")]
    first = run.rows("rounds.csv")[0]
    (run.path / "summary.json").unlink()
    shutil.rmtree(run.checkpoints / "2")
    # As an earlier version wrote it, which did not know this setting.
    known = json.loads(run.read_text("config.json"))
    del known["strategies"]
    run.write_json("config.json", known)
    assert compare(compared, "lg_fedavg,standalone", "0,1", "--target", "0.05") == 0
    assert [row["digest"] for row in run.rows("rounds.csv")] == digests
    assert run.rows("rounds.csv")[0] == first  # with its time: it was not played again
    assert [clockless(row) for row in table(compared)] == [
        clockless(row) for row in before
    ]


def test_damaged_lines_of_tables_are_told_and_left_out(compared, tmp_path, capsys):
    folder = shutil.copytree(compared, tmp_path / "copy")
    for name in ("lg_fedavg-0/metrics.csv", "standalone-0/clients.csv"):
        head, first, *rest = (folder / name).read_text().splitlines(keepends=True)
        blank = first.split(",")[0] + "," * first.count(",") + "\n"
        (folder / name).write_text("".join([head, blank, *rest]))
    capsys.readouterr()
    assert compare(folder, "lg_fedavg,standalone", "0,1", "--target", "0.05") == 0
    told = capsys.readouterr().err
    assert told.count("1 line of it is unreadable and left out.\n") == 2
    assert "/lg_fedavg-0/metrics.csv is" in told
    assert "/standalone-0/clients.csv is" in told
    (folder / "standalone-0/clients.csv").unlink()
    assert main(["evaluate", str(folder / "lg_fedavg-0"), "--clients"]) == 0
    told = capsys.readouterr().err
    assert "standalone-0/clients.csv cannot be read (No such file" in told
    assert "lg_fedavg-0/metrics.csv is damaged" in told


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path, capsys):
    more = ["--models", "mlp,cnn5", "--partition", "iid"]
    assert compare(tmp_path, "fedavg,standalone", "0", *more) == 2
    told = capsys.readouterr()
    assert "fedavg-0: " in told.err and "Traceback" not in told.err
    rows = {row["algorithm"]: row for row in table(tmp_path)}
    assert rows["standalone"]["status"] == "done"
    assert rows["fedavg"]["status"] != "done" and rows["fedavg"]["last"] == ""
    assert "fedavg, seed 0:" in (tmp_path / "comparison.md").read_text()


def test_runs_played_together_are_those_played_one_by_one(tmp_path, compared):
    folder = tmp_path / "alone"
    assert compare(folder, "lg_fedavg", "0,1", "--together", "1") == 0
    for name in ("lg_fedavg-0", "lg_fedavg-1"):
        alone, together = (RunDirectory.open(f / name) for f in (folder, compared))
        for table_ in ("metrics.csv", "clients.csv", "digests.csv"):
            assert alone.read_text(table_) == together.read_text(table_)
        seconds = [float(row["seconds"]) for row in together.rows("rounds.csv")]
        assert all(0 < s < 60 for s in seconds)


@pytest.mark.slow
def test_learning_rates_are_compared_and_one_that_diverges_stops_no_other(
    tmp_path, capsys
):
    rates = ["--learning-rates", "0.05,1e18,0.05"]
    assert compare(tmp_path, "standalone", "0,1", *rates) == 3
    assert "standalone-1-lr1e+18: Training diverged" in capsys.readouterr().err
    rows = table(tmp_path)
    assert [(r["learning_rate"], r["seed"]) for r in rows] == [
        ("0.05", "0"),
        ("0.05", "1"),
        ("1e+18", "0"),
        ("1e+18", "1"),
    ]
    assert [r["status"] == "done" for r in rows] == [True, True, False, False]
    text = (tmp_path / "comparison.md").read_text()
    assert "| standalone | 0.05 |" in text
    assert "standalone, seed 1, learning rate 1e+18: Training diverged" in text
    # Each is what a comparison under that rate alone gives.
    other = tmp_path / "other"
    assert compare(other, "standalone", "1", "--learning-rate", "0.05") == 0
    found = [
        [row["digest"] for row in RunDirectory.open(path).rows("rounds.csv")]
        for path in (other / "standalone-1", tmp_path / "standalone-1-lr0.05")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--together", "-1"], "--together must be at least 0; got -1"),
        (
            ["--learning-rates", "0.1,fast"],
            "--learning-rates takes numbers; got 'fast'",
        ),
        (["--learning-rates", "-1"], "--learning-rate must be at least 0; got -1"),
        (["--seeds", "0,,1"], "--seeds takes numbers; got ''"),
        (["--partition", "class:3"], "must be cut into equally many portions"),
    ],
)
def test_wrong_flags_are_refused(tmp_path, capsys, flags, message):
    folder = tmp_path / "new"
    assert compare(folder, "standalone,fd", "0", *flags) == 2
    told = capsys.readouterr().err
    assert told.count(message) == 1 and not folder.exists()


def test_where_some_can_split_the_data_the_others_say_that_they_cannot(
    tmp_path, capsys
):
    flags = ["--grid", "partition=class:3,iid"]
    assert compare(tmp_path, "standalone", "0", *flags) == 2
    assert "portions" in capsys.readouterr().err
    assert [row["status"] == "done" for row in table(tmp_path)] == [False, True]


def test_a_store_that_no_run_can_have_is_refused_without_a_traceback(tmp_path, capsys):
    folder = tmp_path / "new"
    assert compare(folder, "standalone", "0", "--client-store", "disk") == 2
    assert "belongs to one run" in capsys.readouterr().err and not folder.exists()
    assert compare(folder, "standalone", "0", "--client-store", "attic") == 2
    assert "must be one of" in capsys.readouterr().err
    assert table(folder)[0]["status"] != "done"


def test_options_reach_the_algorithms_that_have_them(tmp_path):
    from fedjax_mrl.config import ConfigError, build

    base = build({"shared_dim": 7, "set": {"fml.alpha": 0.9, "algorithm.weight": 2.0}})
    runs = comparison.plan(base, ["fedmrl", "fml", "fd"], [0], tmp_path)
    known = {run.config.algorithm: run.config for run in runs}
    assert known["fedmrl"].shared_dim == 7 and known["fml"].shared_dim is None
    assert dict(known["fml"].set) == {"algorithm.alpha": 0.9}
    assert dict(known["fd"].set) == {"algorithm.weight": 2.0}
    wrong = build({"set": {"fml.gamma": 1.0}})
    with pytest.raises(ConfigError, match=r"fml\.gamma"):
        comparison.plan(wrong, ["fml"], [0], tmp_path)
