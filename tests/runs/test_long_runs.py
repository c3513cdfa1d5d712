"""A run of many rounds holds no more memory at its end than early on."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# In a process of its own, and with one heap: glibc gives every thread that writes a
# checkpoint a heap, up to eight a core, so that memory grows for some hundred of them.
RUN = """
import sys
from fedjax_mrl import discovery
from fedjax_mrl.planning import host_memory
from fedjax_mrl.cli.main import main
from fedjax_mrl.models import mlp
from fedjax_mrl.runs.recorder import Recorder

def tiny(input_shape, num_classes, *, feature_dim, lowering):
    made = mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=8)
    return made._replace(name="tiny")

discovery.find("fedjax_mrl.models")["tiny"] = tiny
record, held = Recorder.record, {}

def watched(self, result, *rest):
    row = record(self, result, *rest)
    held[row["round"]] = host_memory.resident()
    return row

Recorder.record = watched
main(sys.argv[1:])
print(held[100], held[300])
"""
CLIENTS, ROUNDS = 20, 200  # clients; rounds between the two looks
LEAK = 100  # bytes a client and round that are noticed; at most 8 were measured


# With states on the devices, copies for checkpoints that are written meanwhile take
# three hundred rounds until the heap has room for them; so there is one at the end.
@pytest.mark.slow
@pytest.mark.parametrize(("store", "every"), [("device", "300"), ("disk", "10")])
def test_memory_is_flat_once_every_client_has_taken_part(store, every, tmp_path):
    words = ["run", "--models", "tiny", "--shared-model", "tiny", "--quiet"]
    words += ["--algorithm", "lg_fedavg", "--partition", "iid", "--feature-dim", "8"]
    words += ["--num-clients", str(CLIENTS), "--participation", "0.1"]
    words += ["--rounds", "300", "--checkpoint-every", every, "--eval-every", "2"]
    words += ["--devices", "1", "--client-store", store, "--out", str(tmp_path / "run")]
    told = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=ROOT,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    early, late = map(int, told.split())
    assert late - early < LEAK * CLIENTS * ROUNDS, (early / 2**20, late / 2**20)
