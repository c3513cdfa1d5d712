"""What is made of scores: rows, headline, targets; and the digest of a state."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import sharding, stores
from fedjax_mrl.runs import summary
from fedjax_mrl.simulation import evaluation
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State


def scores():
    """Two heads and four clients, of which the third has no tests."""
    correct = np.array(
        [[[1, 3, 0, 8], [2, 0, 0, 4]], [[2, 6, 0, 2], [0, 0, 0, 0]]], np.int32
    )
    loss_sum = np.array(
        [[[1, 6, 0, 4], [2, 3, 0, 8]], [[4, 0, 0, 2], [1, 3, 0, 2]]], np.float32
    )
    num_test = np.array([2, 6, 0, 8], np.int32)
    num_loss = np.broadcast_to(num_test, correct.shape)
    return evaluation.Scores(correct, loss_sum, num_test, num_loss)


def test_accuracy_and_loss_are_per_test_image_and_undefined_without():
    found = scores()
    np.testing.assert_array_equal(found.accuracy[0, 0], [0.5, 0.5, np.nan, 1.0])
    np.testing.assert_array_equal(found.loss[0, 1], [1.0, 0.5, np.nan, 1.0])


def test_summarise_has_a_row_for_each_point_and_head_in_order():
    rows = evaluation.summarise(scores(), ("a", "b"))
    assert [(row["point"], row["head"]) for row in rows] == [
        ("local", "a"),
        ("local", "b"),
        ("global", "a"),
        ("global", "b"),
    ]
    assert {row["clients"] for row in rows} == {3}


def test_summarise_takes_the_mean_over_clients_and_over_images():
    row = evaluation.summarise(scores(), ("a", "b"))[0]
    # Clients have 1/2, 3/6 and 8/8 right, losses 1/2, 6/6 and 4/8.
    assert row["mean_accuracy"] == pytest.approx(2 / 3)
    assert row["std_accuracy"] == pytest.approx(np.sqrt((2 / 36 + 1 / 9) / 3))
    assert row["weighted_accuracy"] == pytest.approx(12 / 16)
    assert row["mean_loss"] == pytest.approx(2 / 3)
    assert evaluation.summarise(scores(), ("a", "b"))[3]["weighted_accuracy"] == 0


def curve(*accuracies, head="main", every=1):
    """Rows of rounds.csv and metrics.csv of a run with the given headline."""
    numbers = [every * i for i in range(1, len(accuracies) + 1)]
    rounds = [
        {
            "round": number,
            "seconds": 0.5,
            "bytes_down": 10,
            "bytes_up": 1,
            "flops": 100,
            "digest": f"d{number}" if number % 2 else "",
        }
        for number in range(1, every * len(accuracies) + 1)
    ]
    metrics = []
    for number, accuracy in zip(numbers, accuracies, strict=True):
        for point, name, value in (
            ("local", head, accuracy),
            ("local", "other", 1.0),
            ("global", head, 1.0),
        ):
            row = {"round": number, "point": point, "head": name}
            row |= {"mean_accuracy": value, "worst_accuracy": value / 2}
            metrics.append(row | {"p10_accuracy": value / 1.5})
    return rounds, metrics


def summarise(rounds, metrics):
    return summary.summarise(
        algorithm="m", dataset="d", rounds=rounds, metrics=metrics, head="main"
    )


def test_the_headline_has_the_last_the_mean_of_the_last_ten_and_the_first_best():
    accuracies = [0.0, 0.9] + [0.1 * i for i in range(9)] + [0.9, 0.3]
    found = summarise(*curve(*accuracies))["headline"]
    assert found == {
        "point": "local",
        "head": "main",
        "last": 0.3,
        # Rounds 4 to 13: 0.1 to 0.8, then 0.9 and 0.3.
        "last10": pytest.approx((3.6 + 1.2) / 10),
        "best": 0.9,
        "best_round": 2,
        "worst": 0.15,
        "p10": pytest.approx(0.2),
    }
    assert summarise(*curve(0.2, 0.4))["headline"]["last10"] == pytest.approx(0.3)
    rounds, metrics = curve(0.2)
    metrics = [{**row, "worst_accuracy": "", "p10_accuracy": ""} for row in metrics]
    earlier = summarise(rounds, metrics)["headline"]  # tables of version 0.1
    assert (earlier["last"], earlier["worst"], earlier["p10"]) == (0.2, None, None)


def test_targets_count_rounds_bytes_and_flops_until_they_are_first_reached():
    found = summarise(*curve(0.3, 0.7, 0.5, 0.8, every=3))["targets"]
    assert set(found) == {"0.5", "0.6", "0.7", "0.8", "0.9", "0.95"}
    # Evaluated every third round: 0.7 in round 6, 0.8 in round 12.
    six = {"rounds": 6, "bytes": 6 * 11, "flops": 600}
    assert found["0.5"] == found["0.6"] == found["0.7"] == six
    assert found["0.8"] == {"rounds": 12, "bytes": 132, "flops": 1200}
    assert found["0.9"] is None and found["0.95"] is None


def test_totals_are_sums_over_all_rounds_and_the_digest_is_the_last_there_is():
    found = summarise(*curve(0.1, 0.2, 0.3, 0.4))
    assert (found["rounds"], found["seconds"], found["flops"]) == (4, 2.0, 400)
    assert (found["bytes_down"], found["bytes_up"]) == (40, 4)
    assert found["digest"] == "d3"
    assert (found["algorithm"], found["dataset"]) == ("m", "d")


def test_a_run_without_rounds_has_no_headline():
    found = summarise([], [])
    assert found["headline"] is None and found["digest"] is None
    assert set(found["targets"].values()) == {None} and found["flops"] == 0


def test_numbers_read_back_from_a_table_give_the_same_summary():
    rounds, metrics = curve(0.25, 0.5)
    text = [
        [{k: str(v) for k, v in row.items()} for row in t] for t in (rounds, metrics)
    ]
    assert summarise(*text) == summarise(rounds, metrics)


def state(server=1.0, private=2.0, copy=3.0, name="w", dtype=jnp.float32, number=5):
    make = lambda value: {name: jnp.full((2, 3), value, dtype)}
    return State(number, make(server), {"a": (make(private), make(copy))})


def digest(state):
    group = Group("a", None, np.array([0, 1], np.int32))
    return Digester([group], stores.make("device", sharding.mesh(1)))(state)[0]


def test_the_digest_is_a_function_of_the_values():
    first = digest(state())
    assert len(bytes.fromhex(first)) == 32
    assert digest(state()) == first
    # On the host, in another memory layout and from another order of keys.
    server = {"w": np.full((3, 2), 1.0, np.float32).T}
    assert digest(state()._replace(server=server)) == first
    two = {"b": jnp.zeros(2), "a": jnp.ones(2)}
    same = dict(reversed(two.items()))
    assert digest(state()._replace(server=two)) == digest(state()._replace(server=same))


@pytest.mark.parametrize(
    "changed",
    [
        {"server": 1.0000001},
        {"private": 2.0000002},
        {"copy": 3.0000002},
        {"name": "v"},
        {"dtype": jnp.int32},
    ],
)
def test_the_digest_changes_with_every_leaf_its_name_and_its_type(changed):
    assert digest(state(**changed)) != digest(state())


def test_the_digest_tells_shapes_and_places_apart():
    base = state()
    flat = base._replace(server={"w": jnp.full((6,), 1.0)})
    assert digest(flat) != digest(base)
    private, shared = base.clients["a"]
    swapped = base._replace(clients={"a": (shared, private)})
    assert digest(swapped) != digest(base)
    last = base.server["w"].at[1, 2].set(-1.0)
    assert digest(base._replace(server={"w": last})) != digest(base)
