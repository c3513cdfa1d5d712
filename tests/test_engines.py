"""One client and the server by themselves play what the simulation plays."""

import jax
import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.models import mlp
from fedjax_mrl.simulation import digest


def tiny(width, hidden):
    return lambda shape, classes: mlp.mlp(
        shape, classes, feature_dim=width, hidden=hidden
    )


def federation(name, **options):
    settings = {
        "models": [tiny(8, 6), tiny(8, 4)],
        "shared_model": tiny(8, 5),
        "num_clients": 5,
        "participation": 0.6,
        "batch_size": 64,
        "partition": "dirichlet:0.5",
    }
    return fm.Federation(algorithm=name, **{**settings, **options})


METHODS = {
    "fedmrl": {"shared_dim": 8},
    "fedapen": {},  # its clients finish after the server, and keep examples out
    "fedproto": {},  # uploads that count
    "fedavg": {"models": [tiny(8, 5)]},  # its clients keep nothing of their own
    "fml": {"learning_rate_decay": "exponential:0.5"},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name in ("fedapen", "fedproto")
        else name
        for name in METHODS
    ],
)
def test_a_loop_over_engines_has_the_digests_of_the_simulation(name):
    built = federation(name, **METHODS[name])
    server = built.server()
    clients = {number: built.client(number) for number in range(5)}
    state, states = server.init(), {n: c.init() for n, c in clients.items()}
    simulated = built.init()
    for round in (1, 2):
        reports = {}
        for number in reversed(server.sample(round)):  # in any order
            broadcast = server.broadcast(state)
            before = jax.tree.map(np.array, states[number])
            after, reports[number] = clients[number].update(
                broadcast, states[number], round
            )
            jax.tree.map(np.testing.assert_array_equal, before, states[number])
            states[number] = after
        state = server.update(state, reports, round)
        for number, report in reports.items():
            states[number] = clients[number].finish(
                server.broadcast(state), states[number], round, sound=report.sound
            )
        simulated, played = built.play(simulated)
        assert sorted(reports) == played.fetch().reported.tolist()
        assert digest.of(state, states) == built.digester()(simulated)[0]
    x = built.dataset.x_test[:4]
    np.testing.assert_array_equal(
        clients[1].predict(states[1], x), built.predict(x, client=1, state=simulated)
    )


def test_the_data_of_a_client_are_its_part_in_the_classes_of_its_task():
    tasks = {"all": list(range(10)), "odd": [0, 1] * 5}
    built = federation(
        "fml", tasks=tasks, set={"algorithm.share": "extractor"}, participation=1.0
    )
    one, other = built.client(0).data, built.client(1).data
    assert len(one.x_train) == built.client(0).num_train == built.train[0].size
    np.testing.assert_array_equal(
        one.x_test, built.dataset.x_test[built.partition.test[0]]
    )
    assert one.y_train.max() > 1 and set(other.y_train.tolist()) <= {0, 1}
    assert built.client(1).architecture.endswith("@odd")
    with pytest.raises(ValueError, match="from 0 to 4"):
        built.client(5)


def test_packed_arrays_come_back_by_name_whatever_their_order():
    built = federation("fedmrl", shared_dim=8)
    state = built.client(2).init()
    named = fm.pack(state)
    assert all(isinstance(array, np.ndarray) for array in named.values())
    back = fm.unpack(dict(reversed(named.items())), like=state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    name = next(iter(named))
    for wrong, words in (
        ({**named, "more": np.zeros(1)}, "more are too many"),
        ({key: named[key] for key in named if key != name}, "are missing"),
        ({**named, name: np.zeros(3, np.float64)}, "must be float32"),
    ):
        with pytest.raises(ValueError, match=words):
            fm.unpack(wrong, like=state)
    with pytest.raises(TypeError, match="random key"):
        fm.pack({"key": jax.random.key(0)})
    assert fm.pack(()) == {}


@pytest.mark.parametrize("client", [-1, 5, True])
def test_the_server_refuses_a_report_of_a_client_that_there_is_not(client):
    server = federation("fedavg", models=[tiny(8, 5)]).server()
    with pytest.raises(ValueError, match=f"from 0 to 4, .* got {client}"):
        server.update(None, {client: None}, 1)
