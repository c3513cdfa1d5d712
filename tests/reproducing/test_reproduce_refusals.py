"""`fedjax-mrl reproduce` refuses, before any cell, what could not become a table."""

import dataclasses
import json
import os
import pathlib

import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.reproducing import parts, preset

TOY = """
title: Digits by two methods
repeats: the table of a test
settings:
  even: {partition: iid}
scales:
  laptop:
    options: {dataset: digits, models: [mlp], num_clients: 5, rounds: 2, devices: 1}
    cells:
      - {algorithms: [fedavg, standalone]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("toy.yaml").write_text(TOY, encoding="utf-8")
    return tmp_path


def edit(old, new, name="toy.yaml"):
    text = pathlib.Path("toy.yaml").read_text(encoding="utf-8")
    assert old in text
    pathlib.Path(name).write_text(text.replace(old, new), encoding="utf-8")


def leave_runs(out="runs/reproduce/toy", **changes):
    """Leaves what the runs of toy.yaml are found by, as after a day of training."""
    found = preset.get("toy.yaml")
    (part,) = parts.plan(found, found.scales["laptop"], pathlib.Path(out))
    for run in part.runs:
        config = dataclasses.replace(run.config, **changes)
        run.path.mkdir(parents=True)
        (run.path / "config.json").write_text(config.to_json(), encoding="utf-8")
        summary = {"rounds": config.rounds, "headline": None}
        (run.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        rows = "".join(f"{r + 1}\n" for r in range(config.rounds))
        (run.path / "rounds.csv").write_text(f"round\n{rows}", encoding="utf-8")
    (part.folder.parent / "table.csv").write_text("a finished table\n")


def contents(folder="."):
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in pathlib.Path(folder).rglob("*")
    }


def refusal(capsys, *words):
    """What both the command and its dry run say; neither touches anything."""
    before, told = contents(), set()
    for more in ([], ["--dry-run"]):
        assert main(["reproduce", *words, *more]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        told.add(said.err)
    assert contents() == before
    (text,) = told
    return text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_clients: 5", "num_clients: 6", "(there -> now): num_clients: 5 -> 6."),
        ("rounds: 2", "rounds: 3", "rounds: 2 -> 3"),
        ("partition: iid", "partition: 'dirichlet:1.0'", "'iid' -> 'dirichlet:1.0'"),
    ],
)
def test_a_finished_table_is_not_replaced_by_one_of_another_preset(
    capsys, old, new, said
):
    leave_runs()
    edit(old, new)
    told = refusal(capsys, "toy.yaml")
    folder = pathlib.Path("runs/reproduce/toy/laptop/even")
    assert f"{folder / 'fedavg-0'} (and 1 more) holds other results" in told
    assert said in told and "--overwrite" not in told
    assert f"Give another --out, or move {folder} away." in told
    assert main(["reproduce", "toy.yaml", "--out", "other", "--dry-run"]) == 0


def test_a_longer_run_in_the_way_is_told_by_its_rounds(capsys):
    edit("rounds: 2", "rounds: 2, schedule_rounds: 4")
    leave_runs(rounds=4)
    for path in pathlib.Path("runs").rglob("summary.json"):
        path.unlink()  # they have not ended
    told = refusal(capsys, "toy.yaml")
    assert "rounds: 4 -> 2. Nothing" in told and "--rounds" not in told


def test_runs_of_other_images_are_refused_before_any_cell(capsys):
    leave_runs()
    folder = pathlib.Path("runs/reproduce/toy/laptop/even")
    (folder / "fedavg-0" / "summary.json").unlink()
    for name in ("fedavg-0", "standalone-0"):
        text = json.dumps({"data_sha256": "of others"})
        (folder / name / "environment.json").write_text(text)
    before = contents()
    assert main(["reproduce", "toy.yaml", "--quiet"]) == 2
    told = capsys.readouterr()
    assert "its images are not those of now" in told.err and told.out == ""
    assert told.err.count("\n") == 1 and "--overwrite" not in told.err
    assert contents() == before


def test_an_out_that_cannot_hold_a_table_is_refused_once(capsys, monkeypatch):
    pathlib.Path("file").write_text("mine")
    assert "file is a file, not a" in refusal(capsys, "toy.yaml", "--out", "file")
    assert "file is a file, not a" in refusal(capsys, "toy.yaml", "--out", "file/a/b")
    assert "--out must name" in refusal(capsys, "toy.yaml", "--out", "")
    pathlib.Path("shut").mkdir()
    writable = lambda path, mode: pathlib.Path(path).name != "shut"
    monkeypatch.setattr(os, "access", writable)
    assert "shut cannot be written" in refusal(capsys, "toy.yaml", "--out", "shut/new")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("report.json", "report"), ("config.json", "run"), ("comparison.csv", "comp")],
)
@pytest.mark.parametrize("place", ["held", "held/laptop"])
def test_an_out_that_holds_something_else_is_refused(capsys, name, kind, place):
    pathlib.Path(place).mkdir(parents=True)
    (pathlib.Path(place) / name).write_text("{}")
    told = refusal(capsys, "toy.yaml", "--out", "held")
    assert f"{place} holds a {kind}" in told and name in told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[fedavg,", "[fedag,", ": scales.laptop.cells: algorithms: There is no algor"),
        ("[fedavg,", "[no.py:f,", ": scales.laptop.cells: algorithms: no.py:f must"),
        (
            "rounds: 2",
            "round: 2",
            ": scales.laptop.options: There is no option 'round'",
        ),
        ("rounds: 2", "rounds: -1", ": scales.laptop.options.rounds: --rounds must"),
        ("rounds: 2", "set: 2", ": scales.laptop.options.set must hold"),
        ("{partition: iid}", "{partitio: iid}", ": settings.even: There is no option"),
        ("{partition: iid}", "{preset: iid}", ": settings.even.preset: There is no"),
        ("{partition: iid}", "3", ": settings.even must hold"),
        ("{partition: iid}", "{num_clients: 0}", None),
        ("num_clients: 5", "num_clients: 0", ": settings.even: --num-clients must be"),
        ("dataset: digits", "dataset: digit", ": dataset of even: There is no dataset"),
        ("dataset: digits", "data_dir: /no", ": the data of even are to be read from"),
        ("laptop:", "full:", ": scales: There is no scale 'laptop'"),
        ("  even:", "  10:", ": settings: a name must be text and fit for a folder"),
        ("  even:", "  ../../x:", ": settings: a name must be text"),
        ("  even:", "  '.':", ": settings: a name must be text"),
        ("  even:", "  '':", ": settings: a name must be text"),
        ("standalone]", "standalone], seeds: []", ": scales.laptop.cells: seeds must"),
        ("standalone]", "fml], seeds: [1.5]", ": scales.laptop.cells: seeds must be a"),
        ("scales:", "target: {even: 7}\nscales:", ": target.even must be from 0 to 1"),
        ("scales:", "seconds: {fml: -1}\nscales:", ": seconds.fml must be at least 0"),
        ("scales:", "images: 0\nscales:", ": images must be a whole number, at least"),
        ("[fedavg,", "[fml], grid: {round: [1]}}\n      - {algorithms: [", ": scales."),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_file_and_key(capsys, old, new, said):
    edit(old, new, name="mine.yaml")
    if said is None:  # the scale's own options take its place
        assert main(["reproduce", "mine.yaml", "--dry-run"]) == 0
    else:
        assert refusal(capsys, "mine.yaml").startswith(f"fedjax-mrl: mine.yaml{said}")


def test_a_wrong_option_of_the_command_is_not_looked_for_in_the_file(capsys):
    told = refusal(capsys, "toy.yaml", "--devices", "x")
    assert told.startswith("fedjax-mrl: --devices must be")


METHOD = """
from fedjax_mrl.algorithms.standalone import standalone


def mine(setup):
    return standalone(setup)
"""


@pytest.mark.parametrize("name", ["mine", "own.py:mine"])
def test_an_own_method_has_its_figures_under_either_name(capsys, name):
    pathlib.Path("own.py").write_text(METHOD, encoding="utf-8")
    edit("[fedavg, standalone]", "[own.py:mine, standalone]")
    edit("repeats:", f"versus: {name}\npaper:\n  even: {{{name}: 61}}\nrepeats:")
    edit("repeats:", f"seconds: {{{name}: 9000, other: 1}}\nrepeats:")
    edit("    cells:", f"    expected: {{even: {{{name}: [60, 1, 2]}}}}\n    cells:")
    found = preset.get("toy.yaml")
    assert found.versus == "mine" and found.paper["even"]["mine"].value == 61
    assert main(["reproduce", "toy.yaml", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "measured  even/mine 60.00 ± 1.00" in told
    assert "even/mine-0        not run, about 5.0 h" in told


def test_a_typo_among_the_algorithms_is_not_offered_for_a_figure(capsys):
    edit("[fedavg, standalone]", "[fedavgg, standalone]")
    edit("repeats:", "paper:\n  even: {fedavg: 61}\nrepeats:")
    told = refusal(capsys, "toy.yaml")
    assert "algorithms: There is no algorithm 'fedavgg'" in told
    assert "Did you mean 'fedavg'?" in told and "paper" not in told


@pytest.mark.parametrize("given", ["./mine.conf", "mine.conf", "folder/mine", "bare"])
def test_a_path_without_the_ending_is_told_which_it_must_have(capsys, given):
    pathlib.Path("bare").touch()
    told = refusal(capsys, given)
    assert f"must end in .yaml or .yml (given: '{given}')" in told


def test_a_file_without_its_ending_is_suggested_with_it(capsys):
    assert "give toy.yaml." in refusal(capsys, "toy")
    assert "give ./toy.yaml." in refusal(capsys, "./toy")
