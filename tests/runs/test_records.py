"""Lines of tables, digests, kept checkpoints and starts: what nobody looked at."""

import jax
import numpy as np
import pytest

from fedjax_mrl import results, sharding, stores
from fedjax_mrl.config import RunConfig
from fedjax_mrl.learning import servers
from fedjax_mrl.protocol import Algorithm, Client, Model
from fedjax_mrl.results import Result, Seconds
from fedjax_mrl.runs import comparison, comparison_rows, comparison_tables
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import COLUMNS, RunDirectory
from fedjax_mrl.simulation import initialization, population
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.evaluation import Scores
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import Played, State
from tests import helpers


def test_the_line_of_a_round_with_faults_counts_whom_it_should():
    # Of five that were sent a broadcast three reported, and one of these is rejected.
    played = Played(
        cohort=np.array([0, 2, 3, 5, 6]),
        reported=np.array([2, 3, 6]),
        stragglers=1,
        metrics={"total": np.array([1.0, np.nan, 2.0])},
        finite={"upload": np.array([True, False, True])},
        sound=np.array([True, False, True]),
        server_finite=np.bool_(True),
        bytes_up=np.array([10.0, 20.0, 30.0]),
        bytes_down=np.float32(100),
    )
    flops = np.array([1, 10, 100, 1000, 10_000, 100_000, 1_000_000])
    result = Result(State(4, None, {}), played, None)
    row = results.round_row(result, flops, Seconds(1.0, 0.5, 0.125, 0.25), "sha")
    assert row == {
        "round": 4,
        "seconds": 1.0,
        "participants": 5,
        "train_loss": 1.5,
        "bytes_down": 500,
        "bytes_up": 60,
        "flops": 1_001_100,
        "digest": "sha",
        "dropped": 2,
        "stragglers": 1,
        "rejected": 1,
        "seconds_local": 0.5,
        "seconds_server": 0.125,
        "seconds_evaluation": 0.25,
        "seconds_writing": 0.125,
    }
    nobody = result._replace(played=played._replace(sound=np.zeros(3, bool)))
    assert np.isnan(results.round_row(nobody, flops, Seconds(1.0))["train_loss"])


def evaluated():
    """Three clients of two architectures, the second without tests, in two modes."""
    correct = np.array([[[3, 0, 1], [4, 0, 2]], [[1, 0, 0], [2, 0, 1]]], np.int32)
    num_test = np.array([4, 0, 2], np.int32)
    num_loss = np.broadcast_to(num_test, correct.shape).copy()
    loss_sum = np.float32(2) * correct
    num_loss[1, 1, 2] = loss_sum[1, 1, 2] = 0  # classes without a prototype
    scores = Scores(correct, loss_sum, num_test, num_loss)
    return Result(State(7, None, {}), None, scores)


def test_an_evaluated_round_has_a_row_for_each_client_point_and_mode():
    found = results.client_rows(evaluated(), ("a", "b"), ["x", "y", "x"], [10, 11, 12])
    assert {tuple(row) for row in found} == {COLUMNS["clients.csv"]}
    cells = [(r["client"], r["point"], r["head"], r["correct"]) for r in found]
    assert cells == [
        (0, "local", "a", 3),
        (0, "local", "b", 4),
        (0, "global", "a", 1),
        (0, "global", "b", 2),
        (2, "local", "a", 1),
        (2, "local", "b", 2),
        (2, "global", "a", 0),
        (2, "global", "b", 1),
    ]
    assert found[4] == {
        "round": 7,
        "client": 2,
        "architecture": "x",
        "point": "local",
        "head": "a",
        "num_train": 12,
        "num_test": 2,
        "correct": 1,
        "accuracy": 0.5,
        "loss": 1.0,
    }
    assert found[-1]["loss"] is None  # no example of this client has one


def test_an_evaluated_round_has_a_row_of_means_for_each_point_and_mode():
    found = results.metric_rows(evaluated(), ("a", "b"))
    assert {tuple(row) for row in found} == {COLUMNS["metrics.csv"]}
    assert [(r["point"], r["head"]) for r in found] == [
        ("local", "a"),
        ("local", "b"),
        ("global", "a"),
        ("global", "b"),
    ]
    assert found[0]["mean_accuracy"] == (3 / 4 + 1 / 2) / 2
    assert found[0]["weighted_accuracy"] == 4 / 6
    assert found[3]["mean_loss"] == 1.0  # of the one client that has a loss


def test_a_round_without_evaluation_has_no_rows_of_scores():
    result = evaluated()._replace(scores=None)
    assert results.metric_rows(result, ("a", "b")) == []
    assert results.client_rows(result, ("a", "b"), ["x"] * 3, [1] * 3) == []


def test_architectures_are_named_in_the_order_of_clients():
    toy = helpers.toy("fml", cohort_size=3)
    named = results.architectures(toy.groups)
    of = {int(c): group.name for group in toy.groups for c in group.clients}
    assert len(set(named)) > 1 and named == [of[c] for c in range(len(of))]


def line(seed, last):
    row = dict.fromkeys(comparison_rows.COLUMNS, 0)
    row |= {"algorithm": "fml", "seed": seed, "learning_rate": 0.1, "status": "done"}
    return row | {"head": "h", "last": last, "last10": last, "best": last}


def test_the_spread_of_seeds_is_that_of_a_sample():
    table = comparison_tables.to_markdown([line(0, 0.5), line(1, 0.6), line(2, 0.7)], 1)
    # Deviations of -10, 0 and 10 points, over two degrees of freedom.
    assert "60.00 ± 10.00" in table


def notes(*rows):
    text = comparison_tables.to_markdown(list(rows), 1)
    return [t for t in text.splitlines() if t and not t.startswith(("|", "Best of"))]


def test_tables_say_what_a_difference_refers_to():
    fml = lambda *seeds, rate=0.1: [
        line(s, 0.5) | {"learning_rate": rate} for s in seeds
    ]
    alone = lambda *seeds, **rate: [
        row | {"algorithm": "standalone", "last": row["seed"] / 10}
        for row in fml(*seeds, **rate)
    ]
    assert notes(*fml(0, 1), *alone(0, 1)) == notes(*fml(0)) == notes(*alone(0)) == []
    (found,) = notes(*fml(0, 1, 2), *alone(1, 2))
    assert found.startswith("fml: ") and found.endswith(" both have: 1, 2.")
    assert notes(*fml(0), *alone(1)) == ["fml: no seed has a run of Standalone too."]
    same, none = notes(*fml(0), *alone(0), *fml(0, rate=0.2))
    assert same == "Differences are to Standalone at the same learning rate."
    assert (
        none == "fml, learning rate 0.2: Standalone has no run at this learning rate."
    )


def test_traffic_is_that_of_both_directions_by_participant_and_round():
    row = line(0, 0.5) | {"bytes_down": 6_000_000, "bytes_up": 2_000_000, "rounds": 4}
    assert "| 0.500 |" in comparison_tables.to_markdown([row], clients=4)


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", 1) as kept:
        for round, accuracy in ((1, 0.2), (2, 0.9), (3, 0.1), (4, 0.3)):
            kept.save(round, {"w": np.zeros(2)}, {}, accuracy)
            kept.wait()
        assert kept.rounds() == [4, 2]


@pytest.mark.slow
def test_a_digest_of_what_changed_is_the_digest_of_all():
    toy = helpers.toy("fml", cohort_size=3)
    play, store = toy.make(), stores.make("device", sharding.mesh(1))
    state = toy.init()
    digester = Digester(toy.groups, store, alike=True)
    digester(state)
    for _ in range(2):
        state, played = play(state)
        digester.touch(played.cohort)
        fresh = Digester(toy.groups, store)
        assert digester(state)[0] == fresh(state)[0]


def test_no_two_starts_share_their_randomness():
    # Two architectures that draw the same numbers from the same key.
    def draws(name):
        init = lambda key: jax.random.uniform(key)
        return Model(name, init, features=None, head=None, feature_dim=1, num_classes=2)

    client = lambda model: Client(model.init, update=None, predict=None)
    algorithm = Algorithm(servers.constant(), client, heads=())
    groups = population.assign(6, [draws("a"), draws("b")])
    found = {}
    for same in (True, False):
        config = RoundConfig(0, 2, 1, 4, same_start=same)
        state = initialization.init(algorithm, groups, config)
        found[same] = {name: set(v[0].tolist()) for name, v in state.clients.items()}
    assert [len(values) for values in found[True].values()] == [1, 1]
    everything = [v for by_name in found.values() for s in by_name.values() for v in s]
    assert len(set(everything)) == len(everything) == 2 + 6


@pytest.mark.parametrize(("target", "first"), [(0.5, 2), (0.51, 3), (0.7, "")])
def test_a_target_is_reached_where_the_curve_is_as_high(target, first, tmp_path):
    config = RunConfig(rounds=3)
    directory = RunDirectory.create(tmp_path / "run", config=config.to_json())
    headline = {"point": "local", "head": "h", "last": 0.6}
    directory.write_json("summary.json", {"rounds": 3, "headline": headline})
    cells = dict.fromkeys(COLUMNS["metrics.csv"], 0) | headline
    curve = [(1, 0.4), (2, 0.5), (3, 0.6)]
    lines = [{**cells, "round": r, "mean_accuracy": a} for r, a in curve]
    directory.append("metrics.csv", lines)
    row = comparison_rows.row(comparison.Run(config, directory.path), target)
    assert row["rounds_to_target"] == first
