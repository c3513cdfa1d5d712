"""The command line as its user sees it: words, files and exit statuses."""

import csv
import io
import json
import os
import pathlib
import pty
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from fedjax_mrl import algorithms, config, datasets, discovery, models, partitions
from fedjax_mrl.cli.main import commands, main
from fedjax_mrl.models import mlp
from fedjax_mrl.runs import summary as summaries
from tests.helpers import ROOT

# Five clients with a perceptron of 8 hidden units, on the digits.
SMALL = ["--models", "tiny", "--shared-model", "tiny", "--feature-dim", "8"]
SMALL += ["--num-clients", "5", "--batch-size", "32"]
NESTED = [*SMALL, "--shared-dim", "4"]
ALONE = [*SMALL, "--algorithm", "standalone"]
FILES = {
    "config.json",
    "environment.json",
    "partition.npz",
    "partition.png",
    "rounds.csv",
    "metrics.csv",
    "clients.csv",
    "summary.json",
    ".lock",
    "digests.csv",
    "checkpoints",
    "tensorboard",
}


@pytest.fixture(autouse=True, scope="module")
def _tiny_and_fast():
    def tiny(input_shape, num_classes, *, feature_dim, lowering):
        made = mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=8)
        return made._replace(name="tiny")

    discovery.find("fedjax_mrl.models")["tiny"] = tiny
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    discovery.find.cache_clear()


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys, argv, *words, status=2):
    """One line on stderr that has the words, nothing on stdout."""
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.startswith("fedjax-mrl: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, (word, err)
    return err


# --- a run that goes well -----------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of two rounds: its directory and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "first"
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        argv = ["run", *NESTED, "--rounds", "2", "--participation", "0.6"]
        argv += ["--set", "algorithm.fine_weight=2", "--out", str(folder)]
        status = main(argv)
    return folder, status, out.getvalue(), err.getvalue()


def test_a_run_prints_plain_lines_and_nothing_on_stderr(ran):
    folder, status, out, err = ran
    assert (status, err) == (0, "")
    assert "\x1b" not in out and "\r" not in out
    lines = out.splitlines()
    losses = [row["train_loss"] for row in table(folder / "rounds.csv")]
    means = [
        row["mean_accuracy"]
        for row in table(folder / "metrics.csv")
        if (row["point"], row["head"]) == ("local", "mix_large")
    ]
    for number in (1, 2):
        words = lines[number - 1].split()
        assert words[:2] == ["round", f"{number}/2"]
        assert abs(float(words[3]) - float(losses[number - 1])) < 6e-5
        assert abs(float(words[5]) - float(means[number - 1])) < 6e-5
    assert str(folder) in lines[-1]
    assert any(line.split()[:2] == ["global", "single_small"] for line in lines)


def test_a_run_directory_has_its_files_and_their_columns(ran):
    folder = ran[0]
    assert {path.name for path in folder.iterdir()} == FILES
    columns = {
        "rounds.csv": "round,seconds,participants,train_loss,bytes_down,bytes_up,"
        "flops,digest,dropped,stragglers,rejected,seconds_local,seconds_server,"
        "seconds_evaluation,seconds_writing",
        "metrics.csv": "round,point,head,clients,mean_accuracy,std_accuracy,"
        "weighted_accuracy,mean_loss,worst_accuracy,p10_accuracy",
        "clients.csv": "round,client,architecture,point,head,num_train,num_test,"
        "correct,accuracy,loss",
        "digests.csv": "round,owner,leaf,sha256",
    }
    for name, header in columns.items():
        text = (folder / name).read_text()
        assert text.splitlines()[0] == header and text.endswith("\n")
    assert (folder / "partition.png").read_bytes().startswith(b"\x89PNG")
    made = config.RunConfig.from_json((folder / "config.json").read_text())
    assert made.models == ("tiny",) and made.set == (("algorithm.fine_weight", 2),)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__


def test_the_tables_of_a_run_agree_with_each_other_and_the_partition(ran):
    folder = ran[0]
    rounds, metrics = table(folder / "rounds.csv"), table(folder / "metrics.csv")
    clients = table(folder / "clients.csv")
    split = partitions.load(folder / "partition.npz")
    assert [row["round"] for row in rounds] == ["1", "2"]
    # Three of five take part. Down and up goes the small network: 3,072 pixels to 8
    # to 4 to 10 classes, with biases, four bytes each.
    size = 4 * ((3072 + 1) * 8 + (8 + 1) * 4 + (4 + 1) * 10)
    for row in rounds:
        assert row["participants"] == "3" and len(bytes.fromhex(row["digest"])) == 32
        assert int(row["bytes_down"]) == int(row["bytes_up"]) == 3 * size
    assert rounds[0]["digest"] != rounds[1]["digest"]
    heads = ("mix_large", "mix_small", "single_small", "single_large")
    places = [(r, p, h) for r in "12" for p in ("local", "global") for h in heads]
    assert [(m["round"], m["point"], m["head"]) for m in metrics] == places
    for row in metrics:
        own = [
            c
            for c in clients
            if all(c[key] == row[key] for key in ("round", "point", "head"))
        ]
        assert [c["client"] for c in own] == list("01234")
        assert {c["architecture"] for c in own} == {"tiny"}
        for c in own:
            k = int(c["client"])
            assert int(c["num_train"]) == split.train[k].size
            assert int(c["num_test"]) == split.test[k].size
            ratio = int(c["correct"]) / int(c["num_test"])
            assert abs(float(c["accuracy"]) - ratio) < 1e-6
        accuracy = np.array([float(c["accuracy"]) for c in own])
        correct = sum(int(c["correct"]) for c in own)
        for key, value in (
            ("clients", 5),
            ("mean_accuracy", accuracy.mean()),
            ("std_accuracy", accuracy.std()),
            ("weighted_accuracy", correct / sum(int(c["num_test"]) for c in own)),
            ("mean_loss", np.mean([float(c["loss"]) for c in own])),
        ):
            np.testing.assert_allclose(float(row[key]), value, rtol=1e-5, atol=1e-6)


def test_the_summary_is_that_of_the_tables(ran):
    folder = ran[0]
    found = json.loads((folder / "summary.json").read_text())
    rounds, metrics = table(folder / "rounds.csv"), table(folder / "metrics.csv")
    curve = [
        float(row["mean_accuracy"])
        for row in metrics
        if (row["point"], row["head"]) == ("local", "mix_large")
    ]
    assert found["algorithm"] == "fedmrl" and found["dataset"] == "digits"
    assert found["rounds"] == 2 and found["digest"] == rounds[-1]["digest"]
    for name in ("bytes_down", "bytes_up", "flops"):
        assert found[name] == sum(int(row[name]) for row in rounds)
    headline = found["headline"]
    assert (headline["point"], headline["head"]) == ("local", "mix_large")
    assert headline["best_round"] == 1 + int(np.argmax(curve))
    for name, value in (
        ("last", curve[-1]),
        ("best", max(curve)),
        ("last10", sum(curve) / 2),
    ):
        assert abs(headline[name] - value) < 1e-6
    assert set(found["targets"]) == {f"{t:g}" for t in summaries.TARGETS}
    for name, reached in found["targets"].items():
        first = next((i for i, a in enumerate(curve) if a >= float(name)), None)
        assert (reached is None) == (first is None)
        assert reached is None or reached["rounds"] == first + 1


def rows_of(out):
    """Cells of the rows of a printed table of accuracies."""
    rows = [line.split() for line in out.splitlines()]
    rows = [words for words in rows if words and words[0] in ("local", "global")]
    return {(r[0], r[1]): r[2:] for r in rows if r[-1] not in ("local", "global")}


def test_evaluate_finds_again_what_the_run_wrote_down(ran, capsys):
    folder, _, printed, _ = ran
    before = contents(folder)
    assert main(["evaluate", str(folder), "--clients"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and contents(folder) == before
    assert rows_of(out) == rows_of(printed)
    for row in table(folder / "metrics.csv")[-8:]:
        mean = float(row["mean_accuracy"])
        *means, worst, tenth = map(float, rows_of(out)[row["point"], row["head"]])
        assert all(abs(cell - mean) < 6e-5 for cell in means)
        assert abs(worst - float(row["worst_accuracy"])) < 6e-5
        assert abs(tenth - float(row["p10_accuracy"])) < 6e-5
    # One line a client, with a cell for each point and head, none cut off.
    lines = [line.split() for line in out.splitlines()]
    of_clients = [words for words in lines if words[1:2] == ["tiny"]]
    assert [words[0] for words in of_clients] == list("01234")
    clients = table(folder / "clients.csv")
    for words in of_clients:
        last = [c for c in clients if (c["round"], c["client"]) == ("2", words[0])]
        expected = [f"{float(c['accuracy']):.4f}" for c in last]
        assert words[3:] == expected


def test_quiet_prints_nothing_and_overwrite_replaces_a_run(tmp_path, capsys):
    folder = tmp_path / "[/run] :smile:"  # nothing that a terminal library reads
    argv = ["run", *ALONE, "--rounds", "1", "--out", str(folder)]
    assert main([*argv, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in folder.iterdir()} == FILES
    first = table(folder / "rounds.csv")
    (folder / "notes.txt").write_text("mine")
    argv[argv.index("--rounds") + 1] = "0"
    assert main([*argv, "--overwrite"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and f"Written to {folder}\n" in out
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(first) == 1 and table(folder / "rounds.csv") == []
    assert json.loads((folder / "summary.json").read_text())["headline"] is None


def test_a_terminal_gets_a_progress_bar(tmp_path, monkeypatch):
    leader, follower = pty.openpty()
    seen = []

    def read():
        while True:
            try:
                block = os.read(leader, 4096)
            except OSError:  # the other end is closed
                return
            if not block:
                return
            seen.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w") as terminal:  # it reports no size
        assert terminal.isatty()
        monkeypatch.setattr(sys, "stdout", terminal)
        argv = ["run", *ALONE, "--rounds", "1", "--out", str(tmp_path / "run")]
        status = main(argv)
        monkeypatch.undo()
    reader.join()
    os.close(leader)
    text = b"".join(seen).decode()
    assert status == 0
    bar = [line for line in text.replace("\n", "\r").split("\r") if "100%|" in line]
    assert bar and "standalone on digits" in bar[-1] and "1/1" in bar[-1]
    assert "accuracy=0." in bar[-1] and "<00:00" in bar[-1]
    assert "0/1" in text and "compiling" in text and "compiling" not in bar[-1]
    assert "round 1/1" not in text  # the plain line of a pipe
    assert "Written to" in text


def test_the_module_runs_in_a_pipe_and_answers_mistakes_without_jax(tmp_path):
    def call(*argv):
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        answer = subprocess.run(
            [sys.executable, *argv],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environ,
            timeout=120,
        )
        return answer.returncode, answer.stdout, answer.stderr

    status, out, err = call("-m", "fedjax_mrl", "list")
    assert (status, err) == (0, "") and "  fedmrl " in out
    status, out, err = call("-m", "fedjax_mrl", "run", "--modells", "cnn1")
    assert (status, out) == (2, "")
    assert err == (
        "fedjax-mrl: There is no option --modells. Did you mean --models? "
        "See fedjax-mrl run --help.\n"
    )
    program = "import sys; from fedjax_mrl.cli.main import main; main(['run', '--x'])"
    status, out, err = call("-c", program + "; print('jax' in sys.modules)")
    assert (status, out) == (0, "False\n") and "There is no option --x" in err
    assert not list(tmp_path.iterdir())


# --- other commands ------------------------------------------------------------------


def test_list_names_everything_there_is(capsys):
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first = {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    for package in (algorithms, models, datasets, partitions):
        assert set(package.names()) <= first
    assert set(config.presets()) <= first
    assert "    --set algorithm.shared_dim=100" in out.splitlines()


def test_doctor_says_what_is_there_and_how_to_get_what_is_not(tmp_path, capsys):
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert jax.__version__ in out and "cpu" in out
    assert "digits: 1442 training and 355 test images" in out
    lines = out.splitlines()
    assert "data        cifar10: missing" in lines
    (missing,) = lines[lines.index("What is missing") + 1 :]
    assert "cifar10, cifar100" in missing and f"not in {tmp_path}; " in missing
    assert "fedjax-mrl data import cifar10" in missing and "digits" not in missing


def test_doctor_tells_damaged_data_from_missing_ones(tmp_path, capsys):
    (tmp_path / "mnist.npz").write_bytes(b"no zip")
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "data        mnist: cannot be used" in lines
    damaged, missing = lines[lines.index("What is missing") + 1 :]
    assert damaged.startswith("  data        mnist: ") and "mnist.npz" in damaged
    assert "mnist," not in missing.replace("fashion_mnist", "")


def test_version_and_help_are_answered(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedjax-mrl ")
    for argv in (["--help"], *([name, "--help"] for name in commands())):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        out, err = capsys.readouterr()
        assert exit.value.code == 0 and out.startswith("usage: fedjax-mrl") and not err


def test_no_command_shows_what_there_is_with_the_status_of_a_mistake(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert all(name in out + err for name in commands())


# --- mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], ["no command 'rnu'", "Did you mean run?"]),
        (["run", "fedmrl"], ["Unexpected 'fedmrl'"]),
        (["run", "--rounds"], ["--rounds: expected one argument"]),
        (["run", "--config", "absent.yaml"], ["absent.yaml: No such file"]),
        (["run", "--preset", "dmeo"], ["no preset 'dmeo'", "'demo'"]),
        (["run", "--set", "fine_weight"], ["algorithm.NAME=VALUE", "'fine_weight'"]),
        (["evaluate"], ["required: RUN"]),
        (["evaluate", "absent"], ["absent holds no run", "config.json"]),
        (["data", "import", "mnist"], ["Give either --from PATH or --download"]),
        (["data", "exprot", "mnist"], ["no ACTION 'exprot'"]),
    ],
)
def test_wrong_words_are_answered_in_one_line(argv, words, capsys):
    refused(capsys, argv, *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--algorithm", "fedmlr"], ["no algorithm 'fedmlr'", "'fedmrl'"]),
        (["--models", "cnn11"], ["no model 'cnn11'", "Did you mean 'cnn"]),
        (["--shared-model", "cnn11"], ["no model 'cnn11'", "Did you mean 'cnn"]),
        (["--dataset", "cifar11"], ["no dataset 'cifar11'", "Did you mean 'cifar1"]),
        (["--partition", "klass:2"], ["no partition 'klass'", "'class'"]),
        (["--rounds", "-1"], ["--rounds must be at least 0; got -1"]),
        (["--rounds", "two"], ["--rounds must be a whole number; got 'two'"]),
        (["--momentum", "1"], ["momentum must be at least 0 and below 1; got 1"]),
        (
            ["--shared-dim", "9"],
            ["at most 8, the width of tiny; got 9", "--shared-dim"],
        ),
        (
            ["--set", "algorithm.cores=2"],
            ["hyper-parameter of fedmrl 'cores'", "coarse"],
        ),
        (["--set", "algorithm.fine_weight=x"], ["fine_weight must be a number", "'x'"]),
        (["--participation", "0.05"], ["0.05 of 5 clients selects nobody", "0.2"]),
        (["--participation", "1.5"], ["at most 1; got 1.5"]),
        (["--partition", "class:3"], ["equally many portions", "15", "10 classes"]),
        (["--partition", "class:11"], ["from 1 to 10", "11"]),
        (["--partition", "dirichlet"], ["'dirichlet:0.5'"]),
        (["--partition", "file:absent.npz"], ["absent.npz", "No such file"]),
        (["--num-clients", "2000", "--partition", "iid"], ["2000 clients", "1442"]),
        (["--models", "cnn1", "--dataset", "cifar10"], ["cifar10", "import cifar10"]),
        (["--algorithm", "fedavg", "--models", "cnn5"], ["FedAvg", "cnn5", "tiny"]),
        (["--precision", "low"], ["no precision 'low'", "highest"]),
        (["--lowering", "slow"], ["lowering must be one of", "'slow'"]),
    ],
)
def test_what_cannot_be_run_is_answered_in_one_line_and_leaves_no_trace(
    flags, words, tmp_path, capsys
):
    out = tmp_path / "run"
    given = [*flags, "--data-dir", str(tmp_path), "--out", str(out)]
    small = SMALL if "fedavg" in flags else NESTED
    refused(capsys, ["run", *small, *given], *words)
    assert not list(tmp_path.iterdir())


def truncated(folder):
    """All files of CIFAR-10, but short ones."""
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(b"\0" * 3073)
    (folder / "test_batch.bin").write_bytes(b"\0" * 3073)


def incomplete(folder):
    (folder / "data_batch_1.bin").write_bytes(b"\0" * 30730000)


def cut(folder):
    np.savez(folder / "cifar10.npz", x_train=np.zeros((9, 32, 32, 3), np.uint8))
    whole = (folder / "cifar10.npz").read_bytes()
    (folder / "cifar10.npz").write_bytes(whole[: len(whole) // 2])


def of_another_shape(folder):
    x, y = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64)
    np.savez(folder / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (truncated, ["data_batch_1.bin", "it has 3073 bytes"]),
        (incomplete, ["data_batch_2.bin", "missing"]),
        (cut, ["cifar10.npz", "damaged"]),
        (of_another_shape, ["[50000, 32, 32, 3]", "[4, 8, 8, 3]"]),
    ],
)
def test_damaged_data_are_answered_in_one_line(make, words, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    make(data)
    flags = ["--dataset", "cifar10", "--data-dir", str(data)]
    refused(capsys, ["run", *NESTED, *flags, "--out", str(tmp_path / "run")], *words)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_touched(ran, capsys):
    folder = ran[0]
    before = contents(folder)
    for more in ([], ["--rounds", "1"], ["--algorithm", "standalone"]):
        argv = ["run", *SMALL, *more, "--out", str(folder)]
        refused(capsys, argv, str(folder), "already holds a run", "--overwrite")
    # Nor by a mistake that comes with --overwrite.
    argv = ["run", *NESTED, "--partition", "class:3", "--out", str(folder)]
    refused(capsys, [*argv, "--overwrite"], "portions")
    assert contents(folder) == before


def test_a_folder_that_cannot_be_made_is_answered_in_one_line(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for out, words in (
        (file, ["File exists"]),
        (file / "run", ["Not a directory"]),
        (tmp_path / ("x" * 300), ["File name too long"]),
        ("nul\0byte", ["null byte"]),
    ):
        refused(capsys, ["run", *NESTED, "--out", str(out)], "--out", *words)
    assert contents(tmp_path) == {file: b"mine"}


def test_a_folder_that_may_not_be_written_is_answered_in_one_line(tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    argv = ["run", *NESTED, "--out", str(locked / "run")]
    refused(capsys, argv, "Permission denied", "--out")


def test_a_run_that_diverges_says_where_and_keeps_what_it_had(tmp_path, capsys):
    folder = tmp_path / "run"
    argv = ["run", *ALONE, "--rounds", "3", "--learning-rate", "1e30"]
    argv += ["--quiet", "--out", str(folder)]
    words = ["diverged in round ", "client 0: private", "lower --learning-rate"]
    err = refused(capsys, argv, *words, status=3)
    last = int(err.partition("in round ")[2].partition(":")[0])
    for name in ("rounds.csv", "metrics.csv", "clients.csv"):
        numbers = {int(row["round"]) for row in table(folder / name)}
        assert numbers == set(range(1, last))
    assert json.loads((folder / "summary.json").read_text())["rounds"] == last - 1
    # The last good state, which a run with a limit would have gone on from.
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [str(last - 1)]


@pytest.fixture
def copied(ran, tmp_path):
    """A copy of the run that a test may damage."""
    folder = tmp_path / "copy"
    for path, data in contents(ran[0]).items():
        target = folder / path.relative_to(ran[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


def without(name):
    def damage(folder: pathlib.Path):
        for path in [folder / name, *(folder / name).rglob("*")][::-1]:
            path.rmdir() if path.is_dir() else path.unlink()

    return damage


def shortened(name):
    def damage(folder: pathlib.Path):
        for path in sorted(folder.glob(name)):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def another_partition(folder):
    parts = tuple(np.arange(3, dtype=np.int32) + 2000 + 3 * k for k in range(5))
    partitions.save(folder / "partition.npz", partitions.Partition(parts, parts))


def another_model(folder):
    text = (folder / "config.json").read_text()
    path = folder / "config.json"
    path.write_text(text.replace('"feature_dim": 8', '"feature_dim": 9'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("config.json"), ["holds no run"]),
        (shortened("config.json"), ["config.json must be JSON"]),
        (without("partition.npz"), ["partition.npz", "No such file"]),
        (shortened("partition.npz"), ["partition.npz", "something else"]),
        (another_partition, ["in [0, 1442)", "reach from 2000 to 2014"]),
        (without("checkpoints"), ["no checkpoint in"]),
        (without("checkpoints/2"), ["no checkpoint in", "resume"]),
        (shortened("checkpoints/2/**/*"), ["checkpoint of round 2", "cannot be read"]),
        (another_model, ["checkpoint of round 2", "feature_dim: 8 -> 9"]),
    ],
)
def test_a_damaged_run_is_answered_in_one_line(damage, words, copied, capsys, caplog):
    damage(copied)
    refused(capsys, ["evaluate", str(copied)], *words)
    assert not caplog.records  # nor in two lines, one of them another library's
