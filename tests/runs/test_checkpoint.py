"""What was saved is looked at; folders of any name; older checkpoints stay."""

import shutil

import numpy as np
import pytest

from fedjax_mrl import paths
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import checkpoint
from fedjax_mrl.runs.checkpoint import CheckpointError, Checkpoints, SaveError

ARRAYS = {"server": {"a": np.arange(6, dtype=np.float32)}, "b": np.ones((2, 3))}
RUN = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
RUN += ["--num-clients", "4", "--partition", "iid", "--feature-dim", "8", "--quiet"]
RUN += ["--checkpoint-every", "1", "--devices", "1"]


def other(round):
    return {"server": {"a": ARRAYS["server"]["a"] + round}, "b": ARRAYS["b"]}


@pytest.fixture
def lost(monkeypatch):
    """From now on the parts of a checkpoint are not put together, as below `a[b]`."""

    async def nothing(*_, **__):
        pass

    from orbax.checkpoint._src.serialization import ocdbt_utils

    def begin():
        monkeypatch.setattr(ocdbt_utils, "merge_ocdbt_per_process_files", nothing)

    return begin


@pytest.fixture
def altered(monkeypatch):
    """From now on other numbers are written than those that were given."""
    from orbax.checkpoint import args

    def begin():
        right = args.PyTreeSave
        wrong = lambda arrays: right({**arrays, "b": arrays["b"] + 1})
        monkeypatch.setattr(checkpoint.ocp.args, "PyTreeSave", wrong)

    return begin


NAMES = [
    "sweep[models=mlp]",
    "a*b",
    "a?b",
    "a\\b",
    "**",
    "gs:",
    "a b",
    "äöü 日本",
    "a\nb",
]


@pytest.mark.parametrize("name", [*NAMES, "x" * 255])
def test_a_folder_of_any_name_holds_checkpoints(tmp_path, name):
    # A pattern of its name fits this one too.
    neighbour = tmp_path / "aXb" / "checkpoints"
    for folder in (neighbour, tmp_path / name / "checkpoints"):
        with Checkpoints(folder, keep=2) as kept:
            for round in (1, 2, 3):
                kept.save(round, other(round), {"n": round})
            kept.wait()
            assert kept.rounds() == [3, 2]
    # The layout is that of any folder: it can be renamed and read.
    (tmp_path / name).rename(tmp_path / "plain")
    with Checkpoints(tmp_path / "plain" / "checkpoints") as kept:
        found = kept.read(2, ARRAYS)
    np.testing.assert_array_equal(found.arrays["server"]["a"], other(2)["server"]["a"])
    assert found.notes == {"n": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aXb", "plain"]


def test_without_another_way_to_such_a_folder_it_is_refused(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(paths, "_DESCRIPTORS", tmp_path / "absent")
    folder = tmp_path / "a[b]" / "run"
    assert main(["run", *RUN, "--rounds", "1", "--out", str(folder)]) == 2
    assert "must be without [ ]" in capsys.readouterr().err
    assert not folder.parent.exists()


def test_a_checkpoint_that_cannot_be_read_was_not_saved(tmp_path, lost):
    with Checkpoints(tmp_path, keep=1) as kept:
        kept.save(1, ARRAYS, {})
        kept.wait()
        lost()
        kept.save(2, ARRAYS, {})
        with pytest.raises(SaveError, match=r"that of round 2: it cannot be read back"):
            kept.save(3, ARRAYS, {})
        assert kept.rounds() == [1]
        assert kept.read(1, ARRAYS).round == 1


@pytest.mark.parametrize("first", [True, False])
def test_other_numbers_on_the_disk_are_noticed(tmp_path, altered, first):
    with Checkpoints(tmp_path, keep=1) as kept:
        if not first:
            kept.save(1, ARRAYS, {})
            kept.wait()
        altered()
        kept.save(2, ARRAYS, {})
        with pytest.raises(SaveError, match=r"round 2: .* its numbers differ"):
            kept.save(3, ARRAYS, {}) if first else kept.wait()
        assert kept.rounds() == ([] if first else [1])


def test_notes_that_were_not_written_are_noticed(tmp_path, monkeypatch):
    write = checkpoint.ocp.args.JsonSave
    with Checkpoints(tmp_path) as kept:
        monkeypatch.setattr(checkpoint.ocp.args, "JsonSave", lambda _: write({}))
        kept.save(1, ARRAYS, {"digest": "0"})
        with pytest.raises(SaveError, match="its notes differ"):
            kept.wait()


def test_a_large_state_is_opened_and_not_read_back(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(checkpoint, "READ_BACK", 1)
    monkeypatch.setattr(checkpoint, "_sums", None)
    with Checkpoints(tmp_path) as kept:
        kept.save(1, ARRAYS, {})
        kept.wait()
        lost()
        kept.save(2, ARRAYS, {})
        with pytest.raises(SaveError, match="read back"):
            kept.wait()


def test_a_damaged_checkpoint_is_replaced_when_its_round_is_saved_again(tmp_path):
    with Checkpoints(tmp_path, keep=2) as kept:
        for round in (1, 2):
            kept.save(round, other(round), {})
        kept.wait()
    before = (tmp_path / "1").stat().st_ctime_ns
    shutil.rmtree(tmp_path / "2" / "state" / "d")
    with Checkpoints(tmp_path, keep=2) as kept:
        for round in (1, 2):
            kept.save(round, other(round), {})
        kept.wait()
        np.testing.assert_array_equal(
            kept.read(2, ARRAYS).arrays["server"]["a"], other(2)["server"]["a"]
        )
    assert (tmp_path / "1").stat().st_ctime_ns == before


def test_the_best_one_stays_also_when_another_process_goes_on(tmp_path):
    for rounds in ((1, 2, 3), (4, 5)):
        with Checkpoints(tmp_path, keep=1) as kept:
            for round in rounds:
                kept.save(round, ARRAYS, {}, accuracy=0.9 if round == 2 else 0.1)
            kept.wait()
    assert kept.rounds() == [5, 2]


@pytest.mark.slow
def test_a_run_whose_checkpoints_cannot_be_read_ends_with_1(tmp_path, lost, capsys):
    folder = tmp_path / "run"
    assert main(["run", *RUN, "--rounds", "0", "--out", str(folder)]) == 0
    capsys.readouterr()
    lost()
    assert main(["resume", str(folder), "--rounds", "3", "--quiet"]) == 1
    told = capsys.readouterr().err
    assert "that of round 1" in told and "rounds 0." in told
    assert not (folder / "summary.json").exists()
    assert (folder / "checkpoints" / "0").is_dir()
    assert main(["evaluate", str(folder)]) == 0
    assert "round 0" in capsys.readouterr().out


def test_a_run_below_brackets_is_evaluated_and_resumed(tmp_path, capsys):
    folder = tmp_path / "sweep[models=mlp]" / "a"
    assert main(["run", *RUN, "--rounds", "0", "--out", str(folder)]) == 0
    assert main(["resume", str(folder), "--rounds", "1"]) == 0
    told = capsys.readouterr()
    assert told.err == "" and "Going on after round 0 of 1" in told.out
    assert main(["evaluate", str(folder)]) == 0


def test_arrays_are_written_as_they_lie_in_memory(tmp_path):
    class Uncopied(np.ndarray):
        def __deepcopy__(self, memo):
            raise AssertionError("Nobody changes it: a copy is a waste of memory.")

    weights = np.ones((256, 1024), np.float32).view(Uncopied)
    with Checkpoints(tmp_path) as kept:
        kept.save(1, {"w": weights}, {})
        kept.wait()
    # Compressed, a million ones would be far smaller.
    files = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(files) > weights.nbytes


def test_a_checkpoint_of_other_shapes_is_not_read(tmp_path):
    with Checkpoints(tmp_path) as kept:
        kept.save(1, ARRAYS, {})
        kept.wait()
        with pytest.raises(CheckpointError, match="of another shape are b"):
            kept.read(1, {**ARRAYS, "b": np.ones((3, 2))})
