"""Errors that are no answer to what the user gave do not pass for wrong use."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest

from fedjax_mrl.cli import defects, options
from fedjax_mrl.cli.main import main
from fedjax_mrl.config import ConfigError
from tests.helpers import ROOT

RUN = ["run", "--models", "mlp", "--shared-model", "mlp", "--rounds", "0"]


def unpacked(_):
    first, second = ["alone"]
    return first, second


def unpacked_and_handed_on(_):
    try:
        first, second = ["alone"]
    except ValueError:
        raise
    return first, second


def of_the_library(_):
    return json.loads("{")


def of_compiled_code(_):
    return np.zeros(3).reshape(2)


def raised(_):
    raise ValueError("Of my own.")


def raised_and_cleaned_up(_):
    try:
        with contextlib.ExitStack():
            raise ValueError("Of my own.")
    finally:
        [].clear()


def of_the_package(_):
    raise ConfigError("No such thing.")


@pytest.mark.parametrize(
    "fails", [unpacked, unpacked_and_handed_on, of_the_library, of_compiled_code]
)
def test_a_defect_has_a_status_and_a_message_of_its_own(fails, monkeypatch, capsys):
    monkeypatch.setattr(options, "resolve", fails)
    assert main(RUN) == 1
    told = capsys.readouterr().err
    name = "JSONDecodeError" if fails is of_the_library else "ValueError"
    assert told.startswith(f"fedjax-mrl: {name}: ") and told.count("\n") == 1
    assert "defect of fedjax-mrl" in told and "FEDJAX_MRL_TRACEBACK=1" in told
    monkeypatch.setenv("FEDJAX_MRL_TRACEBACK", "1")
    assert main(RUN) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and f"in {fails.__name__}" in told


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (raised, "Of my own."),
        (raised_and_cleaned_up, "Of my own."),
        (of_the_package, "No such thing."),
    ],
)
def test_what_was_raised_on_purpose_is_wrong_use(fails, text, monkeypatch, capsys):
    monkeypatch.setattr(options, "resolve", fails)
    assert main(RUN) == 2
    assert capsys.readouterr().err == f"fedjax-mrl: {text}\n"


def test_too_little_memory_is_no_traceback(monkeypatch, capsys):
    def fails(_):
        raise MemoryError("Unable to allocate 116 TiB")

    monkeypatch.setattr(options, "resolve", fails)
    assert main(RUN) == 1
    told = capsys.readouterr().err
    assert "memory is not enough: Unable to allocate 116 TiB. `fedjax" in told


def test_an_error_that_was_never_raised_is_no_answer():
    assert not defects.foreseen(ValueError("made by hand"))


def test_a_file_that_hides_a_module_of_python_is_named(tmp_path):
    (tmp_path / "queue.py").write_text("first, second = ['alone']\n")
    process = subprocess.run(
        [sys.executable, "-m", "fedjax_mrl", *RUN, "--out", "a"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1, process.stderr
    assert process.stdout == "" and process.stderr.count("\n") == 1
    assert "ValueError: not enough values to unpack" in process.stderr
    assert "queue.py of this folder hides another module" in process.stderr
