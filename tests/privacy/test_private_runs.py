"""Federations with differential privacy, as users have them."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.algorithms.fedavg import fedavg
from fedjax_mrl.cli import main
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.privacy.error import PrivacyError
from tests.test_engines import tiny

pytest.importorskip("dp_accounting")

DP = "clip=0.5,noise=2.0,delta=1e-3"
COVERED = ("fedmrl", "fml", "fedavg", "fedprox", "lg_fedavg", "fedapen", "fedkd")
COVERED += ("fedproto", "fd", "fedgh", "fedtgp", "standalone")


def federation(name="fedavg", **options):
    settings = {
        "models": (tiny(8, 4),),
        "shared_model": tiny(8, 4),
        "num_clients": 5,
        "participation": 0.6,
        "partition": "dirichlet:0.5",
        "limit_train": 200,
        "rounds": 3,
        "dp": DP,
    }
    if name == "fedmrl":
        settings["shared_dim"] = 8
    return fm.Federation(algorithm=name, **{**settings, **options})


def digests(built, rounds, state=None):
    state, found = built.init() if state is None else state, []
    while state.round < rounds:
        state, _ = built.play(state)
        found.append(built.digester()(state)[0])
    return found


def test_fedavg_moves_by_clipped_changes_and_its_own_noise():
    built = federation(dropout=0.4, seed=3, dp=DP.replace("0.5", "0.02"))
    before = jax.device_get(built.init().server)
    after, played = built.play(built.init())
    reported = played.reported.tolist()
    assert 0 < len(reported) < 3  # of three, who all count in the denominator
    total = jax.tree.map(np.zeros_like, before)
    for number in reported:
        client = built.client(number)
        _, report = client.update(before, client.init(), round=1)
        change = jax.tree.map(np.subtract, report.upload, before)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(change)))
        assert norm > 0.02
        total = jax.tree.map(lambda t, c, n=norm: t + c * (0.02 / n), total, change)
    leaves = [jax.tree.leaves(tree) for tree in (before, total, after.server)]
    noise = np.concatenate(
        [
            np.ravel(3 * (np.float64(found) - start) - change) / (2.0 * 0.02)
            for start, change, found in zip(*leaves, strict=True)
        ]
    )
    assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)


def test_noise_goes_on_as_it_was_from_a_state_that_was_put_back():
    built = federation("fedproto")
    whole = digests(built, 3)
    assert len(set(whole)) == 3
    state, _ = built.play(built.init())
    again = built.place(1, built.arrays(state))
    assert digests(built, 3, again) == whole[1:]
    privacy = built.summary()["privacy"]
    assert privacy["epsilon"] == 0.0 and privacy["relation"] == "replace one client"


@pytest.mark.slow
def test_noise_goes_on_as_it_was_after_saving_and_loading(tmp_path):
    named = {"models": ("mlp",), "shared_model": "mlp", "feature_dim": 8}
    built = federation("fedproto", **named)
    whole = digests(built, 3)
    stopped = federation("fedproto", **named)
    stopped.fit(rounds=2)
    stopped.save(tmp_path / "a")
    loaded = fm.load(tmp_path / "a")
    assert digests(loaded, 3, loaded.state) == whole[2:]
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["privacy"] == loaded.summary()["privacy"]
    assert summary["privacy"]["rounds"] == 2
    assert summary["privacy"]["epsilon"] == built.privacy.epsilon(2)
    assert summary["privacy"]["relation"] == "replace one client"


def test_who_has_no_privacy_has_no_account():
    built = federation(dp=None)
    assert built.privacy is None and "privacy" not in built.summary()


@pytest.mark.parametrize(
    "name",
    [
        name if name == "fedgh" else pytest.param(name, marks=pytest.mark.slow)
        for name in COVERED
    ],
)
def test_an_engine_has_the_bits_of_the_simulation(name):
    # Nobody at all takes part in some of the rounds.
    built = federation(name, sampling="poisson", participation=0.2, seed=5)
    server = built.server()
    clients = {number: built.client(number) for number in range(5)}
    state, states = server.init(), {n: c.init() for n, c in clients.items()}
    simulated, sizes = built.init(), []
    for round in (1, 2, 3):
        reports = {}
        for number in server.sample(round):
            states[number], reports[number] = clients[number].update(
                server.broadcast(state), states[number], round
            )
        sizes.append(len(reports))
        state = server.update(state, reports, round)
        for number, report in reports.items():
            states[number] = clients[number].finish(
                server.broadcast(state), states[number], round, sound=report.sound
            )
        simulated, _ = built.play(simulated)
        jax.tree.map(np.testing.assert_array_equal, state, simulated.server)
    assert sizes == [1, 0, 1]


def test_poisson_cohorts_have_the_probability_that_is_accounted_for():
    built = federation(sampling="poisson", participation=0.4, num_clients=20)
    server = built.server()
    sizes = [len(server.sample(round)) for round in range(1, 201)]
    assert abs(np.mean(sizes) - 8) < 0.7 and 3 < np.var(sizes) < 7
    assert max(sizes) > built.config.cohort_size
    assert built.privacy.rate == 0.4
    assert built.privacy.relation == "add or remove one client"
    assert built.round_config.mechanism.participants == 8.0
    assert federation(participation=0.5).privacy.rate == 3 / 5  # of whole clients


@pytest.mark.slow
def test_a_store_and_trials_played_together_change_no_bit():
    expected = {seed: digests(federation(seed=seed), 2) for seed in (0, 4)}
    kept = federation(client_store="host")
    assert digests(kept, 2) == expected[0]
    both = [kept.with_trial(seed) for seed in expected]
    states = [variant.init() for variant in both]
    for _ in range(2):
        played = kept.play_together([variant.trial for variant in both], states)
        states = [state for state, _ in played]
    for variant, state, seed in zip(both, states, expected, strict=True):
        assert variant.digester()(state)[0] == expected[seed][1]


def no_release(setup):
    made = fedavg(setup)
    return made._replace(server=made.server._replace(release=None))


def wrong_release(setup):
    made = fedavg(setup)
    release = made.server.release._replace(upload=lambda sums, sent, mechanism: ())
    return made._replace(server=made.server._replace(release=release))


def test_what_nobody_analysed_is_refused():
    refused = "--dp is not for"
    with pytest.raises(PrivacyError, match=f"{refused} fedgen"):
        federation("fedgen")
    with pytest.raises(PrivacyError, match=refused):
        federation("fml", set={"algorithm.aggregation": "last_client"})
    with pytest.raises(PrivacyError, match=r"servers\.averaging"):
        federation(no_release)
    assert federation(no_release, dp=None).privacy is None
    with pytest.raises(ConfigError, match=r"Server.release.upload of wrong_release"):
        federation(wrong_release)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("clip=1,noise=1", "needs clip, delta and noise"),
        ("clip=1,noise=1,epsilon=2,delta=1e-5", "needs clip, delta and noise"),
        ("clip=1,nois=1,delta=1e-5", "Did you mean 'noise'"),
        ("clip=1,clip=2,noise=1,delta=1e-5", "must read as"),
        ("hello", "must read as"),
        ([1], "must read as"),
        ("clip=-1,noise=1,delta=1e-5", "clip must be a number above 0"),
        ("clip=1,noise=nan,delta=1e-5", "noise must be a number above 0"),
        ("clip=1,noise=0.01,delta=1e-5", "noise must be at least 0.1"),
        ("clip=1,noise=1,delta=1", "delta must be below 1"),
    ],
)
def test_a_wrong_option_is_answered(given, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig(dp=given)


def test_nothing_measured_on_all_examples_escapes_the_noise():
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (60, 6, 6, 1), np.uint8), np.arange(60) % 3
    given = {"mean": 0.5, "std": 0.3, "label_names": ("a", "b", "c")}
    for left_out, named in (("mean", "mean and std"), ("label_names",) * 2):
        some = {name: value for name, value in given.items() if name != left_out}
        data = fm.arrays(x, y, x, y, **some)
        with pytest.raises(PrivacyError, match=f"needs {named} to be given"):
            federation(dataset=data, limit_train=None)
    federation(dataset=fm.arrays(x, y, x, y, **given), limit_train=None)
    federation(dataset=fm.arrays(x, y, x, y), limit_train=None, dp=None)


def test_text_and_yaml_mean_the_same(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("dp: {clip: 0.5, noise: 2, delta: 1e-3}\n")
    from fedjax_mrl import config

    read = config.build(config.read_yaml(file))
    assert read == RunConfig(dp=DP) == RunConfig.from_json(read.to_json())
    assert RunConfig(dp="none").dp is None and RunConfig().privacy is None
    more = RunConfig(dp={"clip": 1, "noise": 1, "delta": 0.1, "presence": 4})
    assert more.privacy.presence == 4.0


TOY = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "5"]
TOY += ["--limit-train", "200", "--devices", "1"]


def test_a_run_refuses_an_epsilon():
    with pytest.raises(ConfigError, match="is for `fedjax-mrl plan`"):
        federation(dp="clip=0.5,epsilon=3,delta=1e-3")


@pytest.mark.slow
def test_a_plan_says_the_noise_for_an_epsilon(capsys):
    words = [*TOY, "--rounds", "4", "--dp", "clip=0.5,epsilon=3,delta=1e-3"]
    assert main.main(["plan", *words, "--no-calibration"]) == 0
    told = capsys.readouterr().out
    assert "For epsilon 3 after 4 rounds: --dp clip=0.5,noise=" in told
    line = next(line for line in told.splitlines() if line.startswith("privacy"))
    assert 2.9 < float(line.split()[2]) <= 3.0 and "to replace one client" in line


@pytest.mark.slow
def test_a_run_is_resumed_and_verified_with_its_noise(tmp_path, capsys):
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    words = [*TOY, "--dp", DP, "--quiet"]
    assert main.main(["run", *words, "--rounds", "3", "--out", whole]) == 0
    assert main.main(["run", *words, "--rounds", "1", "--out", parts]) == 0
    assert main.main(["resume", parts, "--rounds", "3", "--schedule-rounds", "3"]) == 0
    told = capsys.readouterr().out
    assert "Privacy: epsilon" in told
    found = [
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("whole", "parts")
    ]
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["privacy"] == found[1]["privacy"]
    assert list(found[0]["privacy"]["epsilon_by_round"]) == ["1", "2", "3"]
    assert main.main(["verify", whole]) == 0
    other = DP.replace("2.0", "1.0")
    assert main.main(["resume", whole, "--rounds", "4", "--dp", other]) == 2
    assert "these differ: dp" in capsys.readouterr().err


DEVICES = """
import fedjax_mrl as fm
from tests.privacy.test_private_runs import digests, federation
import jax
assert len(jax.devices()) == 2
one, two = (digests(federation(devices=n, sampling="poisson"), 2) for n in (1, 2))
assert one == two, (one, two)
"""


@pytest.mark.slow
def test_devices_change_no_bit(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    subprocess.run([sys.executable, "-c", DEVICES], check=True, timeout=300)
