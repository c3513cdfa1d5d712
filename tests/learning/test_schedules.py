"""Numbers that change by round: their laws, and that nothing is recompiled."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.learning import schedules
from tests.helpers import assert_trees_equal

WORDS = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
WORDS += ["--num-clients", "5", "--feature-dim", "4", "--quiet"]


def values(text, num_rounds, upto):
    law = schedules.decay(text, num_rounds)
    return [law(round) for round in range(1, upto + 1)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", [1, 1, 1, 1, 1, 1]),
        ("exponential:0.5", [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]),
        ("step:2:0.1", [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("linear:0.2", [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ("cosine:0", [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0, 0]),
        ("cosine", [1, 0.8550, 0.505, 0.1550, 0.01, 0.01]),
    ],
)
def test_each_decay_follows_its_law(text, found):
    np.testing.assert_allclose(values(text, 5, 6), found, atol=1e-4)
    assert values(text, 1, 1) == [1.0]  # one round has the full rate


WRONG = """exponential exponential:0 exponential:1.1 exponential:x exponential:inf
step:10 step:0:0.5 step:1.5:0.5 step:2:0 linear linear:-1 linear:nan cosine:2
cosine:0:1 none:1 exponental:0.9 :"""


@pytest.mark.parametrize("text", WRONG.split())
def test_what_is_no_decay_is_refused_with_all_forms(text):
    with pytest.raises(ValueError, match=r"must be none, exponential:RATE.*got"):
        schedules.decay(text, 5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, [0.25, 0.25, 0.25]),
        ("0.25", [0.25, 0.25, 0.25]),
        ("linear:0.2:0.8", [0.2, 0.5, 0.8]),
        ("linear:1:0", [1.0, 0.5, 0.0]),
        (lambda round: round / 4, [0.25, 0.5, 0.75]),
        # Plain Python may decide by the round.
        (lambda round: 1.0 if round == 2 else 0.0, [0.0, 1.0, 0.0]),
    ],
)
def test_a_weight_has_a_value_in_every_round_and_keeps_the_last(value, expected):
    values = schedules.weights("alpha", value, 3)
    np.testing.assert_allclose(values, expected, atol=1e-15)
    later = schedules.of_round(values, jnp.int32(7), jnp.float32)
    np.testing.assert_allclose(later, expected[-1], atol=1e-7)


def test_a_run_of_no_rounds_can_be_built():
    np.testing.assert_array_equal(
        schedules.weights("alpha", "linear:0.2:0.8", 0), [0.2]
    )


@functools.cache
def data():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (30, 4, 4)).astype(np.uint8)
    return fm.arrays(x, np.arange(30) % 3, x, np.arange(30) % 3)


def federation(**options):
    return fm.Federation(
        dataset=data(),
        partition="iid",
        algorithm="fml",
        models=("mlp",),
        shared_model="mlp",
        feature_dim=4,
        num_clients=3,
        rounds=3,
        learning_rate=0.08,
        **options,
    )


def test_a_round_has_the_rate_of_its_number_and_nothing_is_recompiled():
    decaying, plain = federation(learning_rate_decay="exponential:0.25"), federation()
    states = [decaying.init(), plain.init()]
    # Watching for the reuse of keys traces everything again.
    with jax.debug_key_reuse(False), contextlib.ExitStack() as stack:
        stack.callback(jax.config.update, "jax_no_tracing", False)
        for round in range(3):
            states[0], _ = decaying.play(states[0])
            rate = 0.08 * 0.25**round
            states[1], _ = plain.with_trial(learning_rate=rate).play(states[1])
            assert_trees_equal(states[0], states[1])
            jax.config.update("jax_no_tracing", True)  # from now on an error


def test_trials_of_other_rates_decay_from_their_own():
    base = federation(learning_rate_decay="step:1:0.5")
    other = base.with_trial(learning_rate=0.02)
    states = [base.init(), other.init()]
    for _ in range(2):
        played = base.play_together([base.trial, other.trial], states)
        states = [state for state, _ in played]
    alone, _ = other.play(other.play(other.init())[0])
    assert_trees_equal(states[1].server, alone.server)


def test_a_mistake_is_told_before_any_training(capsys):
    argv = ["run", *WORDS, "--learning-rate-decay", "cosin"]
    assert main(argv) == 2
    assert "--learning-rate-decay must be none" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_and_verify_know_it(tmp_path, capsys):
    folder = str(tmp_path / "a")
    argv = ["run", *WORDS, "--rounds", "2", "--learning-rate-decay", "linear:0.5"]
    assert main([*argv, "--out", folder]) == 0
    assert main(["resume", folder, "--rounds", "3", "--quiet"]) == 0
    assert main(["verify", folder, "--rounds", "3", "--quiet"]) == 0
    assert "3 rounds are equal" in capsys.readouterr().out
    argv = ["resume", folder, "--rounds", "4", "--learning-rate-decay", "none"]
    assert main(argv) == 2
    assert "learning_rate_decay: 'linear:0.5' -> 'none'" in capsys.readouterr().err
