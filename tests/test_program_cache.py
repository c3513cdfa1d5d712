"""Compiled programs are kept for the next process, and never for another machine."""

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import pytest

from fedjax_mrl import program_cache
from fedjax_mrl.cli.main import main

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "5"]
SMALL += ["--rounds", "1", "--algorithm", "standalone", "--devices", "1"]


@pytest.fixture
def unset():
    """JAX without a folder for programs, as a user's begins."""
    names = ("dir", "min_compile_time_secs", "min_entry_size_bytes")
    names = [
        f"jax_compilation_cache_{name}"
        if name == "dir"
        else f"jax_persistent_cache_{name}"
        for name in names
    ]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_go_to_the_users_cache_folder(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert program_cache.use() is None
    chosen = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert chosen.parent == tmp_path / "fedjax_mrl" / "programs"
    assert chosen.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard: ignore it
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    jax.config.update("jax_compilation_cache_dir", None)
    assert program_cache.use() is None
    assert (tmp_path / "home" / ".cache" / "fedjax_mrl" / "programs").is_dir()


def test_a_folder_that_jax_knows_already_stays(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    assert before  # the suite's own
    assert program_cache.use(tmp_path / "other") is None
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "other").exists()


def test_who_keeps_no_programs_makes_no_folder(unset, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert program_cache.use(tmp_path / "new") is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not (tmp_path / "new").exists()
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setenv("XLA_FLAGS", "--xla_other=1"),
        lambda patch: patch.setenv("NPROC", "7"),
        lambda patch: patch.setattr(jax, "__version__", "0.0.1"),
        lambda patch: patch.setattr(program_cache.jaxlib, "__version__", "0.0.1"),
        lambda patch: patch.setattr(program_cache, "_instructions", lambda: ["avx"]),
    ],
)
def test_another_machine_version_or_flag_has_another_folder(change, monkeypatch):
    here = program_cache._machine()
    assert program_cache._machine() == here
    change(monkeypatch)
    assert program_cache._machine() != here


def test_the_instructions_of_this_cpu_are_known():
    assert any(
        "flags" in line or "Features" in line for line in program_cache._instructions()
    )


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        folder = tmp_path / ("a" if age else "b")
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (10**9 - age, 10**9 - age))
    (tmp_path / "a" / "something else").write_bytes(b"x" * 1000)
    program_cache.trim(tmp_path, 200)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["middle-cache", "new-cache", "something else"]


def test_programs_that_were_cut_short_are_removed_at_the_next_look(tmp_path):
    whole = zlib.compress(b"a program" * 1000)
    for name, data in {"whole": whole, "cut": whole[:-9], "empty": b""}.items():
        (tmp_path / f"{name}-cache").write_bytes(data)
    program_cache.drop_damaged(tmp_path)
    left = lambda: sorted(path.name for path in tmp_path.glob("*-cache"))
    assert left() == ["whole-cache"]
    later = tmp_path / "later-cache"
    later.write_bytes(whole[:20])
    os.utime(later, ns=(1, 1))  # looked at already
    program_cache.drop_damaged(tmp_path)
    assert left() == ["later-cache", "whole-cache"]


@pytest.mark.parametrize("others", [0o775, 0o707])
def test_a_folder_that_others_may_write_to_is_not_used(unset, others, tmp_path):
    tmp_path.chmod(others)
    assert "others may write to it" in program_cache.use(tmp_path)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_made_is_told_of_and_the_run_goes_on(
    unset, tmp_path, monkeypatch, capsys
):
    (tmp_path / "fedjax_mrl").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["run", *SMALL, "--quiet", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "programs are not kept" in err


def played(tmp_path, number, *flags):
    """Plays a run in a process of its own: its digest and what it said on stderr."""
    known = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_")
    }
    out = tmp_path / f"run{number}"
    ended = subprocess.run(
        [sys.executable, "-m", "fedjax_mrl", "run", *SMALL, *flags, "--out", str(out)],
        cwd=ROOT,
        env=known | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    last = (out / "rounds.csv").read_text().splitlines()[-1]
    return last.split(",")[7], ended.stderr


@pytest.mark.slow
def test_digests_do_not_depend_on_kept_programs(tmp_path):
    # Of those that train and test: on a busy machine small ones may take long, too.
    found = lambda: tmp_path.glob("cache/**/jit_on_device-*-cache")
    kept = lambda: {path: path.stat().st_mtime_ns for path in found()}
    digest, _ = played(tmp_path, 0, "--no-compilation-cache")
    assert kept() == {} and len(digest) == 64
    assert played(tmp_path, 1) == (digest, "")
    first = kept()
    assert first
    assert played(tmp_path, 2) == (digest, "")
    assert kept() == first  # nothing was compiled that takes time
    for path in first:
        path.write_bytes(path.read_bytes()[:100])
    assert played(tmp_path, 3) == (digest, "")
    assert kept().keys() == first.keys()  # they were compiled and kept again
