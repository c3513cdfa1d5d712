"""Clients that come later, in Python: what they become; nobody else changes."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

import fedjax_mrl as fm
from fedjax_mrl import algorithms, personalized, personalizing
from fedjax_mrl.simulation.state import ConsumedError
from tests.helpers import assert_trees_equal
from tests.test_held_out import federation, with_two_held_out

COLUMNS = ["client", "architecture", "head", "num_train", "num_test"]
COLUMNS += ["before", "after", "alone", "gain"]


@functools.cache
def come(shared):
    return with_two_held_out().personalize(epochs=3, shared=shared)


def broadcast(built):
    return jax.device_get(built.algorithm.server.broadcast(built.state.server))


def test_there_is_a_row_for_each_newcomer_and_head():
    built, found = with_two_held_out(), come("fine-tuned")
    rows = found.rows()
    assert found.clients == (3, 4)
    assert [(row["client"], row["head"]) for row in rows] == [
        (client, head) for client in (3, 4) for head in built.algorithm.heads
    ]
    assert all(list(row) == COLUMNS for row in rows)
    for row in rows:
        assert row["num_train"] == built.partition.train[row["client"]].size
        assert row["gain"] == row["after"] - row["alone"]
        for name in ("before", "after", "alone"):  # a share of its own test examples
            correct = row[name] * built.partition.test[row["client"]].size
            assert round(correct, 6) == round(correct) and 0 <= row[name] <= 1
    headline = [row["after"] for row in rows if row["head"] == "mix_large"]
    assert found.mean()["after"] == np.mean(headline)
    assert list(found.frame().columns) == COLUMNS


def test_the_accuracy_after_is_what_the_client_says_then():
    built, found = with_two_held_out(), come("fine-tuned")
    test = built.partition.test[4]
    for row in found.rows():
        if row["client"] == 4:
            says = found.predict(built.dataset.x_test[test], 4, head=row["head"])
            right = says.argmax(-1) == built.dataset.y_test[test]
            assert right.mean() == row["after"]


@pytest.mark.parametrize("head", ["mix_large", "single_small"])
def test_what_a_newcomer_became_is_exported(head, tmp_path):
    built, found = with_two_held_out(), come("frozen")
    path = found.export(tmp_path / "m", 4, head=head)
    x, model = built.dataset.x_test[:5], fm.load_model(path)
    expected = found.predict(x, 4, head=head)
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=1e-4)
    told = model.description
    assert (told.client, told.head, told.architecture) == (4, head, "mlp")
    assert told.digest == built.digester()(built.state)[0]
    examples = built.partition.train[4].size
    trained = {"shared": "frozen", "epochs": 3, "learning_rate": 0.01}
    assert told.newcomer == trained | {"examples": examples, "data": None}


def test_newcomers_are_exported_before_the_federation_plays_on(tmp_path):
    built = federation(held_out_clients=1)
    state, _ = built.play(built.init())
    built.state = state
    found = built.personalize(epochs=1)
    built.play(state)
    with pytest.raises(ConsumedError, match="Export them before, or call personalize"):
        found.export(tmp_path / "m", found.clients[0])
    assert not (tmp_path / "m").exists()


def test_only_those_who_came_are_exported_and_only_their_heads(tmp_path):
    with pytest.raises(ValueError, match="one that came: 3, 4; got 0"):
        come("frozen").export(tmp_path / "m", 0)
    with pytest.raises(ValueError, match="head"):
        come("frozen").export(tmp_path / "m", 3, head="larg")
    assert not (tmp_path / "m").exists()


def test_a_newcomer_is_asked_at_the_precision_of_the_run_by_one_program():
    built = federation(held_out_clients=1, precision="bfloat16")
    built.fit()
    found = built.personalize(epochs=1, shared="frozen")
    x = built.dataset.x_test[:8]
    says = found.predict(x, np.int64(4))
    programs = found._come.programs
    networks = found.states[4]
    group = found.group_of(4)
    np.testing.assert_array_equal(says, built.ask(group, networks, x, None))
    assert programs[group.name]._cache_size() == 1
    found.predict(x, 4)
    assert programs[group.name]._cache_size() == 1


def test_a_newcomers_number_may_be_of_numpy(tmp_path):
    found = come("frozen")
    assert found.export(tmp_path / "a", np.int64(3)) == tmp_path / "a"
    with pytest.raises(ValueError, match=r"one that came: 3, 4; got \[3\]"):
        found.networks([3])


def test_nothing_of_the_federation_changes():
    built = with_two_held_out()
    before, state = built.digester()(built.state)[0], built.state
    built.personalize([3], epochs=1)
    assert built.state is state and built.digester()(state)[0] == before
    assert len(built.history) == 2


def test_frozen_leaves_the_broadcast_bit_for_bit_and_fine_tuned_does_not():
    shared = broadcast(with_two_held_out())
    frozen, tuned = come("frozen"), come("fine-tuned")
    for client in (3, 4):
        assert_trees_equal(frozen.networks(client)["shared"], shared)
        moved = tuned.networks(client)["shared"]
        assert not np.array_equal(moved.header["kernel"], shared.header["kernel"])
    assert frozen.trains_shared and tuned.trains_shared
    # The same training alone, whatever happens to what is shared.
    assert [r["alone"] for r in frozen.rows()] == [r["alone"] for r in tuned.rows()]


def test_newcomers_begin_as_any_client_of_their_architecture():
    built = with_two_held_out()
    found = built.personalize(learning_rate=0, epochs=1)
    first = built.client(0).init()[0]
    assert_trees_equal(found.states[4], (first, broadcast(built)))
    assert all(row["before"] == row["after"] for row in found.rows())


def test_a_newcomer_depends_on_nobody_who_comes_with_it():
    together, single = (
        come("frozen"),
        with_two_held_out().personalize([4], epochs=3, shared="frozen"),
    )
    assert single.rows() == [row for row in together.rows() if row["client"] == 4]
    assert_trees_equal(single.states[4], together.states[4])


@pytest.mark.parametrize("shared", ["frozen", "fine-tuned"])
def test_nothing_is_trained_where_all_is_shared_and_frozen(shared):
    alike = {"models": "mlp", "shared_model": "mlp", "shared_dim": None}
    built = federation(algorithm="fedavg", held_out_clients=1, rounds=1, **alike)
    built.fit()
    found = built.personalize(epochs=1, shared=shared)
    before, after = broadcast(built), found.networks(4)["shared"]
    moved = not np.array_equal(before.header["kernel"], after.header["kernel"])
    assert found.trained == moved == (shared == "fine-tuned")
    assert come(shared).trained


def test_without_a_federation_the_gain_is_nothing():
    built = federation(
        algorithm="standalone", shared_dim=None, held_out_clients=1, rounds=1
    )
    built.fit()
    found = built.personalize(epochs=2)
    (row,) = found.rows()
    assert not found.trains_shared
    assert row["after"] == row["alone"] and row["after"] != row["before"]


class Wide(nn.Module):
    feature_dim: int = 24

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(self.feature_dim)(x.reshape(x.shape[0], -1)))


def own(number=40, classes=(3, 7)):
    data = with_two_held_out().dataset
    some = np.flatnonzero(np.isin(data.y_train, classes))[:number]
    tests = np.flatnonzero(np.isin(data.y_test, classes))[:10]
    return (
        data.x_train[some],
        data.y_train[some],
        data.x_test[tests],
        data.y_test[tests],
    )


def test_a_client_from_outside_may_have_another_architecture_and_few_classes():
    built = with_two_held_out()
    x, *_ = arrays = own()
    found = built.personalize(data=arrays, model=fm.model(Wide()), epochs=1)
    row = found.rows()[0]
    assert (row["client"], row["architecture"]) == (5, "Wide")
    assert (row["num_train"], row["num_test"]) == (40, 10)
    assert found.predict(x[0], 5).shape == (10,)
    named = fm.arrays(*arrays, label_names=built.dataset.label_names)
    usual = built.personalize(data=named, epochs=1)
    assert usual.rows()[0]["architecture"] == "mlp"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clients": [2]}, "client 2 took part in the rounds"),
        ({"clients": [9]}, "no client 9; the clients that were held out are 3 to 4"),
        ({"clients": []}, "different whole numbers"),
        ({"clients": [3, 3]}, "different whole numbers"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"epochs": 10**30}, "at least 1 and at most 1000000; got 1000000"),
        ({"shared": "frosen"}, "Did you mean 'frozen'"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"model": "cnn1"}, "Give data as well"),
        ({"clients": [3], "data": ()}, "not both"),
        ({"data": (1, 2, 3)}, "four arrays"),
        ({"data": 1}, "four arrays"),
        ({"data": "digits"}, "Cannot read the data set digits"),
    ],
)
def test_wrong_use_is_answered_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        with_two_held_out().personalize(**options)


def test_a_newcomers_file_is_named_and_is_one_clients(tmp_path):
    x, y, x_test, y_test = own()
    arrays = {"x_train": x, "x_test": x_test, "y_test": y_test}
    file = tmp_path / "lab.npz"
    np.savez(file, y_train=y, clients=np.arange(len(y)) % 2, **arrays)
    with pytest.raises(ValueError, match=r"lab\.npz: .* one client, but .* names 2"):
        with_two_held_out().personalize(data=file)
    np.savez(file, y_train=y + 4, **arrays)
    with pytest.raises(ValueError, match=r"lab\.npz: y_train must lie in 0\.\.9"):
        with_two_held_out().personalize(data=file)
    np.savez(file, y_train=y, label_names=np.array("abc"), **arrays)
    with pytest.raises(ValueError, match=r"lab\.npz: label_names must be .* got abc"):
        with_two_held_out().personalize(data=file)


def test_data_and_models_that_do_not_fit_are_refused():
    ask = with_two_held_out().personalize
    x, y, x_test, y_test = own()
    with pytest.raises(ValueError, match="x of the train part"):
        ask(data=(x[:, :4], y, x_test, y_test))
    with pytest.raises(ValueError, match=r"0\.\.9, the classes of the federation"):
        ask(data=(x, y + 4, x_test, y_test))
    with pytest.raises(ValueError, match="y_test"):
        ask(data=(x, y, x_test, y_test[:-1]))
    names = [f"animal {i}" for i in range(10)]
    with pytest.raises(ValueError, match="label_names must be those"):
        ask(data=fm.arrays(x, y, x_test, y_test, label_names=names))
    with pytest.raises(ValueError, match="cnn11"):
        ask(data=own(), model="cnn11")


def halving(setup: fm.Setup) -> fm.Algorithm:
    """FedAvg whose clients halve what they hold, outside of any training."""
    made = algorithms.build("fedavg", setup)

    def client(model):
        usual = made.client(model)

        def update(*given):
            out = usual.update(*given)
            half = jax.tree.map(lambda leaf: leaf / 2, out.shared)
            return out._replace(shared=half)

        return usual._replace(update=update)

    return made._replace(client=client)


def test_a_method_that_moves_what_is_frozen_is_refused_before_training():
    built = federation(algorithm=halving, shared_dim=None, held_out_clients=1)
    with pytest.raises(ValueError, match="cannot be frozen"):
        personalizing.prepare(built, personalized.Asked(shared="frozen"))
    assert personalizing.prepare(built, personalized.Asked()).trains_shared


def test_a_model_that_the_method_cannot_work_with_is_refused():
    built = federation(algorithm="fedavg", shared_dim=None)
    asked = personalized.Asked(data=own(), model=fm.model(Wide()))
    with pytest.raises(ValueError, match="FedAvg"):
        personalizing.prepare(built, asked)


def test_newcomers_of_tasks_learn_their_own():
    parity = [i % 2 for i in range(10)]
    built = federation(
        algorithm="standalone",
        shared_dim=None,
        held_out_clients=2,
        rounds=1,
        tasks={"digit": list(range(10)), "parity": parity},
    )
    built.fit()
    found = built.personalize(epochs=1)
    assert [row["architecture"] for row in found.rows()] == ["mlp@parity", "mlp@digit"]
    image = built.dataset.x_test[0]
    assert found.predict(image, 3).shape == (2,)
    assert found.predict(image, 4).shape == (10,)


def test_there_must_be_a_round_and_somebody_held_out():
    built = federation()
    with pytest.raises(ValueError, match="no state yet"):
        built.personalize()
    built.fit(rounds=1)
    with pytest.raises(ValueError, match="No client was held out"):
        built.personalize()


def test_divergence_names_the_client():
    with pytest.raises(fm.Diverged, match="client 3"):
        with_two_held_out().personalize(learning_rate=1e30, epochs=1)
