"""Several processes share the kept programs, and a folder that cannot be written."""

import concurrent.futures
import errno
import tempfile

import jax
import pytest

from fedjax_mrl import program_cache
from tests.test_program_cache import played, unset

__all__ = ["unset"]  # a fixture


def test_a_folder_that_cannot_be_written_is_told_of(unset, tmp_path, monkeypatch):
    """As on a disk that is mounted for reading."""

    def read_only(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    said = program_cache.use(tmp_path / "programs")
    assert said is not None and "Read-only file system" in said
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.slow
def test_two_processes_at_once_keep_programs_for_a_third(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda number: played(tmp_path, number), (0, 1))
    assert first == second and first[1] == ""
    kept = lambda: {p: p.stat().st_mtime_ns for p in tmp_path.glob("cache/**/*-cache")}
    before = kept()
    assert before
    assert played(tmp_path, 2) == first
    assert kept() == before  # nothing was compiled
