"""What a round's line says where participants drop out or are rejected."""

import numpy as np
import pytest

from fedjax_mrl import comparison, recorder, rounds
from fedjax_mrl.config import RunConfig
from fedjax_mrl.rounds import Played
from fedjax_mrl.rundir import COLUMNS, RunDirectory


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
    state = rounds.State(4, None, {}, {})
    row = recorder.round_row(state, played, flops, 1.0, "sha")
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
    }
    nobody = played._replace(sound=np.zeros(3, bool))
    assert np.isnan(recorder.round_row(state, nobody, flops, 1.0, "")["train_loss"])


def line(seed, last):
    row = dict.fromkeys(comparison.COLUMNS, 0)
    row |= {"algorithm": "fml", "seed": seed, "learning_rate": 0.1, "status": "done"}
    return row | {"head": "h", "last": last, "last10": last, "best": last}


def test_the_spread_of_seeds_is_that_of_a_sample():
    table = comparison.to_markdown([line(0, 0.5), line(1, 0.6), line(2, 0.7)], 1)
    # Deviations of -10, 0 and 10 points, over two degrees of freedom.
    assert "60.00 ± 10.00" in table


@pytest.mark.parametrize(("target", "first"), [(0.5, 2), (0.51, 3), (0.7, "")])
def test_a_target_is_reached_where_the_curve_is_as_high(target, first, tmp_path):
    config = RunConfig(rounds=3)
    directory = RunDirectory.create(tmp_path / "run", config=config.to_json())
    headline = {"point": "local", "head": "h", "last": 0.6}
    directory.write_json("summary.json", {"rounds": 3, "headline": headline})
    cells = dict.fromkeys(COLUMNS["metrics.csv"], 0) | headline
    curve = [(1, 0.4), (2, 0.5), (3, 0.6)]
    rows = [{**cells, "round": r, "mean_accuracy": a} for r, a in curve]
    directory.append("metrics.csv", rows)
    row = comparison.row(comparison.Run(config, directory.path), target)
    assert row["rounds_to_target"] == first
