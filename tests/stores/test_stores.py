"""Stores of client states: on the devices, in memory, in files."""

import jax
import numpy as np
import pytest

from fedjax_mrl import sharding, stores
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import COLUMNS, RunDirectory
from tests.helpers import assert_trees_equal, clockless

NUMBER = 5
EVERY = np.arange(NUMBER, dtype=np.int32)
ROWS = np.array([3, 0, stores.PADDING_ROW], np.int32)


def fresh(rows):
    """The first states of rows: each knows its own."""
    rows = np.asarray(rows, np.int32)
    return {"a": np.float32(rows)[:, None] * np.ones(3, np.float32), "b": rows}


@pytest.fixture(params=["device", "host", "disk"])
def store(request, tmp_path):
    return stores.make(request.param, sharding.mesh(1), tmp_path / "clients")


@pytest.fixture
def files(tmp_path):
    return stores.make("disk", sharding.mesh(1), tmp_path)


def changed(store, handle, by=100):
    """The store after `ROWS` were taken, changed and put back."""
    which = np.zeros(ROWS.size, np.int32)
    taken = jax.tree.map(lambda leaf: leaf + by, store.take([handle], which, ROWS))
    (handle,) = store.put([handle], which, ROWS, taken)
    return handle


def expected(by=100):
    stack = jax.tree.map(np.array, fresh(EVERY))
    for leaf in stack.values():
        leaf[[3, 0]] += by
    return stack


def names(folder):
    """Row and version of each file; versions are called 1, 2, ... in their order."""
    found = [path.name.removesuffix(".npz").split("-") for path in folder.glob("g/*")]
    versions = sorted({int(version) for _, version in found})
    return sorted((int(r), versions.index(int(v)) + 1) for r, v in found)


def test_a_store_gives_back_what_was_put_and_ignores_rows_past_its_end(store):
    handle = changed(store, store.create("g", NUMBER, fresh))
    assert_trees_equal(store.read(handle, EVERY), expected())
    handle = changed(store, handle)
    assert_trees_equal(store.read(handle, EVERY), expected(200))
    assert set(EVERY[store.written(handle, EVERY)]) >= {0, 3}


def test_a_store_is_restored_from_what_it_saved(store):
    handle = changed(store, store.create("g", NUMBER, fresh))
    saved = jax.tree.map(np.copy, store.save(handle, NUMBER, 1))
    changed(store, handle)  # goes on after the checkpoint
    again = store.restore(saved, store.create("g", NUMBER, fresh))
    assert_trees_equal(store.read(again, EVERY), expected())


def test_an_unknown_store_and_one_without_a_folder_are_refused():
    with pytest.raises(ValueError, match="must be one of"):
        stores.make("attic", sharding.mesh(1))
    with pytest.raises(ValueError, match="needs a folder"):
        stores.make("disk", sharding.mesh(1))


# --- files ------------------------------------------------------------------------


def test_files_are_kept_while_a_checkpoint_needs_them(files, tmp_path):
    handle = changed(files, files.create("g", NUMBER, fresh))
    files.save(handle, NUMBER, 1)
    handle = changed(files, handle)
    files.save(handle, NUMBER, 2)
    files.prune(handle, [1, 2])
    assert names(tmp_path) == [(0, 1), (0, 2), (3, 1), (3, 2)]
    files.prune(handle, [2])
    assert names(tmp_path) == [(0, 1), (3, 1)]


def test_only_the_newest_files_are_kept_where_nothing_is_saved(files, tmp_path):
    handle = files.create("g", NUMBER, fresh)
    for number in range(1, 5):
        handle = changed(files, handle)
        assert_trees_equal(files.read(handle, EVERY), expected(100 * number))
    files.save(handle, NUMBER, 4)
    assert names(tmp_path) == [(0, 1), (3, 1)]


def test_two_federations_share_a_folder(files, tmp_path):
    another = stores.make("disk", sharding.mesh(1), tmp_path)
    one = changed(files, files.create("g", NUMBER, fresh))
    files.save(one, NUMBER, 1)  # from here on it is read from the files
    other = changed(another, another.create("g", NUMBER, fresh), by=7)
    another.save(other, NUMBER, 1)
    assert_trees_equal(files.read(one, EVERY), expected())
    assert_trees_equal(another.read(other, EVERY), expected(7))


@pytest.mark.parametrize("kind", ["host", "disk"])
def test_an_interruption_leaves_no_state_to_go_on_from(kind, tmp_path, monkeypatch):
    store = stores.make(kind, sharding.mesh(1), tmp_path)
    handle = changed(store, store.create("g", NUMBER, fresh))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(handle), "_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        changed(store, handle)
    assert handle.is_deleted()


def test_files_of_an_earlier_process_stay(files, tmp_path):
    handle = changed(files, files.create("g", NUMBER, fresh))
    saved = files.save(handle, NUMBER, 1)
    handle = changed(files, files.restore(saved, files.create("g", NUMBER, fresh)))
    files.save(handle, NUMBER, 2)
    files.prune(handle, [2])
    assert names(tmp_path) == [(0, 1), (0, 2), (3, 1), (3, 2)]


def test_states_that_were_read_ahead_are_the_newest(files):
    handle = changed(files, files.create("g", NUMBER, fresh))
    files.save(handle, NUMBER, 1)
    files.prefetch(handle, ROWS)
    handle = changed(files, handle)
    files.save(handle, NUMBER, 2)
    files.prefetch(handle, ROWS)
    assert_trees_equal(files.read(handle, EVERY), expected(200))


def test_a_failed_write_is_told_and_nothing_saved_is_lost(files, monkeypatch):
    handle = changed(files, files.create("g", NUMBER, fresh))
    saved = files.save(handle, NUMBER, 1).copy()

    def full(file, *leaves):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    handle = changed(files, handle)
    # Nothing is lost in memory either.
    assert_trees_equal(files.read(handle, EVERY), expected(200))
    with pytest.raises(OSError, match="No space left"):
        files.save(handle, NUMBER, 2)
    again = files.restore(saved, files.create("g", NUMBER, fresh))
    assert_trees_equal(files.read(again, EVERY), expected())


@pytest.mark.parametrize("damage", ["flip", "cut", "encrypt", "gone"])
def test_a_damaged_file_is_noticed(damage, files, tmp_path):
    handle = changed(files, files.create("g", NUMBER, fresh))
    saved = files.save(handle, NUMBER, 1)
    (path,) = tmp_path.glob("g/3-*.npz")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[data.index(b"\n") + 4] ^= 1  # in the numbers of the first array
    if damage == "encrypt":
        data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "gone":
        path.unlink()
    again = files.restore(saved, files.create("g", NUMBER, fresh))
    with pytest.raises(OSError, match="cannot be read"):
        files.read(again, ROWS)


# --- whole runs -------------------------------------------------------------------

TINY = ["--algorithm", "lg_fedavg", "--models", "mlp", "--shared-model", "mlp"]
TINY += ["--num-clients", "6", "--participation", "0.5", "--partition", "iid"]
TINY += ["--feature-dim", "8", "--checkpoint-every", "1", "--keep-checkpoints", "3"]
TINY += ["--eval-every", "2", "--devices", "1", "--quiet"]
TINY += ["--limit-train", "200", "--limit-test", "50"]


def tables(folder):
    run = RunDirectory.open(folder)
    return {name: [clockless(row) for row in run.rows(name)] for name in COLUMNS}


@pytest.mark.slow
def test_a_run_with_files_equals_others_and_is_resumed(tmp_path, capsys):
    whole, filed = tmp_path / "whole", tmp_path / "filed"
    store = ["--client-store", "disk"]
    assert main(["run", *TINY, "--rounds", "4", "--out", str(whole)]) == 0
    # The first rounds, and what a killed process leaves of another one.
    rounds = ["--rounds", "2", "--schedule-rounds", "4"]
    assert main(["run", *TINY, *rounds, *store, "--out", str(filed)]) == 0
    left = next((filed / "clients").glob("*/*/*.npz"))
    (left.parent / f"{left.name.split('-')[0]}-3.npz").write_bytes(b"half a state")
    assert main(["resume", str(filed), "--rounds", "4", "--quiet"]) == 0
    assert tables(filed) == tables(whole)
    before = {p: p.read_bytes() for p in (filed / "clients").glob("*/*/*")}
    assert main(["verify", str(filed)]) == 0
    assert "4 rounds are equal" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in (filed / "clients").glob("*/*/*")} == before
    assert main(["evaluate", str(filed)]) == 0
    capsys.readouterr()
    assert main(["resume", str(filed), "--client-store", "host", "--rounds", "5"]) == 2
    assert "client_store" in capsys.readouterr().err
