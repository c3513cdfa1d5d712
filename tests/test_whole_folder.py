"""Folders that are written as a whole, and what a kill leaves of them."""

import os
import stat

import pytest

from fedjax_mrl import whole_folder

THING = whole_folder.Kind(
    *("a", "thing", "The folder of a thing", "thing", "mark", ValueError),
    lambda path: frozenset({"mark", "of/it"}),
)


def test_what_a_killed_replacement_left_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "it"
    whole_folder.write(THING, path, {"mark": b"1", "of/it": b"1"})
    (path / "of" / "mine").write_text("mine")
    rename, calls = os.rename, []

    def killed(*names):
        calls.append(names)
        if len(calls) == 2:  # the old folder has made way, the new one is not there
            raise SystemExit
        rename(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(SystemExit):
            whole_folder.write(THING, path, {"mark": b"2"}, overwrite=True)
    assert not path.exists()
    whole_folder.write(THING, path, {"mark": b"3"}, overwrite=True)
    files = {str(f.relative_to(path)): f for f in path.rglob("*") if f.is_file()}
    assert sorted(files) == ["mark", "of/mine"]
    assert files["mark"].read_bytes() == b"3"
    assert [each.name for each in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("late", [False, True])
def test_what_came_since_the_check_is_not_replaced_unasked(late, tmp_path, monkeypatch):
    path, check = tmp_path / "it", whole_folder.check

    def faster():  # another process, which also found nothing there
        path.mkdir()
        (path / "mark").write_text("theirs")

    def checks(*given, **asked):
        None if late else faster()
        found = check(*given, **asked)
        faster() if late else None
        return found

    monkeypatch.setattr(whole_folder, "check", checks)
    message = "not empty" if late else "holds a thing already"
    with pytest.raises(OSError if late else ValueError, match=message):
        whole_folder.write(THING, path, {"mark": b"mine"})
    assert (path / "mark").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["it"]


def test_who_may_read_a_folder_stays_when_it_is_replaced(tmp_path):
    path = tmp_path / "it"
    whole_folder.write(THING, path, {"mark": b"1"})
    path.chmod(0o700)
    whole_folder.write(THING, path, {"mark": b"2"}, overwrite=True)
    assert (path / "mark").read_bytes() == b"2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
