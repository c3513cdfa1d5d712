"""Sweeps: `compare --grid` and `fm.compare(grid=...)`."""

import csv
import os
import signal
import time

import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli import trials
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import (
    comparison,
    comparison_rows,
    comparison_tables,
    grid,
    grid_columns,
    measures,
    pictures,
)
from fedjax_mrl.runs.directory import RunDirectory

SMALL = {
    "models": "mlp",
    "shared_model": "mlp",
    "num_clients": 4,
    "partition": "iid",
    "feature_dim": 8,
    "limit_train": 200,
    "limit_test": 100,
    "devices": 1,
}
OPTIONS = [w for k, v in SMALL.items() for w in (f"--{k.replace('_', '-')}", str(v))]


def compare(folder, names, *more, rounds=1):
    argv = ["compare", "--algorithms", names, "--out", str(folder), "--quiet"]
    return main([*argv, *OPTIONS, "--rounds", str(rounds), *more])


def table(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def digests(path):
    return [row["digest"] for row in RunDirectory.open(path).rows("rounds.csv")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "c"
    words = ["--grid", "algorithm.alpha=0.25,0.75", "--grid", "learning-rate=0.01,0.05"]
    assert compare(folder, "fml,standalone", "--seeds", "0,1", *words) == 0
    return folder


def test_all_combinations_are_played_and_stand_in_one_table(swept):
    rows = table(swept)
    key = lambda row: (row["algorithm"], row["learning_rate"], row["algorithm.alpha"])
    cells = list(dict.fromkeys(map(key, rows)))
    assert cells == [
        ("fml", "0.01", "0.25"),
        ("fml", "0.01", "0.75"),
        ("fml", "0.05", "0.25"),
        ("fml", "0.05", "0.75"),
        ("standalone", "0.01", ""),  # which has no such option: one run for all
        ("standalone", "0.05", ""),
    ]
    assert len(rows) == 12 and {row["status"] for row in rows} == {"done"}
    folders = {path.name for path in swept.iterdir() if path.is_dir()}
    assert "fml-1-lr0.05-algorithm.alpha=0.25" in folders
    assert "standalone-0-lr0.01" in folders and len(folders) == 12
    text = (swept / "comparison.md").read_text()
    assert (
        "| fml | 0.01 | 0.25 | personal |" in text
        and "| standalone | 0.05 | - |" in text
    )
    assert "Best of 4 cells by last: fml, learning rate 0." in text
    assert "Standalone has no run" not in text and "± " in text
    assert (swept / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_cell_has_the_bits_of_its_run_alone(swept, tmp_path):
    words = ["--algorithm", "fml", "--set", "algorithm.alpha=0.75", "--seed", "1"]
    words += ["--learning-rate", "0.05", "--rounds", "1", "--quiet"]
    assert main(["run", *OPTIONS, *words, "--out", str(tmp_path / "alone")]) == 0
    cell = swept / "fml-1-lr0.05-algorithm.alpha=0.75"
    assert digests(cell) == digests(tmp_path / "alone")


def test_a_sweep_goes_on_and_grows_without_playing_anything_again(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "c"
    play, played = trials.Trials.play, []

    def dies(self, runs):  # as by SIGKILL: nothing is done after it
        if len(played) == 1:
            raise KeyboardInterrupt
        played.append([run.path.name for run in runs])
        play(self, runs)

    words = ["--grid", "momentum=0.5,0.9", "--grid", "epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(trials.Trials, "play", dies)
        assert compare(folder, "standalone", *words) == 130
    first = folder / "standalone-0-epochs=1-momentum=0.5"
    before = contents(first)
    assert played == [[first.name]] and not (folder / "comparison.csv").exists()
    assert compare(folder, "standalone", *words) == 0
    assert contents(first) == before and len(table(folder)) == 2
    # More values, another order, and then a command that names no grid.
    more = ["--grid", "epochs=1", "--grid", "momentum=0,0.9"]
    assert compare(folder, "standalone", *more) == 0
    assert compare(folder, "standalone", "--seeds", "1") == 0
    rows = table(folder)
    assert [(row["momentum"], row["seed"]) for row in rows] == [
        ("0.0", "0"),
        ("0.5", "0"),
        ("0.9", "0"),
        ("0.9", "1"),
    ]
    assert {row["status"] for row in rows} == {"done"} and contents(first) == before
    assert {path.name for path in folder.glob("standalone-*")} == {
        "standalone-0-epochs=1-momentum=0",
        "standalone-0-epochs=1-momentum=0.5",
        "standalone-0-epochs=1-momentum=0.9",
        "standalone-1",
    }
    # What is neither swept nor of this configuration is refused, as without a grid.
    capsys.readouterr()
    assert compare(folder, "standalone", *words, "--batch-size", "32") == 2
    assert "batch_size: 64 -> 32" in capsys.readouterr().err


def test_a_run_without_a_suffix_is_the_cell_that_it_is(tmp_path):
    folder = tmp_path / "c"
    assert compare(folder, "standalone", rounds=0) == 0
    assert compare(folder, "standalone", "--grid", "momentum=0.9,0.5", rounds=0) == 0
    assert [row["momentum"] for row in table(folder)] == ["0.5", "0.9"]
    assert not (folder / "standalone-0-momentum=0.9").exists()
    # Learning rates beside a swept option.
    more = ["--grid", "momentum=0.5", "--grid", "learning_rate=0.2"]
    assert compare(folder, "standalone", *more, rounds=0) == 0
    assert (folder / "standalone-0-lr0.2-momentum=0.5").exists()
    assert len(table(folder)) == 3


def test_a_signal_between_two_algorithms_ends_in_order(tmp_path, monkeypatch, capfd):
    folder, play = tmp_path / "c", trials.Trials.play
    usual = signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def interrupted(self, runs):
        play(self, runs)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.02 * (self._stop() is None))

    try:
        with monkeypatch.context() as patch:
            patch.setattr(trials.Trials, "play", interrupted)
            assert compare(folder, "lg_fedavg,standalone", rounds=0) == 143
    finally:
        signal.signal(signal.SIGTERM, usual)
    told = capfd.readouterr().err
    assert "Stopped between two runs; the same command goes on." in told
    assert [path.name for path in folder.iterdir()] == ["lg_fedavg-0"]
    assert compare(folder, "lg_fedavg,standalone", rounds=0) == 0
    assert len(table(folder)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["momentm=0.5"], "no option to sweep 'momentm'. Did you mean 'momentum'?"),
        (["algorithm.alpa=1"], "Did you mean 'algorithm.alpha'?"),
        (["alpha=1"], "its name in a grid is algorithm.alpha"),
        (["server.max_upload=1"], "Did you mean 'max_upload_norm'?"),
        (["epochs=1,two"], "--epochs must be a whole number; got 'two'"),
        (["algorithm.alpha=0.5,yes"], "--set algorithm.alpha must be a number"),
        (["partition=iid,dirichlt:1"], "Did you mean 'dirichlet'?"),
        (["models=mlp,cnn1"], "parted by semicolons"),
        (["models=mlp;cn1,mlp"], "Did you mean 'cnn1'?"),
        (["momentum"], "--grid takes NAME=VALUE"),
        (["momentum="], "--grid takes NAME=VALUE"),
        (["dataset=digits,mnist"], "cannot sweep dataset: a comparison is of one data"),
        (["rounds=1,2"], "cannot sweep rounds: a run of more rounds holds those of"),
        (["devices=1,2"], "cannot sweep devices: it changes no result"),
        (["seed=1,2", "--seeds", "1"], "Give --seeds or --grid seed=..., not both"),
        (
            ["shared_dim=3", "--grid", "algorithm.shared_dim=4"],
            "shared_dim and algorithm.shared_dim are one option",
        ),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_written(
    tmp_path, capsys, words, message
):
    folder = tmp_path / "new"
    assert compare(folder, "fml,fedmrl", "--grid", *words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not folder.exists()


def test_values_that_are_named_alike_are_refused(tmp_path):
    base = fm.RunConfig()
    twice = {"models": ("a.b:net", "c.d:net")}
    with pytest.raises(ValueError, match="named alike"):
        comparison.plan(base, ["fml"], [0], tmp_path, twice)


def test_a_folder_says_what_was_swept_in_names_that_last(tmp_path):
    base = fm.RunConfig()
    words = ["models=mlp;cnn1,cnn2", "limit-train=none,100", "learning_rate=1e-3,0.1"]
    words += ["server.reject_nonfinite=true", "fml.alpha=1"]
    runs = comparison.plan(base, ["fml", "fd"], [3], tmp_path, grid.parse(words))
    names = [run.path.name for run in runs]
    server = "-server.reject_nonfinite=true"
    assert names[0] == (
        "fml-3-lr0.001-algorithm.alpha=1-limit_train=none-models=mlp" + server
    )
    assert names[-1] == "fd-3-lr0.1-limit_train=100-models=cnn1+cnn2" + server
    assert len(set(names)) == len(names) == 16
    for run in runs:
        again = comparison.folder(
            run.config, several=True, columns=grid_columns.said_in(run.path.name)
        )
        assert again == run.path.name


def test_the_best_is_that_of_one_split():
    names = comparison_rows.with_columns(["partition"])
    row = dict.fromkeys(names, 0) | {"status": "done"}
    made = lambda name, partition, last: (
        row
        | {"algorithm": name, "partition": partition}
        | dict.fromkeys(MEASURES, last)
    )
    rows = [
        made("fml", "iid", 0.9),
        made("fd", "iid", 0.8),
        made("fml", "class:2", 0.5),
    ]
    text = comparison_tables.to_markdown(rows, [1, 1, 1], ["partition"])
    bold = [line.split("|")[1:3] for line in text.splitlines() if "**" in line]
    assert bold == [[" fml ", " iid "], [" fml ", " class:2 "]]
    assert "Best of" not in text  # each algorithm has one cell of a split


MEASURES = measures.MEASURES


def test_of_many_curves_the_ten_best_are_named():
    curves = [(f"c{n}", [[(1, 0.1), (2, n / 20)]]) for n in range(12)]
    figure = pictures.curves(curves)
    (legend,) = [axes.get_legend() for axes in figure.axes]
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [*(f"c{n}" for n in range(2, 12)), "2 others"]


def test_the_same_in_python(swept):
    found = fm.compare(
        ["fml"],
        seeds=(0, 1),
        grid={"learning_rate": (0.01, 0.05), "algorithm.alpha": (0.25,)},
        rounds=1,
        **SMALL,
    )
    assert found.options == ["learning_rate", "algorithm.alpha"]
    assert len(found.rows()) == len(found.histories) == 4
    written = {tuple(row[k] for k in KEY): row for row in table(swept)}
    for row in found.rows():
        key = tuple(row[name] for name in KEY)
        last = float(written[tuple(map(str, key))]["last"])
        assert row["last"] == pytest.approx(last) and key in found.histories
    assert "| fml | 0.05 | 0.25 |" in found.markdown()
    frame = found.frame("rounds")
    assert frame.columns.tolist()[:4] == list(KEY) and len(frame) == 4
    (legend,) = [axes.get_legend() for axes in found.plot().axes]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["fml, 0.01, alpha 0.25", "fml, 0.05, alpha 0.25"]


KEY = ("algorithm", "seed", "learning_rate", "algorithm.alpha")


def test_a_grid_in_python_takes_networks_and_refuses_what_it_cannot_sweep():
    compare = lambda **options: fm.compare(["standalone"], rounds=0, **SMALL, **options)
    with pytest.raises(ValueError, match="Did you mean 'momentum'"):
        compare(grid={"momentm": (1,)})
    with pytest.raises(ValueError, match=r"at least one value; got 0\.5"):
        compare(grid={"momentum": 0.5})
    given = {k: v for k, v in SMALL.items() if k not in ("partition", "models")}
    with pytest.raises(ValueError, match="leave num_clients out of grid"):
        fm.compare(
            ["standalone"],
            partition=([[0, 1]], [[0, 1]]),
            grid={"num_clients": (1, 2)},
            **given,
        )
