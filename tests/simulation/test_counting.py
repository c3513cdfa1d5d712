"""What losses, headlines and cohorts count."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation
from fedjax_mrl.learning import prototypes
from fedjax_mrl.runs import runner, summary
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.simulation import evaluation


def test_an_example_of_a_class_without_prototype_has_no_loss():
    vector = jnp.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    known = jnp.array([True, True, False])
    features = jnp.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0], [0.0, 1.0]])
    logits = prototypes.nearness(prototypes.Prototypes(vector, known), features)
    y, mask = jnp.array([0, 1, 2, 0]), jnp.array([True, True, True, False])
    right, loss, number = evaluation._count(logits, y, mask)
    # Mean squared differences of 0 and 1 from either known class.
    expected = 2 * np.log1p(np.exp(-1))
    assert (int(right), int(number)) == (2, 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    # What is no number is seen, whatever is known.
    _, loss, number = evaluation._count(logits.at[0, 0].set(jnp.nan), y, mask)
    assert np.isnan(loss) and int(number) == 2


def test_the_loss_of_prototypes_is_that_of_known_classes_in_all_tables(tmp_path):
    # One client takes part: its classes become known, those of others do not.
    federation = Federation(
        algorithm="fedproto",
        models="mlp",
        num_clients=5,
        participation=0.2,
        feature_dim=8,
        partition="class:2",
        rounds=1,
    )
    directory = RunDirectory.create(tmp_path / "run")
    runner.run(federation, directory)
    rows = [r for r in directory.rows("clients.csv") if r["head"] == "prototype"]
    losses = [row["loss"] for row in rows if row["point"] == "global"]
    found = [float(text) for text in losses if text]
    assert "" in losses and found and max(found) < 1e3
    means = {
        row["point"]: row["mean_loss"]
        for row in directory.rows("metrics.csv")
        if row["head"] == "prototype"
    }
    # The participant itself has not seen the merged prototypes yet.
    assert means["local"] == ""
    assert float(means["global"]) == pytest.approx(np.mean(found), rel=1e-4)


@pytest.mark.parametrize(("every", "counted"), [(1, 10), (3, 4), (7, 2), (10, 1)])
def test_the_last_ten_are_rounds_and_not_evaluations(every, counted):
    numbers = range(every, 43, every)
    metrics = [
        {"round": n, "point": "local", "head": "h", "mean_accuracy": n / 100}
        for n in numbers
    ]
    found = summary.summarise(
        algorithm="m", dataset="d", rounds=[], metrics=metrics, head="h"
    )
    expected = np.mean([n / 100 for n in numbers][-counted:])
    assert found["headline"]["last10"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("clients", "participation", "size"),
    [(5, 0.5, 3), (7, 0.5, 4), (10, 0.25, 3), (10, 0.24, 2), (10, 0.26, 3), (5, 1, 5)],
)
def test_half_a_participant_is_one(clients, participation, size):
    config = RunConfig(num_clients=clients, participation=participation)
    assert config.cohort_size == size
