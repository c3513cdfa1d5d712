"""Fairness among clients and what accuracies cost: in tables, commands and Python."""

import dataclasses

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import costs, stopwatch
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import fairness, tables

SMALL = {"models": ("mlp",), "shared_model": "mlp", "num_clients": 5, "rounds": 2}
FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "5"]
FLAGS += ["--rounds", "2", "--quiet"]


@pytest.fixture(scope="module")
def trained():
    """FML with dropouts and stragglers, trained for two rounds."""
    built = fm.Federation(
        algorithm="fml", participation=0.6, straggler=0.5, dropout=0.2, **SMALL
    )
    built.fit()
    return built


def test_a_row_of_metrics_says_how_the_worst_clients_do(trained):
    clients, metrics = (trained.history.rows(name) for name in ("clients", "metrics"))
    for row in metrics:
        own = [
            c["accuracy"]
            for c in clients
            if all(c[key] == row[key] for key in ("round", "point", "head"))
        ]
        assert row["worst_accuracy"] == min(own)
        assert row["p10_accuracy"] == pytest.approx(np.percentile(own, 10))


def test_the_seconds_of_a_round_are_those_of_its_parts(trained):
    for row in trained.history.rows("rounds"):
        parts = [row[name] for name in row if name.startswith("seconds_")]
        assert len(parts) == 4 and sum(parts) == pytest.approx(row["seconds"], abs=3e-4)
        assert min(parts[:3]) > 0


def test_a_stopwatch_waits_and_divides_among_those_that_share(monkeypatch):
    times = iter([0.0, 10.0, 14.0, 15.0, 18.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(times))
    watch = stopwatch.Stopwatch()
    lap = watch.lap()
    watch.reached("local", np.zeros(1))
    watch.reached("evaluation", None)
    found = watch.since(lap, sharing=2)
    assert found == (4.0, 2.0, 0.0, 0.5) and found.writing == 1.5


def test_tables_of_an_earlier_version_are_read_and_go_on():
    name = "metrics.csv"
    old = ",".join(tables.COLUMNS[name][:-2])
    text = f"{old}\n1,local,a,5,0.5,0.1,0.5,1.25\n2,local,a,5,0.5,0.1"
    (row,) = tables.parse(name, text)
    assert (row["mean_loss"], row["worst_accuracy"]) == ("1.25", "")
    again = tables.up_to(name, [row], 1, 1)
    assert again.splitlines()[0] == ",".join(tables.COLUMNS[name])
    assert tables.parse(name, again) == [row]


def test_simulated_seconds_are_those_of_the_slowest_participant(trained):
    rows = trained.history.rows("rounds")
    machines = costs.machines((8.0, 2.0), {"mlp": 0.5}, trained.groups)
    found = costs.simulated_seconds(trained, rows, machines)
    flops, played = trained.flops(), list(trained.history)
    plans = [
        trained._assembled(1).sampler.plan(trained.trial, number) for number in (1, 2)
    ]
    assert any((plan.share < 1).any() for plan in plans)  # a straggler is among them
    for seconds, plan, result in zip(found, plans, played, strict=True):
        down = int(result.played.bytes_down) / 1e6  # 8 Mbit/s are 1 MB/s
        each = [
            down
            + flops[client] * share / 0.5e9
            + float(result.played.bytes_up[place]) / 0.25e6
            for place, (client, share) in enumerate(
                zip(plan.reported, plan.share, strict=True)
            )
        ]
        assert seconds == pytest.approx(max(each), rel=1e-5)


def test_costs_say_when_an_accuracy_was_first_reached(trained):
    curve = [
        row["mean_accuracy"]
        for row in trained.history.rows()
        if (row["point"], row["head"]) == ("local", trained.algorithm.heads[0])
    ]
    first, second = trained.history.rows("rounds")
    target = max(curve)
    found = trained.costs([0.01, target, 1.0], bandwidth=(20, 5), speed=1)
    assert [row["target"] for row in found] == [0.01, target]
    assert found[0]["rounds"] == 1 and found[0]["flops"] == first["flops"]
    assert found[0]["bytes"] == first["bytes_down"] + first["bytes_up"]
    assert found[-1]["rounds"] == 1 + curve.index(target)
    slower = trained.costs([0.01], bandwidth=(2, 0.5), speed=0.1)
    assert slower[0]["simulated_seconds"] == pytest.approx(
        10 * found[0]["simulated_seconds"], rel=1e-3
    )
    assert "simulated_seconds" not in trained.costs([0.01])[0]
    assert second["round"] == 2


@pytest.mark.parametrize(
    ("bandwidth", "speed", "words"),
    [
        ((0, 5), 1, "above zero"),
        ((20,), 1, "down and up"),
        ("fast", 1, "down and up"),
        ((20, 5), -1, "above zero"),
        ((20, 5), {"mpl": 1}, "mlp"),
        ((20, 5), {}, "mlp has none"),
    ],
)
def test_machines_that_there_cannot_be_are_refused(trained, bandwidth, speed, words):
    with pytest.raises(ValueError, match=words):
        trained.costs(bandwidth=bandwidth, speed=speed)


def test_what_costs_cannot_say_is_refused(trained):
    for target in (0, 2, float("nan"), "0.5"):
        with pytest.raises(ValueError, match=r"above 0 and at most 1, .*; got"):
            trained.costs([target])
    with pytest.raises(ValueError, match="speed needs bandwidth"):
        trained.costs([0.1], speed=5)
    assert trained.costs([np.float32(0.01)])


def rows(*cells):
    names = ("round", "client", "point", "head", "accuracy")
    return [dict(zip(names, line, strict=True)) for line in cells]


def test_gains_are_of_the_last_round_that_both_evaluated():
    method = rows(
        (1, 0, "local", "main", 0.5),
        (1, 0, "local", "other", 0.9),
        (2, 0, "local", "main", 0.6),
        (2, 2, "local", "main", 0.25),
        (2, 0, "global", "main", 0.1),
        (3, 0, "local", "main", 0.7),
    )
    alone = rows(
        (2, 0, "local", "local", "0.5"),
        (2, 1, "local", "local", "0.5"),
        (2, 2, "local", "local", "0.75"),
    )
    found = fairness.gains(method, alone)
    assert (found.round, found.clients.tolist()) == (2, [0, 2])
    np.testing.assert_allclose(found.gain, [0.1, -0.5])
    assert "1 of 2 clients gain, 1 lose" in str(found)
    assert "mean -20.00 points, worst -50.00, best +10.00" in str(found)
    assert fairness.gains(method[:2], alone) is None


def test_a_standalone_run_beside_must_have_the_same_clients(tmp_path):
    base = fm.Federation(**SMALL).config
    for name, changes in {
        "a": {"algorithm": "fml"},
        "b": {"algorithm": "standalone", "seed": 1},
        "c": {"algorithm": "standalone", "eval_every": 2, "shared_dim": 4},
        "d": {"algorithm": "standalone"},
    }.items():
        (tmp_path / name).mkdir()
        text = dataclasses.replace(base, **changes).to_json()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    assert fairness.beside(tmp_path / "a", base) == tmp_path / "c"
    other = dataclasses.replace(base, data_seed=1)
    assert fairness.beside(tmp_path / "a", other) is None
    alone = dataclasses.replace(base, algorithm="standalone")
    assert fairness.beside(tmp_path / "d", alone) is None
    assert fairness.differing(other, base) == ["data_seed", "algorithm"]


@pytest.mark.slow
def test_a_comparison_has_the_gain_of_every_client():
    found = fm.compare(["fml", "standalone"], **SMALL)
    gained = found.gains()
    assert [row["client"] for row in gained] == [0, 1, 2, 3, 4]
    last = {
        (name, row["client"]): row["accuracy"]
        for (name, _), history in found.histories.items()
        for row in history.rows("clients")
        if (row["round"], row["point"], row["head"]) == (2, "local", history.heads[0])
    }
    for row in gained:
        assert (row["algorithm"], row["round"]) == ("fml", 2)
        assert row["accuracy"] == last["fml", row["client"]]
        assert row["gain"] == row["accuracy"] - last["standalone", row["client"]]
    assert found.frame("gains")["gain"].tolist() == [row["gain"] for row in gained]
    assert fm.compare(["fml"], **(SMALL | {"rounds": 1})).gains() == []


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    for name in ("fml", "standalone"):
        argv = ["run", *FLAGS, "--algorithm", name, "--out", str(folder / name)]
        assert main(argv) == 0
    return folder


def test_evaluate_shows_gains_and_costs(two_runs, capsys):
    argv = ["evaluate", str(two_runs / "fml"), "--clients"]
    assert main([*argv, "--bandwidth", "20,5", "--device-speed", "mlp=2"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "worst" in out and "%ile" in out
    assert "Gain over Standalone in round 2" in out and "simulated" in out
    of_clients = [line.split() for line in out.splitlines() if " mlp " in line][1:]
    assert len(of_clients) == 5 and all(w[-1][0] in "+-" for w in of_clients)
    assert main(["evaluate", str(two_runs / "standalone")]) == 0
    out = capsys.readouterr().out
    assert "Gain" not in out and "simulated" not in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bandwidth", "20"], "two numbers"),
        (["--bandwidth", "20,5", "--device-speed", "mlp=x"], "mlp=x"),
        (["--bandwidth", "20,5", "--device-speed", "cnn=1"], "cnn"),
        (["--bandwidth", "20,5", "--device-speed", "mlp=1,mlp=2"], "mlp=1,mlp=2"),
        (["--device-speed", "3"], "needs --bandwidth"),
        (["--standalone", "{fml}"], "differs in algorithm"),
    ],
)
def test_evaluate_refuses_what_it_cannot_compare(two_runs, capsys, flags, words):
    flags = [word.format(fml=two_runs / "fml") for word in flags]
    assert main(["evaluate", str(two_runs / "fml"), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1
