"""Same seed, same bits: checkpoints, resuming, verifying, faults, and damage."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fedjax_mrl import sharding
from fedjax_mrl.cli.main import main
from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation
from fedjax_mrl.runs import runner
from fedjax_mrl.runs.directory import COLUMNS, RunDirectory, RunDirectoryError
from fedjax_mrl.simulation import cohorts, dealing, faults
from tests import helpers
from tests.helpers import ROOT, assert_trees_equal, clockless
from tests.networks import SMALL

TINY = ["--algorithm", "lg_fedavg", "--models", SMALL, "--shared-model", SMALL]
TINY += ["--num-clients", "4", "--participation", "0.5", "--partition", "iid"]
TINY += ["--feature-dim", "8", "--checkpoint-every", "2", "--keep-checkpoints", "3"]
TINY += ["--devices", "1", "--quiet"]
ROUNDS = 5


def tables(folder):
    """All tables but for the clock."""
    run = RunDirectory.open(folder)
    return {name: [clockless(row) for row in run.rows(name)] for name in COLUMNS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["run", *TINY, "--rounds", str(ROUNDS), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def cut_short(folder, rounds=3):
    """Makes of a finished run what a kill leaves in the middle of a later round."""
    for saved in (4, ROUNDS):
        shutil.rmtree(folder / "checkpoints" / str(saved))
    (folder / "summary.json").unlink()
    for name in COLUMNS:
        kept = (folder / name).read_text().splitlines(keepends=True)[1:]
        kept = [line for line in kept if int(line.split(",")[0]) <= rounds + 1]
        header = ",".join(COLUMNS[name]) + "\n"
        (folder / name).write_text(header + "".join(kept)[:-7])  # half a line


def test_a_resumed_run_leaves_the_files_of_one_that_never_stopped(whole, copied):
    cut_short(copied)
    assert main(["resume", str(copied), "--quiet"]) == 0
    assert tables(copied) == tables(whole)
    without = lambda text: {**json.loads(text), "seconds": 0}
    for folder in (whole, copied):
        assert without((folder / "summary.json").read_text())["rounds"] == ROUNDS
    expected = without((whole / "summary.json").read_text())
    assert without((copied / "summary.json").read_text()) == expected


def test_a_run_of_a_version_with_fewer_settings_goes_on(whole, tmp_path, monkeypatch):
    to_json = RunConfig.to_json

    def older(config):
        values = json.loads(to_json(config))
        del values["strategies"]
        return json.dumps(values)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunConfig, "to_json", older)
        assert main(["run", *TINY, "--rounds", "2", "--out", str(folder)]) == 0
    assert "strategies" not in (folder / "config.json").read_text()
    assert main(["resume", str(folder), "--rounds", "3", "--quiet"]) == 0
    found, expected = (
        [row["digest"] for row in RunDirectory.open(path).rows("rounds.csv")]
        for path in (folder, whole)
    )
    assert found == expected[:3]


def test_more_rounds_go_on_as_a_longer_run_would(whole, copied, tmp_path):
    longer = tmp_path / "longer"
    argv = ["run", *TINY, "--rounds", "7", "--schedule-rounds", "5"]
    assert main([*argv, "--out", str(longer)]) == 0
    assert main(["resume", str(copied), "--rounds", "7", "--quiet"]) == 0
    assert tables(copied) == tables(longer)


def test_a_run_without_checkpoint_is_resumed_from_its_beginning(whole, copied, capsys):
    cut_short(copied)
    shutil.rmtree(copied / "checkpoints")
    (copied / "partition.npz").unlink()
    assert main(["resume", str(copied), "--quiet"]) == 0
    assert "the run begins with round 1" in capsys.readouterr().err
    assert tables(copied) == tables(whole)


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        (lambda path: path.symlink_to("/not/mounted"), "a link that leads nowhere"),
        (lambda path: path.write_text("mine"), "but is a file"),
        (lambda path: path.mkdir(), "although the run has ended"),
        (lambda path: None, "although the run has ended"),
    ],
)
def test_of_a_run_whose_checkpoints_are_out_of_reach_nothing_is_lost(
    instead, words, copied, capsys
):
    shutil.rmtree(copied / "checkpoints")
    instead(copied / "checkpoints")
    before = tables(copied)
    for argv in (["resume", "--rounds", "9"], ["evaluate"]):
        assert main([argv[0], str(copied), *argv[1:]]) == 2
        told = capsys.readouterr().err
        assert words in told and "Bring the folder back" in told
    assert tables(copied) == before and (copied / "summary.json").exists()


@pytest.mark.parametrize("notes", ["[]", "{}", '{"digest": 1, "config": 2}'])
def test_of_a_checkpoint_with_damaged_notes_the_one_before_is_used(
    notes, copied, capsys
):
    (copied / "checkpoints" / str(ROUNDS) / "notes" / "metadata").write_text(notes)
    assert main(["evaluate", str(copied)]) == 0
    told = capsys.readouterr()
    assert "notes are damaged. Now the one before it is tried" in told.err
    assert "round 4" in told.out


def flip_a_bit(folder):
    """Damages the largest file of a checkpoint in its middle."""
    largest = max(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate])
def test_of_a_damaged_checkpoint_the_one_before_is_used(damage, whole, copied, capsys):
    (copied / "summary.json").unlink()
    damage(copied / "checkpoints" / str(ROUNDS))
    assert main(["resume", str(copied), "--quiet"]) == 0
    told = capsys.readouterr().err
    assert f"checkpoint of round {ROUNDS}" in told and "before it is tried" in told
    assert tables(copied) == tables(whole)


def test_another_configuration_is_refused_with_the_keys_that_differ(copied, capsys):
    before = tables(copied)
    argv = ["resume", str(copied), "--batch-size", "8", "--seed", "1"]
    assert main([*argv, "--rounds", "9"]) == 2
    told = capsys.readouterr().err
    assert "batch_size: 64 -> 8" in told and "seed: 0 -> 1" in told
    text = (copied / "config.json").read_text()
    (copied / "config.json").write_text(text.replace('"epochs": 1', '"epochs": 2'))
    assert main(["resume", str(copied), "--rounds", "9"]) == 2
    assert "epochs: 1 -> 2" in capsys.readouterr().err
    # One whose states would not fit is no damaged checkpoint either.
    other = json.dumps(json.loads(text) | {"algorithm": "fml"})
    (copied / "config.json").write_text(other)
    assert main(["resume", str(copied), "--rounds", "9"]) == 2
    assert "algorithm: 'lg_fedavg' -> 'fml'" in capsys.readouterr().err
    assert tables(copied) == before


def test_changed_data_are_noticed(copied, capsys):
    path = copied / "environment.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"data_sha256": "0" * 64}))
    assert main(["resume", str(copied), "--rounds", "9"]) == 2
    assert "checksum differs" in capsys.readouterr().err


def test_verify_says_equal_or_where_the_first_difference_lies(copied, capsys):
    assert main(["verify", str(copied), "--rounds", "3"]) == 0
    out = capsys.readouterr().out
    assert "round 3: equal" in out and "3 rounds are equal, bit for bit" in out
    found = RunDirectory(copied).rows("digests.csv")
    row = next(r for r in found if r["round"] == "2" and "client" in r["owner"])
    text = (copied / "digests.csv").read_text()
    line = ",".join(row.values())
    assert text.count(line) == 1
    text = text.replace(line, line.replace(row["sha256"], "0" * 64))
    (copied / "digests.csv").write_text(text)
    sha = RunDirectory(copied).rows("rounds.csv")[1]["digest"]
    text = (copied / "rounds.csv").read_text()
    (copied / "rounds.csv").write_text(text.replace(sha, "1" * 64))
    assert main(["verify", str(copied)]) == 1
    out = capsys.readouterr().out
    assert f"round 2: {row['owner']}, leaf {row['leaf']}" in out
    assert "environment is the same" in out
    path = copied / "environment.json"
    found = json.loads(path.read_text())
    found["environments"][0]["backend"] = "abacus"
    path.write_text(json.dumps(found))
    assert main(["verify", str(copied)]) == 1
    assert "backend: abacus -> cpu" in capsys.readouterr().out


def test_verify_says_what_the_record_has_no_line_of(copied, capsys):
    table = copied / "rounds.csv"
    text = table.read_text()
    head, first, second, *rest = text.splitlines(keepends=True)
    blank = "1" + "," * first.count(",") + "\n"
    table.write_text("".join([head, blank, second, *rest]))
    assert main(["verify", str(copied), "--rounds", "2"]) == 1
    out = capsys.readouterr().out
    assert "1 rounds are equal" in out and "can be read: 1.\n" in out
    table.write_text("".join([head, first, blank.replace("1", "2", 1)]))
    assert main(["verify", str(copied), "--rounds", "2"]) == 1
    assert "can be read: 2.\n" in capsys.readouterr().out
    table.unlink()
    table.mkdir()
    assert main(["verify", str(copied)]) == 1
    assert "holds no digest to compare with" in capsys.readouterr().out
    table.rmdir()
    table.write_text(text)
    (copied / "digests.csv").unlink()
    assert main(["verify", str(copied), "--rounds", "1"]) == 0


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_not_in_the_way(copied):
    holder = "import sys; from fedjax_mrl.runs.directory import RunDirectory as R\n"
    holder += (
        "r = R(sys.argv[1]); r.lock(); print('locked', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", holder, str(copied)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunDirectoryError, match="Another process is writing"):
            RunDirectory.open(copied).lock()
        assert main(["resume", str(copied), "--rounds", "9"]) == 2
        process.kill()
    RunDirectory.open(copied).lock()


@contextlib.contextmanager
def started(*words, **options):
    """A process of the command line, which does not outlive the test."""
    words = [sys.executable, "-c", helpers.HEEDING, "-m", "fedjax_mrl", *words]
    process = subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_rounds(folder, number):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        there = (folder / "rounds.csv").exists()
        if there and len(RunDirectory(folder).rows("rounds.csv")) >= number:
            return
        time.sleep(0.02)
    raise AssertionError("no rounds")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_after_its_round_with_a_checkpoint(number, tmp_path):
    folder = tmp_path / "run"
    argv = ["run", *TINY, "--rounds", "100000", "--checkpoint-every", "100000"]
    with started(*argv, "--out", str(folder)) as process:
        wait_for_rounds(folder, 2)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 128 + number
    assert f"fedjax-mrl resume {folder}" in told and "Traceback" not in told
    played = RunDirectory(folder).rows("rounds.csv")
    (saved,) = (folder / "checkpoints").iterdir()
    assert int(saved.name) == len(played)


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoints_and_says_so(whole, copied):
    # A limit on the size of any file stands for a full disk: 100 kB are less than a
    # checkpoint and more than the tables.
    code = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (100_000, 100_000)); "
    code += "from fedjax_mrl.cli.main import main; import sys; sys.exit(main())"
    words = [sys.executable, "-c", code, "resume", str(copied), "--rounds", "9"]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    told = process.stderr
    assert process.returncode == 1 and "Traceback" not in told
    assert "Cannot save a checkpoint" in told and f"{ROUNDS}" in told
    assert main(["resume", str(copied), "--rounds", "9", "--quiet"]) == 0
    assert len(tables(copied)["rounds.csv"]) == 9


def test_a_folder_that_becomes_read_only_ends_a_run_with_one_message(
    tmp_path, capsys, monkeypatch
):
    write = RunDirectory.append

    def fails(self, name, rows):
        if name == "rounds.csv" and rows[0]["round"] == 3:
            raise OSError(30, "Read-only file system", name)
        write(self, name, rows)

    monkeypatch.setattr(RunDirectory, "append", fails)
    folder = tmp_path / "run"
    assert main(["run", *TINY, "--rounds", "4", "--out", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "Read-only file system" in told and "resume" in told
    monkeypatch.undo()
    assert main(["resume", str(folder), "--quiet"]) == 0
    assert len(tables(folder)["rounds.csv"]) == 4


def test_time_is_measured_by_a_clock_that_never_goes_back():
    for path in (ROOT / "fedjax_mrl").rglob("*.py"):
        assert "time.time(" not in path.read_text(), path


# --- layouts ----------------------------------------------------------------------


LAYOUTS = """
import sys
from fedjax_mrl.federation import Federation
for devices, store in ((1, "device"), (2, "host"), (8, "device")):
    federation = Federation(
        algorithm="lg_fedavg", models=("mlp",), shared_model="mlp", num_clients=5,
        participation=0.6, partition="iid", feature_dim=8, devices=devices,
        client_store=store,
    )
    state, digester = federation.init(), federation.digester()
    for _ in range(2):
        state, _ = federation.play(state)
    print(digester(state)[0], federation.evaluate(state).correct.sum())
"""


@pytest.mark.slow
def test_devices_and_stores_change_no_bit():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    found = subprocess.run(
        [sys.executable, "-c", LAYOUTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert len(found[0]) > 64 and len(set(found[:3])) == 1


def test_members_are_dealt_so_that_no_device_waits_long():
    costs = np.array([9, 1, 8, 2, 7, 3, 0])
    dealt, busy = dealing.assign(costs, np.zeros(3), 3)
    assert sorted(np.concatenate(dealt)) == list(range(7))
    loads = [costs[places].sum() for places in dealt]
    assert max(loads) == 10 and all(places.size <= 3 for places in dealt)
    for places in dealt:
        assert (np.diff(costs[places]) <= 0).all()
    assert busy.tolist() == loads
    dealt, busy = dealing.assign(np.ones(4), np.zeros(4), 1)
    assert [p.size for p in dealt] == [1, 1, 1, 1]
    dealt, busy = dealing.assign(np.ones(3), np.array([2.5, 0.0]), 3)
    assert [p.size for p in dealt] == [0, 3] and busy.tolist() == [2.5, 3.0]
    with pytest.raises(ValueError, match="--devices 3 needs as many"):
        sharding.mesh(3)


# --- seeds ------------------------------------------------------------------------


def test_split_initial_weights_and_training_have_seeds_of_their_own():
    def of(**seeds):
        config = RunConfig(
            algorithm="fedmrl",
            models="mlp",
            shared_model="mlp",
            num_clients=4,
            participation=0.5,
            partition="iid",
            feature_dim=8,
            shared_dim=4,
            **seeds,
        )
        built = Federation(config)
        weights = built.digester()(built.init())[0]
        drawn = [
            cohorts.cohort(config.seed, r, num_clients=4, cohort_size=2).tolist()
            for r in range(8)
        ]
        return built.partition.train[0].tolist(), weights, drawn

    base = of(init_seed=0)
    split, weights, drawn = of(data_seed=1, init_seed=0)
    assert split != base[0] and (weights, drawn) == base[1:]
    split, weights, drawn = of(init_seed=1)
    assert weights != base[1] and (split, drawn) == (base[0], base[2])
    split, weights, drawn = of(seed=1, init_seed=0)
    assert drawn != base[2] and (split, weights) == base[:2]


# --- client faults ----------------------------------------------------------------


def test_faults_are_drawn_by_seed_round_and_client():
    everyone = np.arange(400)
    draw = lambda *path, **rates: faults.completed(
        *path, **({"dropout": 0.0, "straggler": 0.0} | rates)
    )
    assert (draw(0, 1, everyone) == 1).all()
    share = draw(0, 1, everyone, dropout=0.25, straggler=0.5)
    assert 60 < (share == 0).sum() < 140  # five standard deviations of a binomial
    slow = (share > 0) & (share < 1)
    assert 110 < slow.sum() < 200 and 0.4 < share[slow].mean() < 0.6
    np.testing.assert_array_equal(
        share[200:], draw(0, 1, everyone[200:], dropout=0.25, straggler=0.5)
    )
    assert (share != draw(0, 2, everyone, dropout=0.25, straggler=0.5)).any()
    assert len(faults.cut(np.zeros((10, 4)), 0.31)) == 4
    assert len(faults.cut(np.zeros((10, 4)), 0.001)) == 1


@pytest.mark.slow
def test_dropouts_and_stragglers_change_no_one_else():
    toy = helpers.toy("fedmrl", cohort_size=8)
    plain = toy.make()
    toy.config = toy.config._replace(seed=2, dropout=0.3, straggler=0.5)
    play = toy.make()
    one = plain(toy.init(), 2)[0]
    state, played = play(toy.init())
    assert 0 < played.reported.size < 8 and played.stragglers > 0
    before = toy.client_states(toy.init())
    after, usual = toy.client_states(state), toy.client_states(one)
    share = faults.completed(2, 1, played.cohort, dropout=0.3, straggler=0.5)
    assert {0.0, 1.0} <= set(share)
    for client in played.cohort.tolist():
        if share[client] == 0:
            assert_trees_equal(after[client], before[client])
        elif share[client] == 1:
            assert_trees_equal(after[client], usual[client])
    sizes = {played.reported.size}
    for _ in range(6):
        state, played = play(state)
        sizes.add(played.reported.size)
    assert len(sizes) > 1


def poisoned(toy, clients):
    """The toy's first state with some clients' networks not finite."""
    state = jax.device_get(toy.init())
    for group in toy.groups:
        rows = np.isin(group.clients, clients)

        def spoil(leaf, rows=rows):
            leaf = np.array(leaf)
            leaf[rows] = np.nan
            return leaf

        private, shared = state.clients[group.name]
        state.clients[group.name] = jax.tree.map(spoil, private), shared
    return state


@pytest.mark.slow
def test_uploads_that_are_not_finite_are_left_out_if_asked():
    toy = helpers.toy("fml", cohort_size=8)
    state, played = toy.make()(jax.device_put(poisoned(toy, [2, 5])))
    told = runner.divergence(played.fetch(), 1)
    assert "client 2: private" in told and "client 5: private" in told
    assert "round 1" in told and "after round 0 is saved" in told
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.server))

    toy.config = toy.config._replace(reject_nonfinite=True)
    state, played = toy.make()(jax.device_put(poisoned(toy, [2, 5])))
    played = played.fetch()
    assert played.rejected == 2 and not played.sound[[2, 5]].any()
    config = RunConfig(set={"server.reject_nonfinite": True})
    assert runner.divergence(played, 1, config) is None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.server))
    # As if they had not reported at all.
    only = np.array([0, 1, 3, 4, 6, 7])
    other = helpers.toy("fml", cohort_size=8, sample=lambda round: only)
    expected, _ = other.make()(jax.device_put(poisoned(other, [2, 5])))
    helpers.assert_trees_close(state.server, expected.server, atol=1e-6)
    # And they keep what they had.
    assert_trees_equal(toy.client_states(state)[1], other.client_states(expected)[1])


def test_an_absurd_upload_is_left_out_if_there_is_a_limit():
    toy = helpers.toy("fml", cohort_size=8)
    toy.config = toy.config._replace(reject_nonfinite=True, max_upload_norm=1e-3)
    first = toy.init()
    before = jax.device_get(first.server)
    state, played = toy.make()(first)
    assert played.fetch().rejected == 8
    assert_trees_equal(state.server, before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server.reject": True}, "reject_nonfinite"),
        ({"server.reject_nonfinite": 1}, "true or false"),
        ({"server.max_upload_norm": 5.0}, "needs --set server.reject_nonfinite"),
        (
            {"server.reject_nonfinite": True, "server.max_upload_norm": -1},
            "at least 0",
        ),
    ],
)
def test_settings_of_the_server_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        Federation(models="mlp", num_clients=5, set=settings)
