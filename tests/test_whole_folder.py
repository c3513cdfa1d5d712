"""Folders that are written as a whole, and what a kill leaves of them."""

import os

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
            whole_folder.write(THING, path, {"mark": b"2", "of/it": b"2"})
    assert not path.exists()
    whole_folder.write(THING, path, {"mark": b"3"})
    files = {str(f.relative_to(path)): f for f in path.rglob("*") if f.is_file()}
    assert sorted(files) == ["mark", "of/mine"]
    assert files["mark"].read_bytes() == b"3"
    assert [each.name for each in tmp_path.iterdir()] == ["it"]
