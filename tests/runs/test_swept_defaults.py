"""Values of swept options that a run has by default, in the tables of a sweep."""

import shutil

import pytest

import fedjax_mrl as fm
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import effective
from tests.runs.test_sweeps import compare, contents, table


def column(folder, name):
    """The cells of a column of comparison.md, with the algorithms."""
    lines = (folder / "comparison.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in rows if len(row) == len(rows[0])]
    place = rows[0].index(name)
    return [(row[0], row[place]) for row in rows[2:]]


def test_a_default_that_is_said_is_the_run_that_left_it_out(tmp_path, capsys):
    folder = tmp_path / "c"
    assert compare(folder, "fml", rounds=1) == 0
    before = contents(folder / "fml-0")
    grid = ["--grid", "algorithm.alpha=0.5,0.75"]
    grid += ["--grid", "server.reject_nonfinite=false"]
    assert compare(folder, "fml", *grid, rounds=1) == 0
    assert contents(folder / "fml-0") == before
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    added = "fml-0-algorithm.alpha=0.75-server.reject_nonfinite=false"
    assert names == {"fml-0", added}
    assert column(folder, "algorithm.alpha") == [("fml", "0.5"), ("fml", "0.75")]
    said = column(folder, "server.reject_nonfinite")
    assert said == [("fml", "false"), ("fml", "false")]
    # Of two folders with the same run, as an earlier version made them, one counts.
    shutil.copytree(folder / "fml-0", folder / "fml-0-lr0.01")
    capsys.readouterr()
    assert compare(folder, "fml", rounds=1) == 0
    assert len(table(folder)) == 2
    told = capsys.readouterr().err
    assert f"fml-0-lr0.01 has the settings of {folder / 'fml-0'}" in told


@pytest.mark.parametrize(
    ("options", "column", "value"),
    [
        ({}, "shared_dim", 100),
        ({"shared_dim": 50}, "algorithm.shared_dim", 50),
        ({"set": {"algorithm.shared_dim": 50}}, "shared_dim", 50),
        ({}, "algorithm.alpha", ""),  # which FedMRL does not have
        ({"algorithm": "fml"}, "shared_dim", ""),
        ({"algorithm": "of_mine"}, "algorithm.alpha", ""),
        ({}, "server.max_upload_norm", 0.0),
        ({}, "momentum", 0.9),
    ],
)
def test_what_is_in_effect(options, column, value):
    assert effective.value(fm.RunConfig(**options), column) == value


def test_runs_are_equal_however_they_say_it():
    said = RunConfig(
        set={"algorithm.shared_dim": 100, "server.reject_nonfinite": False}
    )
    assert effective.options(said) == effective.options(RunConfig())
    assert effective.options(said) == effective.options(RunConfig(shared_dim=100))
    assert effective.options(said) != effective.options(RunConfig(shared_dim=99))
