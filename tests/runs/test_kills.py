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

from fedjax_mrl.exporting import folder
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
    """Whether the command was killed at such a call; 0 kills at none."""
    words = [sys.executable, "-c", DYING, str(number), *words]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
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
    folder = tmp_path_factory.mktemp("runs")
    more = ["--rounds", "1", "--held-out-clients", "1", "--out", "a"]
    assert not killed(0, "run", *FLAGS, *more, cwd=folder)
    return folder / "a"


def test_compare_goes_on_after_every_kill(tmp_path):
    ask = ["compare", "--algorithms", "fd,standalone", *FLAGS, "--rounds", "2"]
    ask += ["--checkpoint-every", "1", "--out"]
    assert not killed(0, *ask, "whole", cwd=tmp_path)
    times = sum(killed(number, *ask, "b", cwd=tmp_path) for number in (2, 15, 28))
    assert times >= 2
    assert not killed(0, *ask, "b", cwd=tmp_path)
    whole, other = tmp_path / "whole", tmp_path / "b"
    assert table(other / "comparison.csv") == table(whole / "comparison.csv")
    for name in ("fd-0", "standalone-0"):
        digests = [each / name / "digests.csv" for each in (whole, other)]
        assert digests[0].read_text() == digests[1].read_text()


def test_an_export_is_whole_or_not_there(trained, tmp_path):
    ask = ["export", str(trained), "--client", "0", "--out", "model"]
    model = tmp_path / "model"
    # Three fsyncs, then the folder gets its name.
    assert killed(3, *ask, cwd=tmp_path) and not model.exists()
    assert not killed(0, *ask, cwd=tmp_path)
    (model / "note.txt").write_text("mine")
    # With one there: it goes aside, the new one takes its name, the note moves over.
    # The last kill finds the note apart, and comes when neither has the name.
    for number, remains in ((4, True), (6, True), (6, False)):
        assert killed(number, *ask, "--overwrite", cwd=tmp_path), number
        assert model.exists() == remains
        if remains:
            path, found = folder.read(model)
            assert all(folder.content(path, found, name) for name in found["files"])
    assert not killed(0, *ask, "--overwrite", cwd=tmp_path)
    assert (model / "note.txt").read_text() == "mine"
    assert not (tmp_path / ".export-old-model").exists()


def test_a_table_of_newcomers_is_whole_or_not_there(trained):
    ask = ["personalize", str(trained), "--epochs", "1"]
    path = trained / "personalized-fine-tuned.csv"
    assert not killed(0, *ask, cwd=trained.parent)
    whole = path.read_bytes()
    path.write_text("an earlier table")
    assert killed(2, *ask, "--overwrite", cwd=trained.parent)  # before it has its name
    assert path.read_text() == "an earlier table"
    path.unlink()
    assert killed(1, *ask, cwd=trained.parent) and not path.exists()
    assert not killed(0, *ask, cwd=trained.parent)
    assert path.read_bytes() == whole
