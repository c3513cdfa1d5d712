"""What --verbose tells, and the progress bars of the commands."""

import csv
import re

import pytest

from fedjax_mrl.cli import console
from fedjax_mrl.cli.main import main

OPTIONS = ["--algorithm", "standalone", "--models", "mlp,cnn5", "--shared-model", "mlp"]
OPTIONS += ["--num-clients", "3", "--partition", "iid", "--feature-dim", "8"]
OPTIONS += ["--limit-train", "60", "--limit-test", "30", "--devices", "1"]
LOSSES = re.compile(r"(\d+) (\d\.\d{4})")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("verbose") / "run"
    assert main(["run", *OPTIONS, "--rounds", "1", "--quiet", "--out", str(out)]) == 0
    return out


def digests(path):
    with (path / "rounds.csv").open(newline="") as file:
        return [row["digest"] for row in csv.DictReader(file)]


def test_verbose_names_round_group_and_clients(run, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["run", *OPTIONS, "--rounds", "1", "--verbose", "--out", str(out)]
    capsys.readouterr()
    assert main(words) == 0
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 6, told.err
    assert lines[0] == "round 1  mlp: 2 clients ..."
    assert re.fullmatch(
        r"round 1  mlp: 2 clients took \d+\.\d\d s(, of it \d+\.\d\d s compiling)?",
        lines[1],
    )
    assert lines[3] == "round 1  cnn5: 1 client ..."
    losses = dict(LOSSES.findall(lines[2]) + LOSSES.findall(lines[5]))
    assert list(losses) == ["0", "2", "1"]
    mean = sum(map(float, losses.values())) / 3
    (shown,) = re.findall(r"round 1/1  loss (\d\.\d{4})", told.out)
    assert float(shown) == pytest.approx(mean, abs=2e-4)
    assert digests(out) == digests(run)  # to be told changes nothing


@pytest.mark.slow
def test_verbose_tells_trials_apart(tmp_path, capsys):
    words = ["compare", "--algorithms", "standalone", *OPTIONS[2:], "--seeds", "0,1"]
    words += ["--models", "mlp", "--rounds", "1", "--quiet", "--verbose"]
    assert main([*words, "--out", str(tmp_path / "c")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "round 1  mlp: 6 clients ..."
    for line, seed in zip(lines[2:], "01", strict=True):
        assert line.startswith(f"  seed {seed}, rate 0.01, loss by client: 0 ")
        assert len(LOSSES.findall(line)) == 3


class Terminal:
    """Streams of a terminal, which keep what was written."""

    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["verify", "RUN"], "verify: 100%"),
        (["evaluate", "RUN"], "evaluate: 100%"),
        pytest.param(["plan", *OPTIONS], "plan: 100%", marks=pytest.mark.slow),
    ],
)
def test_commands_that_take_time_show_a_bar_on_a_terminal_only(
    run, capsys, monkeypatch, words, label
):
    words = [str(run) if word == "RUN" else word for word in words]
    assert main(words) == 0
    piped = capsys.readouterr()
    assert "%|" not in piped.out + piped.err and "\r" not in piped.out
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(console.sys, "stdout", Terminal(console.sys.stdout))
    assert main(words) == 0
    shown = capsys.readouterr().out
    (rate,) = re.findall(rf"{label}.*\[\d\d:\d\d<\d\d:\d\d, *(.*)\]", shown)[-1:]
    assert "/s" in rate or "s/" in rate
    if words[0] == "verify":
        assert "round 1: equal\n" in shown
