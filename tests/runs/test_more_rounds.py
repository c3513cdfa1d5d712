"""A comparison whose runs have more or fewer rounds than a command asks for."""

import json
import shutil

import pytest

from fedjax_mrl.cli.main import main
from tests.runs.test_comparison_folder import contents, rows

OPTIONS = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "4"]
OPTIONS += ["--partition", "iid", "--feature-dim", "8", "--devices", "1"]
OPTIONS += ["--learning-rate-decay", "linear:0.1", "--limit-train", "400"]


def compare(folder, rounds, *more):
    argv = ["compare", "--algorithms", "standalone", "--out", str(folder), *OPTIONS]
    return main([*argv, "--rounds", str(rounds), *more])


def seeds(folder):
    return {seed for _, seed, _ in rows(folder)}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Of two seeds the second has gone on to another round."""
    folder = tmp_path_factory.mktemp("compared") / "c"
    assert compare(folder, 2, "--seeds", "0,1") == 0
    assert main(["resume", str(folder / "standalone-1"), "--rounds", "3"]) == 0
    return folder


@pytest.fixture
def folder(compared, tmp_path):
    return shutil.copytree(compared, tmp_path / "c")


@pytest.mark.slow
def test_a_run_of_more_rounds_is_in_nobodys_way(folder, capsys):
    before = contents(folder / "standalone-1")
    capsys.readouterr()
    assert compare(folder, 2, "--quiet") == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert "standalone-1 is of 3 rounds, not 2; it stays and is in no table" in told
    assert "--rounds 3" in told and seeds(folder) == {"0"}
    # Asked for it is, and the refusal says what to do.
    assert compare(folder, 2, "--seeds", "0,1") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "schedule_rounds" not in told, told
    assert "standalone-1 holds" in told and "--rounds 3 takes it as it is" in told
    assert contents(folder / "standalone-1") == before


@pytest.mark.slow
def test_a_comparison_goes_on_to_more_rounds_as_its_runs_would(folder, capsys):
    before = contents(folder / "standalone-1")
    capsys.readouterr()
    assert compare(folder, 3) == 0
    told = capsys.readouterr().out
    assert "standalone-0: going on after round 2 of 3" in told
    assert "Schedules stay those of 2 rounds" in told
    assert contents(folder / "standalone-1") == before
    assert {row["rounds"] for row in rows(folder).values()} == {"3"}
    assert seeds(folder) == {"0", "1"}
    # What is added has the same schedules.
    assert compare(folder, 3, "--seeds", "0,1,2", "--quiet") == 0
    assert contents(folder / "standalone-1") == before
    for seed in range(3):
        text = (folder / f"standalone-{seed}" / "config.json").read_text()
        assert json.loads(text)["schedule_rounds"] == 2
        assert json.loads(text)["rounds"] == 3
    assert capsys.readouterr().err == ""
    assert main(["verify", str(folder / "standalone-0")]) == 0


def test_runs_of_fewer_rounds_are_left_out_until_they_are_named(folder, capsys):
    assert compare(folder, 3, "--seeds", "1", "--quiet") == 0
    told = capsys.readouterr().err
    assert "standalone-0 is of 2 rounds, not 3" in told and "name its algorithm" in told
    assert seeds(folder) == {"1"}


def test_other_schedules_are_other_results(folder, capsys):
    for more in (["--schedule-rounds", "5"], ["--learning-rate-decay", "none"]):
        assert compare(folder, 3, *more) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and more[0].lstrip("-").replace("-", "_") in told
