"""Clients that are held out never take part, and change nothing for those who do."""

import functools

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli import main as cli
from tests.helpers import assert_trees_equal

MLPS = {"models": ("mlp", "mlp"), "shared_model": "mlp", "feature_dim": 8}


def federation(**options):
    base = {**MLPS, "shared_dim": 4, "num_clients": 5, "rounds": 2, "limit_train": 200}
    return fm.Federation(**(base | options))


@functools.cache
def with_two_held_out():
    built = federation(held_out_clients=2, participation=0.6)
    built.fit()
    return built


def test_the_others_play_as_if_those_held_out_were_not_there():
    held = with_two_held_out()
    train, test = held.partition
    alone = federation(
        num_clients=3,
        participation=0.6,
        partition=(train[:3], test[:3]),
        limit_train=None,
    )
    alone.fit()
    one, other = (each.digester()(each.state)[0] for each in (held, alone))
    assert one == other
    assert held.history.rows("metrics") == alone.history.rows("metrics")


def test_nobody_who_is_held_out_is_sampled_trained_averaged_or_kept():
    held = with_two_held_out()
    assert held.config.cohort_size == 2  # of three
    cohorts = np.concatenate([result.played.cohort for result in held.history])
    assert cohorts.size == 4 and cohorts.max() < 3
    assert {row["client"] for row in held.history.rows("clients")} == {0, 1, 2}
    assert {row["clients"] for row in held.history.rows("metrics")} == {3}
    (group,) = held.groups
    private = held.arrays(held.state)["clients"][group.name]
    assert private.private.header["kernel"].shape[0] == 3
    assert held.scores(held.state).num_test.size == 3
    image = held.dataset.x_test[:1]
    for ask in (
        held.client,
        held.networks,
        lambda k: held.predict(image, client=k),
        lambda k: held.export("never", client=k),
    ):
        with pytest.raises(ValueError, match="client 3 is held out"):
            ask(3)
        with pytest.raises(ValueError, match="from 0 to 2"):
            ask(5)
    assert max(max(held.server().sample(round=t)) for t in range(1, 30)) == 2


def test_the_last_ones_are_held_out_and_the_split_does_not_depend_on_it():
    held, all_take_part = with_two_held_out(), federation()
    assert_trees_equal(held.partition, all_take_part.partition)
    assert [len(g.clients) for g in held.pieces.held_out.groups] == [2]
    assert held.pieces.held_out.groups[0].clients.tolist() == [3, 4]


@pytest.mark.parametrize("number", ["5", "6"])
def test_somebody_must_be_left(number, capsys):
    argv = ["run", "--num-clients", "5", "--held-out-clients", number]
    assert cli.main(argv) == 2
    assert "--held-out-clients must leave at least one" in capsys.readouterr().err


def test_participation_is_of_the_others(capsys):
    argv = ["plan", "--models", "mlp", "--shared-model", "mlp", "--num-clients", "10"]
    argv += ["--held-out-clients", "4", "--participation", "0.5", "--no-calibration"]
    assert cli.main(argv) == 0
    assert "3 of 6 a round; 4 held out" in capsys.readouterr().out
