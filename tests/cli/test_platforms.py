"""A machine without the platform that JAX_PLATFORMS names."""

import os
import subprocess
import sys

import jax
import pytest

from fedjax_mrl.cli.main import main
from tests.helpers import ROOT

FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1"]
FLAGS += ["--num-clients", "5", "--algorithm", "standalone"]


@pytest.fixture
def missing(monkeypatch):
    """JAX answers as for a platform that is not installed: with a word, or without."""

    def fails(*args):
        raise next(answers)

    answers = iter([AssertionError(), RuntimeError("Unable. (set JAX_PLATFORMS='')")])
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fails)


def test_training_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    environment = os.environ | {"JAX_PLATFORMS": "abacus"}
    words = [sys.executable, "-m", "fedjax_mrl", "run", *FLAGS, "--out", "run"]
    process = subprocess.run(
        words,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert "JAX_PLATFORMS is 'abacus'" in process.stderr
    assert "Unset JAX_PLATFORMS" in process.stderr
    assert 'pip install "jax[cuda13]"' in process.stderr
    assert not list(tmp_path.iterdir())


def test_every_command_that_computes_refuses(tmp_path, missing, capsys):
    out = ["--out", str(tmp_path / "run")]
    compared = [word for word in FLAGS if word not in ("--algorithm", "standalone")]
    assert main(["plan", *FLAGS, *out]) == 2
    assert "no device" in capsys.readouterr().err
    assert main(["compare", "--algorithms", "standalone", *compared, *out]) == 2
    told = capsys.readouterr().err
    assert "): Unable. Unset" in told and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["resume", "verify", "evaluate"])
def test_so_do_those_of_an_earlier_run(command, tmp_path, missing, capsys):
    from fedjax_mrl.config import RunConfig

    config = RunConfig(models="mlp", num_clients=5)
    (tmp_path / "config.json").write_text(config.to_json())
    assert main([command, str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no device" in told and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_doctor_tells_everything_else_and_the_remedy(tmp_path, missing, capsys):
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "\ndevices     none; " in told
    first, *others = told.split("What is missing\n")[1].splitlines()
    assert first.startswith("  devices     JAX finds no device") and others
    assert 'pip install "jax[cuda13]"' in first
    assert jax.__version__ in told and "XLA_FLAGS" in told
    assert "digits: 1442 training" in told
