"""Checkpoints have one layout on the disk, whatever the state is in memory."""

import json
import shutil

import jax
import numpy as np

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import RunDirectory

WORDS = ["--models", "mlp", "--shared-model", "mlp", "--feature-dim", "4"]
WORDS += ["--num-clients", "5", "--quiet", "--algorithm", "fml", "--rounds", "1"]
WORDS += ["--client-store", "device", "--devices", "1"]


def test_a_checkpoint_of_private_states_apart_from_shared_copies_is_read(tmp_path):
    assert main(["run", *WORDS, "--out", str(tmp_path / "run")]) == 0
    directory = RunDirectory.open(tmp_path / "run")
    played = fm.load(directory.path)
    digest = played.digester()(played.state)[0]
    state = jax.tree.map(np.array, jax.device_get(played.state))
    # As versions whose states had two dictionaries wrote it.
    old = {
        "server": state.server,
        "clients": {name: private for name, (private, _) in state.clients.items()},
        "copies": {name: shared for name, (_, shared) in state.clients.items()},
    }
    config = json.dumps(json.loads(directory.read_text("config.json")))
    shutil.rmtree(directory.checkpoints)
    with Checkpoints(directory.checkpoints) as kept:
        kept.save(1, old, {"digest": digest, "config": config})
        kept.wait()
    loaded = fm.load(directory.path)
    assert loaded.digester()(loaded.state)[0] == digest
    # What is written now is read by those versions, too.
    now = jax.tree.structure(loaded.arrays(loaded.state))
    assert now == jax.tree.structure(old)
