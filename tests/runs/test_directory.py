"""Run directories of which parts lie elsewhere, and that cannot be made."""

import pytest

from fedjax_mrl.runs import directory
from fedjax_mrl.runs.directory import COLUMNS, RunDirectory, RunDirectoryError


def test_of_links_in_a_run_that_is_replaced_only_the_links_go(tmp_path):
    elsewhere = tmp_path / "large disk"
    (elsewhere / "2").mkdir(parents=True)
    run = RunDirectory.create(tmp_path / "run", config="{}")
    run.unlock()
    run.checkpoints.symlink_to(elsewhere)
    (run.path / "metrics.csv").unlink()
    (run.path / "metrics.csv").symlink_to("nowhere")
    made = RunDirectory.create(run.path, config="[]", overwrite=True)
    names = {path.name for path in made.path.iterdir()}
    assert names == {*COLUMNS, "config.json", ".lock"}
    assert not (run.path / "metrics.csv").is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["2"]


def test_a_link_that_leads_nowhere_is_no_free_place(tmp_path):
    (tmp_path / "config.json").symlink_to("nowhere")
    with pytest.raises(RunDirectoryError, match=r"already holds a run \(config.json"):
        RunDirectory.create(tmp_path)


def test_a_directory_that_could_not_be_made_is_not_kept_locked(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(directory.whole_file, "write", fails)
        with pytest.raises(RunDirectoryError, match="No space left") as failed:
            RunDirectory.create(tmp_path / "run")
    RunDirectory.create(tmp_path / "run", overwrite=True)
    assert failed.tb is not None  # it still holds what it was raised in
