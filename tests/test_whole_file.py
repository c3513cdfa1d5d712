"""Files that are written as a whole or not at all."""

import errno
import os
import stat

import pytest

from fedjax_mrl import whole_file


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(
    failing, alone, tmp_path, monkeypatch
):
    path = tmp_path / "a.txt"
    whole_file.write(path, b"old", alone=alone)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        whole_file.write(path, b"new", alone=alone)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.txt"]


def test_what_a_kill_left_is_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os.truncate(path.parent / left, 1))
        left = ".a.txt.tmp"
        whole_file.write(path, b"longer than what comes next")
    assert os.listdir(tmp_path) == [left]
    whole_file.write(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_who_may_read_it(private, mode, tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o022)
    try:
        whole_file.write(path, b"x", private=private)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(("number", "raises"), [("EINVAL", False), ("EIO", True)])
def test_folders_are_flushed_where_that_is_possible(
    number, raises, tmp_path, monkeypatch
):
    path, fsync, flushed = tmp_path / "a.txt", os.fsync, []

    def without_folders(descriptor):
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if flushed[-1]:
            raise OSError(getattr(errno, number), "of a folder")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", without_folders)
    if raises:
        with pytest.raises(OSError, match="of a folder"):
            whole_file.write(path, b"x")
    else:
        whole_file.write(path, b"x")
    assert path.read_bytes() == b"x" and flushed == [False, True]
