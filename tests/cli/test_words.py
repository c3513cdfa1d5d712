"""What the commands that only tell something say."""

import re

import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main


def test_help_shows_no_empty_default(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = capsys.readouterr().out
    assert "(default )" not in told and "(default 0.01)" in told


def test_what_is_no_path_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match=r"^The run directory must be text .*got None"):
        fm.load(None)


def test_list_shows_whole_sentences(capsys, monkeypatch):
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    (line,) = (text for text in told.splitlines() if text.startswith("  fedapen"))
    assert line.endswith("with adaptability to statistical heterogeneity.")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["list"]) == 0
    wrapped = capsys.readouterr().out
    assert max(map(len, wrapped.splitlines())) <= 70
    assert re.sub(r"\s+", " ", wrapped) == re.sub(r"\s+", " ", told)
