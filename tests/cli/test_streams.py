"""Output that cannot be written, or not as it is: never a traceback."""

import errno
import io
import os
import subprocess
import sys

import pytest
import rich.box
import rich.table

from fedjax_mrl.cli import console, streams
from fedjax_mrl.cli.main import main
from tests.helpers import ROOT

FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--feature-dim", "8"]
FLAGS += ["--num-clients", "4", "--algorithm", "standalone", "--partition", "iid"]
FAST = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
CLOSED = "import os, sys; [os.close(int(n)) for n in sys.argv[1]]; "
CLOSED += (
    "os.execv(sys.executable, [sys.executable, '-m', 'fedjax_mrl', *sys.argv[2:]])"
)


def text_of(descriptor, encoding="utf-8", **options):
    return os.fdopen(descriptor, "w", encoding=encoding, **options)


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    with text_of(writing) as stream:
        lenient = streams.Lenient(stream)
        lenient.write("one\n")
        lenient.flush()
        os.close(reading)
        for _ in range(3):
            assert lenient.write("two\n") == 4
            lenient.flush()
        assert lenient.error.errno == errno.EPIPE
        # Nothing is left that closing it would write.


def test_a_full_disk_is_an_error_at_the_end(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        lenient = streams.Lenient(stream)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", lenient)
            print("word")
            assert [streams.status(code) for code in (0, 143)] == [1, 143]
    told = "fedjax-mrl: The output cannot be written: No space left on device.\n"
    assert capsys.readouterr().err == 2 * told


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "a ± é ┃ \\udcff"),
        ("latin-1", "a ± é \\u2503 \\udcff"),
        ("ascii", "a +- \\xe9 \\u2503 \\udcff"),
    ],
)
def test_letters_that_cannot_be_shown_are_spelt(encoding, shown):
    kept = io.BytesIO()
    lenient = streams.Lenient(io.TextIOWrapper(kept, encoding))
    lenient.write("a ± é ┃ \udcff")
    lenient.flush()
    assert kept.getvalue().decode(encoding) == shown


def test_tables_are_drawn_with_what_there_is(monkeypatch):
    kept = io.BytesIO()
    table = rich.table.Table("clients", box=rich.box.SIMPLE_HEAD)
    table.add_row("1.5 ± 0.5")
    with monkeypatch.context() as patch:
        lenient = streams.Lenient(io.TextIOWrapper(kept, "ascii"))
        patch.setattr(sys, "stdout", lenient)
        console.show(table, "Written to é")
        lenient.flush()
    told = kept.getvalue().decode("ascii")
    assert "|1.5+-0.5|" in told.replace(" ", "") and "Written to \\xe9" in told
    assert "\\u" not in told


def test_streams_of_another_program_stay_its_own(capsys):
    before = sys.stdout, sys.stderr
    assert main(["--version"]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out.startswith("fedjax-mrl ")


def process(*words, closed="", **options):
    return subprocess.run(
        [sys.executable, "-c", CLOSED, closed, *words],
        cwd=ROOT,
        env=FAST | options.pop("env", {}),
        timeout=300,
        **options,
    )


def test_help_to_a_full_disk_and_mistakes_to_nobody():
    with open("/dev/full", "w") as full:
        ended = process("--help", stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "No space left" in ended.stderr
    assert process("evaluate", "nothing", closed="012").returncode == 2


@pytest.mark.slow
def test_training_goes_on_when_nobody_reads(tmp_path):
    """On an ASCII stream that closes after a line, with all else closed."""
    run = tmp_path / "é"
    words = [sys.executable, "-c", CLOSED, "02", "run", *FLAGS, "--rounds", "3"]
    training = subprocess.Popen(
        [*words, "--out", str(run)],
        cwd=ROOT,
        env=FAST | {"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
    )
    assert training.stdout.readline().startswith(b"round 1/3")
    training.stdout.close()
    assert training.wait(timeout=300) == 0
    assert len((run / "rounds.csv").read_text().splitlines()) == 4
    assert (run / ".lock").read_bytes() == b""


def test_a_folder_that_checkpoints_could_not_name_is_refused(tmp_path, capsys):
    out = str(tmp_path / "\udcff")
    assert main(["run", *FLAGS, "--rounds", "1", "--out", out]) == 2
    told = capsys.readouterr().err
    assert "must be text in the encoding" in told and not list(tmp_path.iterdir())
