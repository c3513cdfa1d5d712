"""kill -9 of compare, export and personalize while they write: nothing is half-written.

A process kills itself at its n-th call that makes data last or gives a file its name,
so that every such moment can be met, where a timer would meet few.
"""

import csv
import os
import signal
import subprocess
import sys

import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.exporting import folder
from fedjax_mrl.runs.directory import RunDirectory
from tests.helpers import ROOT

pytestmark = pytest.mark.slow
FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "4"]
FLAGS += ["--partition", "iid", "--limit-train", "100", "--limit-test", "50"]
FLAGS += ["--feature-dim", "8", "--shared-dim", "4", "--devices", "1", "--quiet"]
DYING = """
import os, signal, sys
left = int(sys.argv[1])
def dying(function):
    def call(*words, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words, **named)
    return call
os.fsync, os.rename, os.replace = map(dying, (os.fsync, os.rename, os.replace))
from fedjax_mrl.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def killed(number, *words, cwd):
    """Whether the command was killed at such a call; it ends where there is none."""
    words = [sys.executable, "-c", DYING, str(number), *map(str, words)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        words,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0


def table(path):
    """The rows of a comparison without its clocks."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four clients, the last of which was held out."""
    path = tmp_path_factory.mktemp("runs") / "a"
    more = ["--rounds", "1", "--held-out-clients", "1", "--out", str(path)]
    assert main(["run", *FLAGS, *more]) == 0
    return path


def test_compare_goes_on_after_every_kill(tmp_path):
    ask = ["compare", "--algorithms", "fedmrl,standalone", *FLAGS, "--rounds", "2"]
    ask += ["--checkpoint-every", "1", "--out"]
    assert main([*ask, str(tmp_path / "whole")]) == 0
    wanted = table(tmp_path / "whole" / "comparison.csv")
    times = 0
    for number in (2, 9, 16, 23, 30, 37):
        if not killed(number, *ask, "b", cwd=tmp_path):
            break
        times += 1
        for path in (tmp_path / "b").glob("*/*.csv"):
            if path.name in ("rounds.csv", "clients.csv", "metrics.csv"):
                assert RunDirectory(path.parent).rows(path.name) is not None
        if (tmp_path / "b" / "comparison.csv").exists():
            assert len(table(tmp_path / "b" / "comparison.csv")) in (1, 2)
    assert times >= 3
    assert main([*ask, str(tmp_path / "b")]) == 0
    assert table(tmp_path / "b" / "comparison.csv") == wanted
    for name in ("fedmrl-0", "standalone-0"):
        digests = [tmp_path / each / name / "digests.csv" for each in ("whole", "b")]
        assert digests[0].read_text() == digests[1].read_text()
        assert main(["verify", str(tmp_path / "b" / name)]) == 0


@pytest.mark.parametrize("there", [False, True])
def test_an_export_is_whole_or_not_there(trained, tmp_path, there):
    ask = ["export", str(trained), "--client", "0", "--out"]
    model = tmp_path / "model"
    if there:
        assert main([*ask, str(model)]) == 0
        (model / "note.txt").write_text("mine")
    more = ["--overwrite"] * there
    # Three fsyncs, then renames: the old folder, the new one, the note. The last kill
    # finds the note apart, and comes one rename earlier, when neither has the name.
    moments = [(1, True), (3, True), (4, True), (6, True), (6, False)]
    moments = moments if there else [(1, False), (3, False), (4, False)]
    for number, remains in moments:
        assert killed(number, *ask, "model", *more, cwd=tmp_path), number
        assert model.exists() == remains
        if remains:
            path, found = folder.read(model)
            assert all(folder.content(path, found, name) for name in found["files"])
    assert main([*ask, str(model), *more]) == 0
    if there:
        assert (model / "note.txt").read_text() == "mine"


def test_a_table_of_newcomers_is_whole_or_not_there(trained):
    ask = ["personalize", str(trained), "--epochs", "1"]
    path = trained / "personalized-fine-tuned.csv"
    assert main(ask) == 0
    whole = path.read_bytes()
    for number in (1, 2):  # fsync, and the file's name
        path.write_text("an earlier table")
        assert killed(number, *ask, "--overwrite", cwd=trained.parent)
        assert path.read_text() == "an earlier table"
        path.unlink()
        assert killed(number, *ask, cwd=trained.parent)
        assert not path.exists()
    assert main(ask) == 0 and path.read_bytes() == whole
    assert main(["verify", str(trained)]) == 0
