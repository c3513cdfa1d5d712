"""How groups are computed: what is said, what is found out by timing."""

import json

import numpy as np
import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.config import build
from fedjax_mrl.federation import Federation
from fedjax_mrl.planning import timing, tuning
from fedjax_mrl.planning.tuning import Timed
from fedjax_mrl.simulation import strategies
from fedjax_mrl.simulation.strategies import Strategy

CPU = Strategy("winograd", 1)
SMALL = {
    "models": "cnn5,mlp",
    "shared_model": "mlp",
    "num_clients": 4,
    "partition": "iid",
    "feature_dim": 8,
    "shared_dim": 4,
    "devices": 1,
    "batch_size": 50,
    "limit_train": 200,
    "limit_test": 100,
}


def test_what_is_written_is_read_back():
    chosen = {"cnn1": Strategy("fused", 2), "mlp": CPU}
    words = strategies.write(chosen)
    assert words == ("cnn1=fused:2", "mlp=winograd:1")
    assert strategies.parse(words, ["mlp", "cnn1"]) == chosen
    assert strategies.parse(["a=auto:0"], ["a"]) == {"a": Strategy("winograd", 0)}
    assert build({"strategies": ",".join(words)}).strategies == words
    assert build({}).strategies == build({"strategies": ""}).strategies == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cnn5", "takes ARCHITECTURE=LOWERING:CHUNK.* got 'cnn5'"),
        ("cnn5=fused", "takes ARCHITECTURE=LOWERING:CHUNK"),
        ("cnn5=fused:-1", "takes ARCHITECTURE=LOWERING:CHUNK"),
        ("cnn5=fast:1", "lowering must be one of .*got 'fast'"),
        ("cnn4=fused:1", "architecture 'cnn4'"),
    ],
)
def test_strategies_that_cannot_be_meant_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Federation(build(SMALL, {"strategies": words}))


def test_the_default_comes_first_and_fixed_settings_stay():
    assert strategies.default("auto", 0, "cpu") == CPU
    assert strategies.default("native", 3, "cpu") == Strategy("native", 3)
    assert strategies.default("fused", 0, "gpu") == Strategy("fused", 0)
    found = strategies.candidates("auto", 0, "cpu")
    assert found[0] == CPU and len(found) == len(set(found)) == 5
    assert {s.chunk for s in found} == {1}
    assert {s.chunk for s in strategies.candidates("auto", 0, "gpu")} == {0, 1}
    assert strategies.candidates("im2col", 2, "cpu") == [Strategy("im2col", 2)]


@pytest.mark.slow
def test_each_architecture_is_computed_as_its_strategy_says():
    words = "cnn5=im2col:2,mlp=fused:1"
    made = Federation(build(SMALL, {"strategies": words}))
    plain = Federation(build(SMALL))
    assert made.round_config.chunks == {"cnn5": 2, "mlp": 1}
    programs = [timing.program_of(made, g, made.round_config) for g in made.groups]
    assert [program.chunk for program in programs] == [2, 1]
    states = [f.play(f.init())[0] for f in (made, plain)]
    scores = [f.evaluate(s) for f, s in zip((made, plain), states, strict=True)]
    np.testing.assert_allclose(scores[0].loss, scores[1].loss, rtol=1e-4)
    # The private and the shared network of each group: another program, other bits.
    digests = [f.digester()(s)[0] for f, s in zip((made, plain), states, strict=True)]
    assert digests[0] != digests[1]


def test_the_fastest_is_chosen_unless_the_default_is_about_as_fast():
    found = [
        Timed("a", CPU, 1.0),
        Timed("b", CPU, 1.0),
        Timed("a", Strategy("fused", 1), 0.98),
        Timed("b", Strategy("fused", 1), 0.9),
        Timed("b", Strategy("im2col", 1), 0.8),
    ]
    assert tuning.choose(found) == {"a": CPU, "b": Strategy("im2col", 1)}


@pytest.mark.slow
def test_a_tuned_run_keeps_what_it_found_and_repeats(tmp_path, capsys):
    small = SMALL | {"models": "mlp"}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in small.items()]
    argv = ["run", "--tune", "--lowering", "im2col", "--rounds", "1", *flags]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "mlp by im2col:1: " in printed and "Kept: mlp=im2col:1\n" in printed
    kept = json.loads((tmp_path / "a" / "config.json").read_text())["strategies"]
    assert kept == ["mlp=im2col:1"]
    assert main(["verify", str(tmp_path / "a")]) == 0
    resumed = ["resume", str(tmp_path / "a"), "--rounds", "2"]
    assert main([*resumed, "--strategies", "mlp=fused:1"]) == 2
    assert "strategies" in capsys.readouterr().err
    assert main([*resumed, "--quiet"]) == 0
