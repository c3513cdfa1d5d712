"""JAX's settings of the surrounding program change no number of a federation."""

import contextlib
import os
import subprocess
import sys

import jax
import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.federation import Federation
from tests.helpers import ROOT
from tests.networks import SMALL

TOY = {
    "algorithm": "lg_fedavg",
    "models": SMALL,
    "shared_model": SMALL,
    "num_clients": 4,
    "participation": 0.5,
    "partition": "iid",
    "feature_dim": 8,
    "devices": 1,
}


def digests(rounds):
    """Of the first state and of those after some rounds, and what is scored."""
    federation = Federation(**TOY)
    state, digester = federation.init(), federation.digester()
    found = [digester(state)[0]]
    for _ in range(rounds):
        state, played = federation.play(state)
        digester.touch(played.cohort)
        found.append(digester(state)[0])
    scores = federation.evaluate(state) if rounds else None
    return found, scores and (scores.correct.tolist(), scores.loss.tolist())


@pytest.fixture(scope="module")
def usual():
    with jax.numpy_dtype_promotion("standard"):
        return digests(1)


@contextlib.contextmanager
def configured(**settings):
    """Sets them for all threads, as environment variables do."""
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_default_prng_impl", "rbg"),
        ("jax_default_prng_impl", "unsafe_rbg"),
        ("jax_threefry_partitionable", False),
    ],
)
def test_the_generator_that_jax_is_set_to_changes_nothing(name, value, usual):
    with configured(**{name: value}):
        assert digests(0)[0] == usual[0][:1]


def test_precisions_that_jax_is_set_to_change_nothing(usual):
    with configured(jax_enable_x64=True, jax_default_matmul_precision="bfloat16"):
        assert digests(1) == usual


@pytest.mark.slow
def test_what_finds_mistakes_finds_none_and_changes_nothing(usual):
    with configured(
        jax_debug_nans=True,
        jax_debug_infs=True,
        jax_debug_key_reuse=True,
        jax_check_tracer_leaks=True,
        jax_numpy_dtype_promotion="strict",
        jax_numpy_rank_promotion="raise",
    ):
        assert digests(1) == usual


def test_without_compilation_nothing_begins(tmp_path, capsys):
    out = tmp_path / "run"
    with configured(jax_disable_jit=True):
        assert main(["run", "--models", "mlp", "--rounds", "1", "--out", str(out)]) == 2
        told = capsys.readouterr().err
        with pytest.raises(ValueError, match="compile nothing"):
            Federation(**TOY)
    assert "JAX_DISABLE_JIT" in told and told.count("\n") == 1 and not out.exists()


@pytest.mark.slow
def test_neither_do_variables_of_the_process(tmp_path):
    """What is read at the start, by Python, XLA, terminals and matplotlib."""
    environment = os.environ | {
        "JAX_ENABLE_CUSTOM_PRNG": "1",
        "JAX_LOG_COMPILES": "1",
        "JAX_TRACEBACK_FILTERING": "off",
        "PYTHONHASHSEED": "1",
        "PYTHONOPTIMIZE": "2",
        "OMP_NUM_THREADS": "1",
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "de_DE.UTF-8",
        "COLUMNS": "7",
        "FORCE_COLOR": "1",
        "MPLBACKEND": "NoSuchBackend",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TOY.items()]
    flags += ["--rounds", "1", "--quiet"]
    here, there = tmp_path / "here", tmp_path / "there"
    words = [sys.executable, "-m", "fedjax_mrl", "run", *flags, "--out", str(there)]
    process = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"):
        assert main(["run", *flags, "--out", str(here)]) == 0
    for name in ("digests.csv", "metrics.csv", "clients.csv"):
        assert (there / name).read_text() == (here / name).read_text()
    assert (there / "partition.png").stat().st_size > 1000
