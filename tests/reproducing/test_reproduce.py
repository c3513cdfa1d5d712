"""`fedjax-mrl reproduce`: runs what is missing, goes on, writes table and picture."""

import csv
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import presets_table
from fedjax_mrl.cli import main as cli
from fedjax_mrl.cli import signals
from fedjax_mrl.cli.main import main
from fedjax_mrl.reproducing import drawing, parts, preset, table
from fedjax_mrl.runs.directory import RunDirectory
from tests import documents
from tests.helpers import ROOT

OPTIONS = """
      dataset: digits
      models: [mlp]
      shared_model: mlp
      num_clients: 4
      feature_dim: 8
      devices: 1
      rounds: 2
      checkpoint_every: 1
      limit_train: 400
      limit_test: 100
"""
TOY = f"""
title: Digits by two methods
repeats: the table of a test
source: a test
hardware: any
picture: sweep
versus: standalone
images: 400
seconds: {{standalone: 500, other: 1000}}
settings:
  even: {{partition: iid}}
  first: {{partition: iid, schedule_rounds: 2}}
  uneven: {{partition: "dirichlet:1.0"}}
target: {{even: 0.01}}
paper:
  even: {{standalone: 50}}
unverified:
  even: {{lg_fedavg: 60}}
scales:
  laptop:
    differs: in everything
    time: made up
    options: {OPTIONS}
    settings:
      first: {{rounds: 1}}
    expected:
      even: {{standalone: [40, 1.5, 3]}}
    cells:
      - {{settings: [even], algorithms: [lg_fedavg, standalone], seeds: [0, 1]}}
      - {{settings: [first], algorithms: [standalone]}}
      - {{settings: [uneven], algorithms: [fedmrl]}}
"""
# FedMRL's d1 is 100 by default, more than these networks' 8.


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "toy.yaml"
    path.write_text(TOY, encoding="utf-8")
    return path


def reproduce(path, out, *more):
    return main(["reproduce", str(path), "--out", str(out), "--quiet", *more])


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """The whole table, of which one cell fails: its folder and exit status.

    Runs of Standalone are from a comparison that was made in the place of a setting.
    """
    out = tmp_path_factory.mktemp("made") / "toy"
    words = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "4"]
    words += ["--feature-dim", "8", "--rounds", "2", "--partition", "iid"]
    words += ["--limit-train", "400", "--limit-test", "100", "--devices", "1"]
    words += ["--checkpoint-every", "2", "--quiet"]  # which changes no number
    folder = out / "laptop" / "even"
    argv = ["compare", "--algorithms", "standalone", "--seeds", "0,1"]
    argv += ["--out", str(folder)]
    assert main([*argv, *words]) == 0
    return out, reproduce(toy, out)


def rows(out):
    with (out / "laptop" / "table.csv").open(newline="") as file:
        return {(row["setting"], row["algorithm"]): row for row in csv.DictReader(file)}


def digests(folder):
    return [row["digest"] for row in RunDirectory.open(folder).rows("rounds.csv")]


def test_a_cell_that_fails_is_said_and_the_others_are_run(made, toy, capsys):
    out, status = made
    assert status == 2
    found = rows(out)
    assert found["uneven", "fedmrl"]["status"] == "not run"
    done = [key for key, row in found.items() if row["status"].startswith("done")]
    assert len(done) == len(found) - 1 == 3
    assert reproduce(toy, out) == 2  # tries that one again
    told = capsys.readouterr()
    assert "1 of 1 cells failed: uneven/fedmrl-0. None is done; the same" in told.err
    assert "shared_dim must be at most 8" in told.err and "Traceback" not in told.err
    assert "| uneven | fedmrl |" in told.out and "3 of 4 rows are complete" in told.out


def test_the_table_has_what_was_run_beside_the_papers_figures(made):
    out, _ = made
    row = rows(out)["even", "standalone"]
    last = [
        json.loads((out / "laptop/even" / name / "summary.json").read_text())[
            "headline"
        ]
        for name in ("standalone-0", "standalone-1")
    ]
    accuracies = [100 * headline["last"] for headline in last]
    assert float(row["last"]) == pytest.approx(np.mean(accuracies), abs=1e-3)
    assert float(row["last_sd"]) == pytest.approx(np.std(accuracies, ddof=1), abs=1e-3)
    best = np.mean([100 * headline["best"] for headline in last])
    assert float(row["difference"]) == pytest.approx(best - 50, abs=1e-3)
    assert (row["paper"], row["expected"], row["seeds"]) == ("50.0", "40.0", "2")
    assert row["rounds_to_target"] == "1.0" and float(row["tflop_to_target"]) >= 0
    other = rows(out)["even", "lg_fedavg"]
    assert other["paper_verified"] == "false" and other["clients_ahead"] != ""
    text = (out / "laptop" / "table.md").read_text()
    assert "(60.00)" in text and "from memory" in text and "40.00 ± 1.50" in text
    assert (out / "laptop" / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_clients_ahead_are_the_mean_of_every_repeats_share(made):
    out, _ = made
    shares = []
    for seed in (0, 1):
        pair = [
            RunDirectory.open(out / "laptop" / "even" / f"{name}-{seed}")
            for name in ("lg_fedavg", "standalone")
        ]
        ours, theirs = (
            [
                float(row["accuracy"])
                for row in run.rows("clients.csv")
                if (row["round"], row["point"]) == ("2", "local")
            ]
            for run in pair
        )
        shares.append(100 * np.mean(np.array(ours) > np.array(theirs)))
    assert shares[0] != shares[1]
    ahead = float(rows(out)["even", "lg_fedavg"]["clients_ahead"])
    assert ahead == pytest.approx(np.mean(shares), abs=0.05)


def test_the_first_rounds_of_a_longer_run_are_a_shorter_one(made):
    out, _ = made
    row = rows(out)["first", "standalone"]
    assert "from" in row["status"] and not (out / "laptop" / "first").exists()
    metrics = RunDirectory.open(out / "laptop/even/standalone-0").rows("metrics.csv")
    (accuracy,) = {
        float(m["mean_accuracy"])
        for m in metrics
        if (m["round"], m["point"]) == ("1", "local")
    }
    assert float(row["last"]) == pytest.approx(100 * accuracy, abs=1e-3)


def test_an_interrupted_table_goes_on_with_the_same_bits(made, toy, tmp_path):
    out, _ = made
    again = tmp_path / "toy"
    assert reproduce(toy, again, "--limit", "2") == 0
    assert rows(again)["even", "standalone"]["status"] == "not run"
    half = again / "laptop" / "even" / "lg_fedavg-1"  # as a kill leaves it
    shutil.rmtree(half / "checkpoints" / "2")
    (half / "summary.json").unlink()
    first = RunDirectory.open(half).rows("rounds.csv")[0]
    assert reproduce(toy, again, "--only", "even/lg*") == 0
    for name in ("lg_fedavg-0", "lg_fedavg-1"):
        folders = (root / "laptop" / "even" / name for root in (again, out))
        one, other = map(digests, folders)
        assert one == other and len(one) == 2
    assert RunDirectory.open(half).rows("rounds.csv")[0] == first  # not played again
    assert [path.name for path in half.parent.iterdir()] == [
        "lg_fedavg-0",
        "lg_fedavg-1",
    ]
    assert rows(again)["even", "lg_fedavg"]["status"] == "done"


def test_a_run_that_diverged_says_where_it_ended(made, toy, tmp_path, capsys):
    out, _ = made
    folder = tmp_path / "toy" / "laptop" / "even" / "standalone-0"
    shutil.copytree(out / "laptop" / "even" / "standalone-0", folder)
    run = RunDirectory.open(folder)
    run.cut(1)
    assert reproduce(toy, tmp_path / "toy", "--dry-run", "--only", "*dalone-0") == 0
    assert "even/standalone-0   round 1 of 2, about" in capsys.readouterr().out
    run.write_json("summary.json", {"rounds": 1})
    assert reproduce(toy, tmp_path / "toy", "--dry-run", "--only", "*dalone-0") == 0
    assert "ended after round 1 of 2, about" in capsys.readouterr().out


def test_a_run_of_which_nothing_was_saved_says_that_it_begins_again(
    made, toy, tmp_path, capsys
):
    out, _ = made
    folder = tmp_path / "toy" / "laptop" / "even" / "standalone-0"
    shutil.copytree(out / "laptop" / "even" / "standalone-0", folder)
    run = RunDirectory.open(folder)
    before = run.rows("digests.csv")
    run.cut(1)
    shutil.rmtree(folder / "checkpoints")
    asked = (toy, tmp_path / "toy", "--only", "even/*dalone-0")
    assert reproduce(*asked, "--dry-run") == 0
    assert "even/standalone-0  begun, no round saved, ab" in capsys.readouterr().out
    assert reproduce(*asked) == 0
    told = "standalone-0: There is no checkpoint that can be used; the run begins with"
    assert told in capsys.readouterr().err
    assert run.rows("digests.csv") == before


def test_what_compare_made_is_taken_over(made, toy, tmp_path, capsys):
    out, _ = made
    assert rows(out)["even", "standalone"]["status"] == "done"
    run = out / "laptop" / "even" / "standalone-0"
    assert json.loads((run / "config.json").read_text())["checkpoint_every"] == 2
    shutil.copytree(run, tmp_path / "toy" / "laptop" / "even" / "standalone-0")
    assert reproduce(toy, tmp_path / "toy", "--dry-run", "--only", "*dalone*") == 0
    told = capsys.readouterr().out
    assert "even/standalone-0   done\n" in told and "2 of 3 cells are done" in told
    assert "first/standalone-0  done, in " in told
    assert not (tmp_path / "toy" / "laptop" / "table.csv").exists()


def test_the_plan_says_what_is_left_and_how_long_it_takes(toy, tmp_path, capsys):
    assert reproduce(toy, tmp_path, "--dry-run") == 0
    told = capsys.readouterr().out
    # 2 rounds of 400 images at 1000 s for 40,000 are 20 s, of Standalone 10 s: 80 s.
    assert "5 to run, about 1 min; 1 more will be the first rounds of these." in told
    assert "first/standalone-0  will be the first 1 rounds of even/standalone-0" in told
    assert "even/lg_fedavg-0" in told and "in everything" in told
    assert "measured  even/standalone 40.00 ± 1.50" in told
    assert not list(tmp_path.iterdir())


def test_data_that_are_not_there_are_refused_before_any_cell(
    toy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.yaml"
    path.write_text(TOY.replace("dataset: digits", "dataset: cifar10"))
    (tmp_path / "empty").mkdir()
    words = ["reproduce", "toy.yaml", "--data-dir", "empty"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "even: The data set cifar10 must lie in empty" in told
    assert "Nothing was run" in told and told.count("\n") == 1
    for more in ([], ["--dry-run"]):
        assert main(["reproduce", "toy.yaml", "--data-dir", "nowhere", *more]) == 2
        assert "read from nowhere, but there is no such" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "toy.yaml"]


def test_with_nothing_left_no_time_is_said_and_the_command_is_whole(
    made, toy, tmp_path, capsys
):
    out, _ = made
    run = "laptop/even/standalone-0"
    shutil.copytree(out / run, tmp_path / "my toy" / run)
    words = ["--only", "even/standalone-0", "--devices", "1"]
    argv = ["reproduce", str(toy), "--out", str(tmp_path / "my toy"), *words]
    assert main([*argv, "--dry-run"]) == 0
    assert "1 of 1 cells are done; 0 to run." in capsys.readouterr().out
    assert main(argv) == 0
    text = (tmp_path / "my toy" / "laptop" / "table.md").read_text()
    (command,) = re.findall("- Command: `(.*)`", text)
    given = cli.parse(shlex.split(command)[1:])
    assert (given.out, given.only, given.devices) == (argv[3], words[1:2], "1")


def test_after_ctrl_c_the_same_command_goes_on(toy, tmp_path, monkeypatch, capsys):
    calls = iter([None] * 2)
    stop = lambda self: next(calls, signal.SIGINT.value)
    monkeypatch.setattr(signals.Stop, "__call__", stop)
    only = ["--only", "even/standalone-0"]
    assert reproduce(toy, tmp_path / "toy", *only) == 128 + signal.SIGINT
    told = capsys.readouterr().err
    where = f"reproduce {toy} --scale laptop --out {tmp_path / 'toy'} --only"
    assert f"Go on with: fedjax-mrl {where} even/standalone-0" in told
    assert "resume" not in told and not (tmp_path / "toy/laptop/table.md").exists()


def test_a_swept_option_that_was_left_out_has_its_default(tmp_path):
    more = "- {settings: [uneven], algorithms: [fml, standalone]}"
    swept = "- {settings: [uneven], algorithms: [fml], grid: {algorithm.alpha: [0.3]}}"
    path = tmp_path / "toy.yaml"
    path.write_text(f"{TOY}      {more}\n      {swept}\n", encoding="utf-8")
    found = preset.get(str(path))
    scale = found.scales["laptop"]
    find = parts.Finder(tmp_path)
    cells = table.cells(found, scale, parts.plan(found, scale, tmp_path), find)
    made = [
        (row["algorithm"], row["options"])
        for row in table.rows(found, scale, cells)
        if row["setting"] == "uneven" and row["algorithm"] != "fedmrl"
    ]
    assert made == [
        ("fml", "algorithm.alpha=0.5 (default)"),
        ("standalone", ""),
        ("fml", "algorithm.alpha=0.3"),
    ]


def test_list_says_how_far_each_preset_has_come(made, toy, monkeypatch, capsys):
    out, _ = made
    monkeypatch.setattr(preset, "_FOLDER", toy.parent)
    assert main(["list", "--out", str(out.parent)]) == 0
    assert "Digits by two methods (laptop: 5 of 6 runs done)" in capsys.readouterr().out
    assert main(["list", "--out", str(out)]) == 0  # nothing there
    assert "(laptop: 0 of 6 runs done)" in capsys.readouterr().out


@pytest.mark.parametrize("picture", preset.PICTURES)
def test_every_picture_draws_what_is_done(made, toy, picture):
    out, _ = made
    found = preset.get(str(toy))._replace(picture=picture)
    scale = found.scales["laptop"]
    find = parts.Finder(out)
    cells = table.cells(found, scale, parts.plan(found, scale, out), find)
    figure = drawing.draw(found, cells)
    titles = [axes.get_title() for axes in figure.axes if axes.has_data()]
    assert titles == ["even", "first"]
    even = figure.axes[0]
    if picture == "clients":
        (line,) = [line for line in even.lines if len(line.get_xdata()) == 4]
        values = line.get_ydata()
        assert (np.diff(values) >= 0).all()
    elif picture == "table":
        labels = [text.get_text() for text in even.get_yticklabels()]
        assert labels == ["standalone", "lg_fedavg"]
    else:
        names = [text.get_text() for text in even.get_legend().get_texts()]
        assert names == ["lg_fedavg", "standalone"]
    assert drawing.draw(found, [c._replace(results=[]) for c in cells]) is None


def test_every_inference_mode_has_a_row_where_all_are_wanted(made, toy):
    out, _ = made
    found = preset.get(str(toy))
    scale = found.scales["laptop"]
    planned = parts.plan(found, scale, out)
    find = parts.Finder(out)
    heads = lambda p: [c.head for c in table.cells(p, scale, planned, find)]
    assert heads(found) == ["global", "local", "local", ""]
    # No run here has a second mode, so that one is written beside the first.
    run = RunDirectory.open(out / "laptop/even/lg_fedavg-0")
    kept = run.read_text("metrics.csv")
    own = [line for line in kept.splitlines(keepends=True) if ",local,global," in line]
    more = [line.replace(",local,global,", ",local,second,") for line in own]
    assert more
    try:
        run.write_text("metrics.csv", kept + "".join(more))
        assert "second" in heads(found._replace(heads=True))
        assert "second" not in heads(found)
    finally:
        run.write_text("metrics.csv", kept)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heterogenous-cifar10"], "Did you mean 'heterogeneous-cifar10'?"),
        (["toy.yaml", "--scale", "ful"], "There is no scale 'ful'"),
        (["toy.yaml", "--only", "even/fml-0"], "names no cell of this preset"),
        (["toy.yaml", "--limit", "0"], "--limit must be a whole number above 0"),
        (["none.yaml"], "Cannot read"),
    ],
)
def test_wrong_use_is_answered_in_one_sentence(
    toy, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(toy, "toy.yaml")
    assert main(["reproduce", *words, "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("picture: sweep", "pictures: sweep", "There is no key 'pictures'"),
        ("picture: sweep", "picture: dots", "picture must be one of table, curves"),
        ("repeats: the", "# the", "needs repeats"),
        ("[uneven]", "[unevn]", "There is no setting 'unevn'. Did you mean 'uneven'?"),
        ("[fedmrl]", "[fedmr]", "There is no algorithm 'fedmr'"),
        ("[40, 1.5, 3]", "40", "takes [mean, sd or null, repeats]"),
        ("[40, 1.5, 3]", "[x, 1, 3]", "expected.even.standalone must be a number"),
        ("{standalone: [", "{standalon: [", "There is no algorithm 'standalon'"),
        ("{standalone: 50", "{standalone: x", "toy.yaml: paper.even.standalone must"),
        ("{lg_fedavg: 60", "{lg: 60", "toy.yaml: unverified.even: There is no alg"),
        ("even: {lg_fed", "evn: {lg_fed", "unverified: There is no setting 'evn'"),
        ("standalone: 500", "standalone: yes", "seconds.standalone must be a number"),
        ("{even: 0.01}", "{even: much}", "target.even must be a number; got 'much'"),
        ("images: 400", "images: many", "toy.yaml: images must be a number"),
        ("versus: stand", "versus: sand", "versus: There is no algorithm 'sandalone'"),
        ("[uneven], algorithms: [fedmrl]", "[uneven], algorithms: fedmrl", "be a list"),
        ("dataset: digits", "dataset: digit", "There is no dataset 'digit'"),
        ("dataset: digits", "data_dir: /nowhere", "/nowhere, but there is no such"),
        ("partition: iid}", "partitions: iid}", "There is no option 'partitions'"),
    ],
)
def test_a_file_that_is_no_preset_says_where(tmp_path, capsys, old, new, message):
    path = tmp_path / "toy.yaml"
    assert old in TOY
    path.write_text(TOY.replace(old, new), encoding="utf-8")
    assert main(["reproduce", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize("name", preset.names())
def test_every_preset_is_whole_and_its_laptop_scale_takes_under_two_hours(name):
    found = preset.get(name)
    assert set(found.scales) == {"laptop", "full"}
    assert found.title and found.repeats and found.hardware
    for scale in found.scales.values():
        assert scale.differs and scale.time
        planned = parts.plan(found, scale, pathlib.Path("none"))
        settings = {part.name for part in planned}
        assert set(found.paper) <= set(scale.settings) and settings
        seconds = [
            parts.seconds(scale, run.config) for part in planned for run in part.runs
        ]
        assert all(seconds)
        if scale.name == "laptop":  # half a minute of compiling for each run
            assert sum(seconds) + 30 * len(seconds) < 7200


def test_the_page_has_the_table_that_the_presets_make():
    text = presets_table.TARGET.read_text(encoding="utf-8")
    assert presets_table.page(text) == text
    for key in preset._KEYS | preset._SCALE_KEYS | preset._CELL_KEYS:
        assert f"`{key}`" in text, key


def test_documents_reproduce_presets_that_there_are():
    named = set()
    for block in documents.blocks():
        for words in documents.commands(block.text if "sh" in block.language else ""):
            if words[:2] == ["fedjax-mrl", "reproduce"]:
                args = cli.parse(words[1:])
                assert args.scale in preset.get(args.reproduction).scales
                named.add(args.reproduction)
    assert named == set(preset.names())


def test_the_full_table_has_the_configuration_of_the_run_of_record():
    """`compare --preset paper-cifar100-n100 --eval-every 5 --rounds 500` is taken."""
    from fedjax_mrl import config
    from fedjax_mrl.runs import course

    given = {"eval_every": 5, "digest_every": 50, "checkpoint_every": 10}
    given |= {"rounds": 500, "algorithm": "fedmrl", "data_dir": "elsewhere"}
    known = config.build(config.read_preset("paper-cifar100-n100"), given)
    for name, setting in (("heterogeneous-cifar100", "n100"), ("ablations", "c100")):
        found = preset.get(name)
        planned = parts.plan(found, found.scales["full"], pathlib.Path("none"))
        (part,) = [part for part in planned if part.name == setting]
        (run,) = [run for run in part.runs if run.path.name == "fedmrl-0"]
        assert course.same(known, run.config)


@pytest.mark.slow
def test_a_table_that_was_killed_goes_on_with_the_same_bits(toy, tmp_path):
    out, again = tmp_path / "whole", tmp_path / "toy"
    words = [sys.executable, "-m", "fedjax_mrl", "reproduce", str(toy)]
    words += ["--only", "even/*", "--out", str(out)]
    subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    words[-1] = str(again)
    second = again / "laptop" / "even" / "lg_fedavg-1" / "rounds.csv"
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (second.exists() and len(second.read_text().splitlines()) > 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (again / "laptop" / "table.csv").exists()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 cells are done; 3 to run" in done.stdout
    for name in ("lg_fedavg-0", "lg_fedavg-1", "standalone-0", "standalone-1"):
        folders = (root / "laptop" / "even" / name for root in (again, out))
        one, other = map(digests, folders)
        assert one == other
    assert rows(again)["even", "standalone"]["status"] == "done"
