"""What dies, lies or is late: nodes, servers, messages and files."""

import jax
import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Error, Message

from fedjax_mrl.flower import apps, identity, messages, records, wire
from fedjax_mrl.flower.error import Ended, FlowerError
from fedjax_mrl.flower.versions import Version
from fedjax_mrl.flower.wire import Packet
from fedjax_mrl.simulation import digest
from tests.flower.network import Deployment
from tests.flower.test_rounds import check_traffic, federation, table, tiny

SAME = {"models": [tiny(8, 6)], "participation": 1.0, "rounds": 3}


@pytest.fixture(scope="module")
def built():
    return federation("fedmrl", **SAME)


@pytest.fixture(scope="module")
def whole(built):
    """The digests of the simulation by round."""
    state, digests = built.init(), {}
    for round in (1, 2, 3):
        state, _ = built.play(state)
        digests[round] = built.digester()(state)[0]
    return digests


def state_of(there, now):
    return digest.of(now.server, there.states(now))


def expected(built, rounds):
    """The server and clients after rounds of which only some clients are heard."""
    server, state, states = built.server(), None, {}
    state = server.init()
    for round, clients in enumerate(rounds, 1):
        reports = {}
        for k in clients:
            before = states.get(k, built.client(k).init())
            states[k], reports[k] = built.client(k).update(
                server.broadcast(state), before, round
            )
        state = server.update(state, reports, round)
    rest = {k: built.client(k).init() for k in range(5) if k not in states}
    return digest.of(state, states | rest)


def test_whoever_is_late_drops_out_and_comes_back_with_the_same_bits(built, tmp_path):
    there = Deployment(built, tmp_path, least=2)
    loop = there.loop()
    now = loop.play(loop.begin())
    there.grid.lost = {there.node_of(2)}
    now = loop.play(now)
    assert "client 2 drops out: no answer within 0.2 s" in " ".join(there.told)
    there.grid.lost = set()
    del there.grid.nodes[there.node_of(4)]  # not connected at all
    now = loop.play(now)
    assert "client 4 drops out: it is not connected" in " ".join(there.told)
    wanted = expected(built, [range(5), (0, 1, 3, 4), range(4)])
    assert state_of(there, now) == wanted
    dropped = [row["dropped"] for row in table(tmp_path / "server" / "rounds.csv")]
    assert dropped == ["0", "1", "1"]


def test_a_report_that_comes_too_late_is_undone_on_its_node(built, tmp_path):
    there = Deployment(built, tmp_path)
    loop = there.loop()
    now = loop.play(loop.begin())
    real = there.grid._run

    def trained_but_late(node, message):
        answer = real(node, message)
        if node == there.node_of(3):
            answer.metadata.__dict__["_reply_to_message_id"] = "of another"
            there.grid.lost.add(node)
        return answer

    there.grid._run = trained_but_late
    there.grid.pull_messages = lambda names, pull=there.grid.pull_messages: [
        one for one in pull(names) if one.metadata.src_node_id not in there.grid.lost
    ]
    now = loop.play(now)
    there.grid._run, there.grid.lost = real, set()
    versions = there.workers[3].versions(there.server.run)
    assert Version(2) in versions.known()  # it did train
    now = loop.play(now)
    assert state_of(there, now) == expected(built, [range(5), (0, 1, 2, 4), range(5)])


def test_too_few_clients_end_the_federation_which_can_go_on(built, whole, tmp_path):
    there = Deployment(built, tmp_path, least=4, attempts=2)
    loop = there.loop()
    loop.play(loop.begin())
    there.grid.lost = {there.node_of(k) for k in (0, 1)}
    with pytest.raises(Ended, match=r"reports of 4 clients and has 3 after 2.*client"):
        loop.run()
    there.grid.lost = set()
    there.server.close()
    assert state_of(there, there.loop().run()) == whole[3]
    assert "Going on after round 1." in there.told


def test_nodes_and_servers_that_are_killed_go_on_with_the_same_bits(
    built, whole, tmp_path
):
    there = Deployment(built, tmp_path)
    loop = there.loop()
    now = loop.play(loop.begin())
    there.workers[1] = there.worker(1)  # a new process with the old folder
    there.grid.nodes[there.node_of(1)] = there.workers[1].answer
    # The server dies when the clients have trained, before it has saved anything.
    saved, there.server.save = there.server.save, None
    with pytest.raises(TypeError):
        loop.play(now)
    there.server.save = saved
    assert len(table(tmp_path / "server" / "rounds.csv")) == 2
    there.server.close()
    loop = there.loop()
    now = loop.begin()
    assert (now.round, len(table(tmp_path / "server" / "rounds.csv"))) == (1, 1)
    now = loop.play(now)
    assert state_of(there, now) == whole[2]
    known = there.workers[1].versions(there.server.run).known()
    assert known == [Version(1), Version(2)]  # not more than may be asked for
    # Its newest checkpoint is damaged: the one before it is played on from.
    there.server.close()
    newest = max((tmp_path / "server" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    now = there.loop().run()
    assert "round 2" in " ".join(there.told) and state_of(there, now) == whole[3]
    check_traffic("fedmrl", tmp_path / "server", 5)


@pytest.mark.slow
def test_a_server_that_dies_before_clients_finished_lets_them_finish(tmp_path):
    built = federation("fedapen", **SAME)
    there = Deployment(built, tmp_path)
    loop = there.loop()
    now = loop.begin()
    finish, loop._asking.finish = loop._asking.finish, None
    with pytest.raises(TypeError):
        loop.play(now)
    loop._asking.finish = finish
    there.server.close()
    now = there.loop().run()
    state = built.init()
    for _ in range(3):
        state, _ = built.play(state)
    assert state_of(there, now) == built.digester()(state)[0]


def changed(answer, change):
    """A node whose reports are changed before they are sent."""

    def dishonest(data):
        packet = wire.decode(answer(data))
        if packet.fields["kind"] != "train":
            return wire.encode(packet)
        fields, arrays = dict(packet.fields), dict(packet.arrays)
        change(fields, arrays)
        return wire.encode(Packet(fields, arrays))

    return dishonest


def first(arrays):
    return next(iter(sorted(arrays)))


def reshape(fields, arrays):
    arrays[first(arrays)] = np.zeros((3, 3), np.float32)


def not_finite(fields, arrays):
    name = first(arrays)
    arrays[name] = np.full_like(arrays[name], np.nan)


LIES = {
    "does not fit: ": reshape,
    "is not finite": not_finite,
    "of round 7": lambda fields, arrays: fields.update(round=7),
    "as client 1": lambda fields, arrays: fields.update(client=1),
    "lacks something": lambda fields, arrays: fields.update(metrics={}),
    "many": lambda fields, arrays: arrays.update(more=np.zeros(2, np.float32)),
}


QUICK = ("does not fit: ", "is not finite")


@pytest.mark.parametrize(
    "words",
    [
        words if words in QUICK else pytest.param(words, marks=pytest.mark.slow)
        for words in LIES
    ],
)
def test_reports_that_do_not_fit_are_refused_with_their_client_named(
    built, tmp_path, words
):
    there = Deployment(built, tmp_path)
    loop = there.loop()
    node = there.node_of(2)
    there.grid.nodes[node] = changed(there.grid.nodes[node], LIES[words])
    now = loop.play(loop.begin())
    told = [text for text in there.told if "drops out" in text]
    assert len(told) == 1 and words in told[0], told
    assert told[0].startswith("Round 1: client 2 drops out: refused, ")
    if words == "is not finite":
        assert state_of(there, now) == expected(built, [(0, 1, 3, 4)])


@pytest.mark.slow
def test_a_node_that_answers_noise_is_not_connected(built, tmp_path):
    there = Deployment(built, tmp_path, least=5)
    there.grid.nodes[there.node_of(0)] = lambda data: b"\xff" * 40
    with pytest.raises(Ended, match=r"client 0: it is not connected"):
        there.loop().run()
    assert "cannot be read" in there.told[0]


@pytest.mark.slow
def test_a_rejected_upload_is_the_simulations(tmp_path):
    options = SAME | {"set": {"server.reject_nonfinite": True}, "rounds": 1}
    built = federation("fedmrl", **options)
    there = Deployment(built, tmp_path)
    node = there.node_of(2)
    there.grid.nodes[node] = changed(there.grid.nodes[node], not_finite)
    loop = there.loop()
    now = loop.run()
    (row,) = table(tmp_path / "server" / "rounds.csv")
    assert (row["rejected"], row["dropped"]) == ("1", "0")
    wanted = expected(built, [(0, 1, 3, 4)])
    states = {k: s for k, s in there.states(now).items() if k != 2}
    assert digest.of(now.server, states | {2: built.client(2).init()}) == wanted


def test_nodes_refuse_orders_that_are_over_or_do_not_fit(built, tmp_path):
    there = Deployment(built, tmp_path)
    there.loop().run()
    worker, run = there.workers[0], there.server.run
    before = worker.versions(run).known()
    order = train_orders(there, 0)[-1]

    def answer(change):
        packet = wire.decode(order)
        fields, arrays = dict(packet.fields), dict(packet.arrays)
        change(fields, arrays)
        return wire.decode(worker.answer(wire.encode(Packet(fields, arrays)))).fields

    assert answer(lambda f, a: None)["kind"] == "train"  # again: the same
    assert worker.versions(run).known() == before
    for words, change in {
        "is over": lambda f, a: f.update(round=2),
        "not on this node": lambda f, a: f.update(round=12, base=[9, False]),
        "names no federation": lambda f, a: f.update(run="../../etc"),
        "does not fit": reshape,
        "cannot be read": lambda f, a: f.pop("base"),
        "no message": lambda f, a: f.update(kind="delete"),
    }.items():
        said = answer(change)
        assert said["kind"] == "error" and words in said["reason"], said
    assert worker.versions(run).known() == before
    path = worker.versions(run)._path(Version(2))
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    assert "is damaged" in answer(lambda f, a: None)["reason"]


def test_a_node_of_another_configuration_or_client_is_refused(built, tmp_path):
    there = Deployment(built, tmp_path)
    other = Deployment(federation("fedmrl", **SAME | {"epochs": 2}), tmp_path / "b")
    there.grid.nodes[there.node_of(0)] = other.workers[0].answer
    there.grid.nodes[5] = there.workers[1].answer  # client 1 once more
    there.grid.names[there.node_of(3)] = "client-4"
    loop = there.loop()
    loop.play(loop.begin())
    told = "\n".join(there.told)
    assert "epochs: 2 here, 1 at the server" in told
    assert "client 1 is connected already" in told
    assert "client 3, but is registered as client-4" in told
    assert table(tmp_path / "server" / "rounds.csv")[0]["dropped"] == "2"
    there.server.close()
    changed = Deployment(other.federation, tmp_path)
    with pytest.raises(FlowerError, match="holds another federation"):
        changed.loop()


def test_nothing_private_is_in_what_a_node_sends(built, tmp_path):
    """Another private network changes no byte of a message but those it trains."""
    there = Deployment(built, tmp_path)
    loop = there.loop()
    loop.play(loop.begin())
    worker, run = there.workers[0], there.server.run
    private, shared = worker.state(run, Version(1))
    up = [m for node, way, m in there.grid.sent if way == "up"]
    texts = b"".join(m.content.deflate() + whole_bytes(m) for m in up)
    shared_bytes = {np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(shared)}
    for leaf in jax.tree.leaves(private):
        raw = np.ascontiguousarray(leaf).tobytes()
        if raw.strip(b"\0") and raw not in shared_bytes:
            assert raw[:64] not in texts
    x = worker.engine.data.x_train
    assert all(example.tobytes() not in texts for example in x)
    packet = wire.decode(worker.answer(messages.hello(identity_of(built))))
    assert set(packet.fields) == {"kind", "client", "architecture", "num_train"}
    assert not packet.arrays


def test_uploads_do_not_change_with_what_is_private(tmp_path):
    """Where nothing is learned an upload is the broadcast, whatever is private."""
    built = federation("fedmrl", **SAME | {"learning_rate": 0.0})
    there = Deployment(built, tmp_path)
    loop = there.loop()
    loop.play(loop.begin())
    there.grid.sent.clear()
    loop.play(loop.begin())
    (order,) = (m for m in train_orders(there, 0))
    worker = there.workers[0]
    versions = worker.versions(there.server.run)
    before = wire.decode(worker.answer(order))
    state = versions.read(Version(1)).arrays
    shift = lambda name, x: x if name.startswith("1/") else x * 3 + np.float32(0.1)
    versions.write(Version(1), {name: shift(name, x) for name, x in state.items()})
    after = wire.decode(worker.answer(order))
    assert before.arrays.keys() == after.arrays.keys()
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(array, after.arrays[name])
    different = {k for k in before.fields if before.fields[k] != after.fields[k]}
    assert different == {"metrics"}  # mean losses, which are told on purpose
    assert set(before.fields) == {
        *("kind", "client", "round", "bytes_up", "sound", "finite", "metrics")
    }


def train_orders(there, client):
    """The bytes of the orders to train that a client was sent."""
    return [
        whole_bytes(message)
        for node, way, message in there.grid.sent
        if (node, way, message.metadata.message_type)
        == (there.node_of(client), "down", "train")
    ]


def identity_of(built):
    return identity.options(built.config)


def whole_bytes(message):
    return records.unwrap(message.content)


@pytest.mark.slow
def test_flower_carries_an_error_of_a_node_to_the_server(built, tmp_path):
    there = Deployment(built, tmp_path)

    def broken(node, message):
        return Message(Error(code=2, reason="no worker"), reply_to=message)

    there.grid._run = broken
    with pytest.raises(Ended, match="not connected"):
        there.loop().run()
    assert "Flower: no worker" in there.told[0]


def test_the_client_app_says_what_to_do_without_a_worker():
    context = type("Context", (), {"node_config": {}})
    with pytest.raises(FlowerError, match="does not say where its worker is"):
        apps._ask_worker(b"", context)
    context.node_config["socket"] = "/nowhere/socket"
    with pytest.raises(FlowerError, match="Start it: fedjax-mrl flower worker"):
        apps._ask_worker(b"", context)
