"""A deployment as users have it: Flower's processes, TLS, keys, sockets, kills."""

import json
import pathlib
import re
import time

import numpy as np
import pytest

pytest.importorskip("flwr")

import fedjax_mrl as fm
from fedjax_mrl import packing
from fedjax_mrl.cli import main as cli
from fedjax_mrl.flower import loopback, settings
from fedjax_mrl.flower.versions import Versions
from fedjax_mrl.simulation import digest
from fedjax_mrl.simulation.state import read_clients
from tests.flower.test_rounds import check_traffic, table

OPTIMISED = WIDE = True  # bits of other processes are compared
pytestmark = pytest.mark.slow

CLIENTS = range(5)
# Five architectures that compile fast.
NETS = """from fedjax_mrl.models import mlp

def make(hidden):
    return lambda shape, classes: mlp.mlp(shape, classes, feature_dim=8, hidden=hidden)

net1, net2, net3, net4, net5 = map(make, (4, 5, 6, 7, 8))
"""
OPTIONS = ("--rounds", "3", "--shared-dim", "8", "--feature-dim", "8")
OPTIONS += ("--partition", "iid", "--limit-train", "600")


def app_of(folder, clients):
    """An app whose rounds need all clients."""
    nets = folder / "nets.py"
    nets.write_text(NETS, encoding="utf-8")
    models = ",".join(f"{nets}:net{number}" for number in range(1, 1 + clients))
    words = ["--models", models, "--shared-model", f"{nets}:net3", *OPTIONS]
    words += ["--num-clients", str(clients)]
    assert cli.main(["flower", "new", str(folder / "app"), *words]) == 0
    project = folder / "app" / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    text = re.sub("min-clients = .", f"min-clients = {clients}", text)
    text = text.replace("timeout = 600", "timeout = 20")
    project.write_text(text.replace("attempts = 3", "attempts = 30"), encoding="utf-8")
    return folder / "app"


def await_(what, ready, seconds=240):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def test_five_nodes_with_five_models_over_loopback(tmp_path):
    app = app_of(tmp_path, 5)
    started = time.monotonic()
    with loopback.Loopback(app, 6, tmp_path / "there") as there:
        workers = {k: there.start_worker(k) for k in CLIENTS}
        there.start_link()
        for k in CLIENTS:
            there.register(k)
        stranger = there.start_node(5)  # its key was never registered
        for k in CLIENTS:
            there.await_worker(k, workers[k])
        nodes = {k: there.start_node(k) for k in CLIENTS}
        run = there.start_run()
        server = there.folder / "app-server"
        rounds = lambda: (
            len(table(server / "rounds.csv")) if (server / "rounds.csv").exists() else 0
        )
        await_(run.text, lambda: rounds() or run.handle.poll() is not None)
        # With its state in memory. A SuperNode that is killed as well is refused by
        # Flower until its connection has run out, which takes a minute.
        workers[2].end(at_once=True)
        nodes[2].end()
        workers[2], nodes[2] = there.start_worker(2), there.start_node(2)
        await_(run.text, lambda: run.handle.poll() is not None)
        assert "Done: 3 rounds." in run.text(), run.text()
        assert "Failed to activate SuperNode" in stranger.text()
        assert "SuperNode ID" in nodes[0].text()
        assert "SuperNode ID" not in stranger.text()
    assert there.left() == []
    check_digests(app, there, server)
    check_traffic("fedmrl", server, 5)
    run = json.loads((server / "federation.json").read_text(encoding="utf-8"))["run"]
    for k in CLIENTS:
        folder = there.state(k) / run / f"client-{k}"
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    seconds = [float(row["seconds"]) for row in table(server / "rounds.csv")]
    print(f"{time.monotonic() - started:.0f} s; rounds {seconds}")


def test_a_server_that_is_killed_goes_on_with_the_same_bits(tmp_path):
    app = app_of(tmp_path, 2)
    with loopback.Loopback(app, 2, tmp_path / "there") as there:
        workers = {k: there.start_worker(k) for k in range(2)}
        link = there.start_link()
        for k, process in workers.items():
            there.register(k)
            there.await_worker(k, process)
            there.start_node(k)
        run = there.start_run()
        server = there.folder / "app-server"
        played = lambda: (
            (server / "digests.csv").exists() and table(server / "digests.csv")
        )
        await_(run.text, lambda: played() or run.handle.poll() is not None)
        link.end(at_once=True)
        assert run.handle.wait(60) != 0
        there.start_link()
        again = there.start_run()
        await_(again.text, lambda: again.handle.poll() is not None)
        assert "Going on after round 1." in again.text(), again.text()
        assert "Done: 3 rounds." in again.text(), again.text()
    check_digests(app, there, server, 2)


def check_digests(app, there, server, clients=5):
    """Server and clients are the simulation's, in every round and at the end."""
    config = settings.read(app).federation
    built = fm.Federation(config)
    state, digester = built.init(), built.digester()
    told = table(server / "digests.csv")
    for round in (1, 2, 3):
        state, _ = built.play(state)
        digester.touch(np.arange(clients))
        leaves = digester(state)[1]
        wanted = [leaf.sha256 for leaf in leaves if leaf.owner == "server"]
        assert [row["sha256"] for row in told if row["round"] == str(round)] == wanted
    pairs = read_clients(state, built.groups, np.arange(clients), built.store)
    for k in range(clients):
        (folder,) = there.state(k).glob(f"*/client-{k}")
        versions = Versions(pathlib.Path(folder))
        newest = versions.known()[-1]
        assert newest.round == 3
        kept = packing.unpack(versions.read(newest).arrays, pairs[k])
        assert digest.leaves("", kept) == digest.leaves("", pairs[k])
        assert re.search(r"train 3, [\d.]+ s", there_log(there, k))


def there_log(there, k):
    return (there.folder / f"worker-{k}.log").read_text(encoding="utf-8")
