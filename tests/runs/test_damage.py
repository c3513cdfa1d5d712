"""Random command lines and randomly damaged runs: one message, never a traceback.

CASES multiplies the number of cases; docs/reliability.md says how many were tried.
"""

import os
import pathlib
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_mrl import config
from fedjax_mrl.cli.main import main

MORE = int(os.environ.get("CASES", "1"))
SMALL = ["--algorithm", "standalone", "--models", "mlp", "--num-clients", "4"]
SMALL += ["--partition", "iid", "--feature-dim", "8", "--devices", "1", "--quiet"]
WORDS = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "-1", "1e-3", "1e400", "nan", "inf", "true", "none", "", "a,b"]
    ),
    st.sampled_from(["mlp", "cnn5", "iid", "class:2", "dirichlet:0.1", "dirichlet:-1"]),
    st.sampled_from(["file:x", "algorithm.x=1", "server.reject_nonfinite=2", "host"]),
    st.sampled_from(["~", "[", "{", "!!x"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
FLAGS = ["--" + name.replace("_", "-") for name in config.fields()]
FLAGS += [
    "--preset",
    "--config",
    "--overwrite",
    "--nonsense",
    "--distributed-",
    "--num-processes",
]
# These would make it work for long, or write where other tests look.
FLAGS = [f for f in FLAGS if f not in ("--rounds", "--models", "--num-clients")]


def everything(folder):
    """Every path below a folder with its bytes."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@settings(max_examples=12 * MORE, deadline=None, derandomize=MORE == 1, database=None)
@given(
    st.sampled_from(["run", "run", "run", "compare", "resume", "verify", "evaluate"]),
    st.lists(st.tuples(st.sampled_from(FLAGS), WORDS), min_size=1, max_size=4),
)
def test_no_command_line_gives_a_traceback_or_writes_elsewhere(
    tmp_path_factory, command, given
):
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "mine.txt").write_text("mine")
    argv = [command]
    if command in ("run", "compare"):
        argv += [*SMALL, "--rounds", "0", "--out", str(folder / "out")]
    else:
        argv += [str(folder / "mine.txt")]
    if command == "compare":
        argv += ["--algorithms", "standalone"]
    for flag, word in given:
        argv += [flag, word]
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        status = main(argv)
    finally:
        os.chdir(before)
    assert status in (0, 1, 2)
    found = everything(folder)
    assert found.pop(folder / "mine.txt") == b"mine"
    assert all(path.is_relative_to(folder / "out") for path in found), found.keys()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran") / "run"
    assert main(["run", *SMALL, "--rounds", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
@settings(max_examples=4 * MORE, deadline=None, derandomize=MORE == 1, database=None)
@given(
    st.sampled_from(["resume", "verify", "evaluate"]),
    st.integers(0, 2**32),
)
def test_no_damage_to_a_run_gives_a_traceback(tmp_path_factory, ran, command, seed):
    draw = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    copy = shutil.copytree(ran, folder / "run")
    (folder / "mine.txt").write_text("mine")
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for path in draw.sample(files, draw.randint(1, 3)):
        data = bytearray(path.read_bytes())
        kind = draw.choice(["cut", "flip", "empty", "noise", "gone"])
        at = draw.randrange(len(data)) if data else 0
        if kind == "gone":
            path.unlink()
            continue
        if kind == "cut":
            data = data[:at]
        elif kind == "empty":
            data = bytearray()
        elif kind == "flip" and data:
            data[at] ^= 1 << draw.randrange(8)
        elif data:
            data[at : at + 16] = draw.randbytes(16)
        path.write_bytes(data)
    assert main([command, str(copy), "--quiet"][: 3 - (command == "evaluate")]) in (
        0,
        1,
        2,
        3,
    )
    assert (folder / "mine.txt").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == {"mine.txt", "run"}
    shutil.rmtree(folder)
