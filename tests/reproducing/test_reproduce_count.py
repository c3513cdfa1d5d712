"""`fedjax-mrl reproduce` counts the runs that it will really play."""

import pathlib

import pytest

from experiments import presets_table
from fedjax_mrl.cli.main import main
from fedjax_mrl.reproducing import preset

TOY = """
title: Long and short
repeats: the table of a test
seconds: {other: 3600}
settings:
  long: {partition: iid}
  short: {partition: iid, schedule_rounds: 4}
  other: {partition: iid}
scales:
  laptop:
    options: {dataset: digits, models: [mlp], num_clients: 5, rounds: 4, devices: 1}
    settings:
      short: {rounds: 2}
      other: {rounds: 2}
    cells:
      - {settings: [long, other], algorithms: [fedavg]}
      - {settings: [short], algorithms: [fedavg, standalone], seeds: [0, 1]}
"""


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("toy.yaml").write_text(TOY, encoding="utf-8")


def dry(capsys, *words):
    assert main(["reproduce", "toy.yaml", "--dry-run", *words]) == 0
    return capsys.readouterr().out


def test_the_first_rounds_of_a_longer_cell_are_not_counted(capsys):
    told = dry(capsys)
    # long 4 h, four cells of 2 rounds 2 h each.
    counted = "0 of 6 cells are done; 5 to run, about 12.0 h; 1 more will be the first"
    assert counted in told
    assert "short/fedavg-0      will be the first 2 rounds of long/fedavg-0\n" in told
    assert "short/fedavg-1      not run, about" in told  # of another seed
    assert "other/fedavg-0      not run, about" in told  # on shorter schedules


def test_without_the_longer_cell_the_shorter_one_is_counted(capsys):
    told = dry(capsys, "--only", "short/*")
    assert "0 of 4 cells are done; 4 to run, about 8.0 h.\n" in told


@pytest.mark.parametrize(
    ("limit", "said"),
    [("1", "1 to run, about 4.0 h; 1 more will"), ("2", "2 to run, about 6.0 h; 1")],
)
def test_a_limit_is_of_cells_that_are_played(capsys, limit, said):
    assert said in dry(capsys, "--only", "[ls]*", "--limit", limit)


def test_the_table_of_presets_counts_what_is_played():
    found = preset.get("toy.yaml")
    size = presets_table._size(found, found.scales["laptop"])
    assert size == "5, 12.0 h"


def test_a_dry_run_leaves_out_what_a_preset_does_not_say(capsys):
    lines = dry(capsys).splitlines()
    assert lines[2] == "scale     laptop"
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert names == ["repeats", "scale", "paper", "measured", "folder"]
