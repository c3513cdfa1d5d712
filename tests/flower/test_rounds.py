"""Rounds over Flower's messages are the simulation's, bit by bit."""

import csv

import pytest

pytest.importorskip("flwr")

import fedjax_mrl as fm
from fedjax_mrl import algorithms
from fedjax_mrl.models import mlp
from fedjax_mrl.simulation import digest
from tests.flower.network import Deployment

METHODS = [
    name if name == "standalone" else pytest.param(name, marks=pytest.mark.slow)
    for name in algorithms.names()
]


def tiny(width, hidden):
    return lambda shape, classes: mlp.mlp(
        shape, classes, feature_dim=width, hidden=hidden
    )


def federation(name="fedmrl", **options):
    """Five clients with two models; with one where the method wants it."""
    models = [tiny(8, 6), tiny(8, 4)]
    settings = {
        "models": models,
        "shared_model": tiny(8, 5),
        "num_clients": 5,
        "participation": 0.6,
        "batch_size": 64,
        "partition": "dirichlet:0.5",
        "rounds": 2,
    }
    if name in ("fedavg", "fedprox"):
        settings["models"] = settings["shared_model"]
    if name.startswith("fedmrl"):
        settings["shared_dim"] = 8
    return fm.Federation(algorithm=name, **{**settings, **options})


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", METHODS)
def test_a_federation_over_messages_has_the_digests_of_the_simulation(name, tmp_path):
    built = federation(name)
    there = Deployment(built, tmp_path)
    loop = there.loop()
    now, simulated, digester = loop.begin(), built.init(), built.digester()
    for round in (1, 2):
        now = loop.play(now)
        simulated, played = built.play(simulated)
        digester.touch(played.fetch().reported)
        whole, leaves = digester(simulated)
        assert digest.of(now.server, there.states(now)) == whole
        server = [leaf.sha256 for leaf in leaves if leaf.owner == "server"]
        rows = table(tmp_path / "server" / "digests.csv")
        assert [row["sha256"] for row in rows if row["round"] == str(round)] == server
    assert not [text for text in there.told if "drops out" in text]
    check_traffic(name, tmp_path / "server", 3)


def check_traffic(name, folder, participants):
    """Bytes of arrays are those of rounds.csv; what is more is named here."""
    rounds, wire = table(folder / "rounds.csv"), table(folder / "wire.csv")
    names = ("round", "client", "kind", "direction")
    key = lambda row: tuple(row[name] for name in names)
    wire = list({key(row): row for row in wire}.values())  # without repetitions
    total = lambda rows, column: sum(int(row[column]) for row in rows)
    for row in rounds:
        of = lambda direction, row=row: [
            one
            for one in wire
            if (one["round"], one["direction"], one["kind"])
            == (row["round"], direction, "train")
        ]
        down, up = total(of("down"), "bytes"), total(of("up"), "bytes")
        if name == "fedkd":  # its matrices of low rank travel as they are
            assert down >= int(row["bytes_down"]) and up > int(row["bytes_up"])
            continue
        # Which classes a client has counts as a byte each; they travel as its counts.
        counts = name in ("fd", "fedgh", "fedproto", "fedtgp")
        assert down == int(row["bytes_down"])
        assert up == int(row["bytes_up"]) + counts * participants * 10 * 3
        assert total(of("down") + of("up"), "envelope") < participants * 2000
    if name == "fedapen":  # its second broadcast of a round
        finish = [one for one in wire if one["kind"] == "finish"]
        assert total(finish, "bytes") == total(rounds, "bytes_down")
