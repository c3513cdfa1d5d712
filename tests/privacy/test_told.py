"""What commands and reports say of runs with differential privacy."""

import pytest

from fedjax_mrl.cli.main import main

pytest.importorskip("dp_accounting")

FLAGS = "--models mlp --shared-model mlp --num-clients 5 --rounds 1 --feature-dim 8"
FLAGS = [*FLAGS.split(), "--limit-train", "100", "--partition", "iid"]
DP = "clip=0.5,noise=2.0,delta=1e-3"
NUMBERS = 3072 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10  # of the shared network in tests


def test_plan_shows_the_noise_beside_the_signal(capsys):
    words = ["plan", "--algorithm", "fedavg", *FLAGS, "--dp", DP]
    assert main(words) == 0
    out, err = capsys.readouterr()
    norm = 2.0 * 0.5 * NUMBERS**0.5 / 5
    assert f"noise         a norm of about {norm:.2g} in the mean" in out
    assert f"at most 0.5 ({NUMBERS:,} shared numbers, 5 participants)" in " ".join(
        out.split()
    )
    assert "training will hardly learn" in err and "measured now on this" in out
    quieter = [*words[:-1], "clip=0.5,noise=0.2,delta=1e-3", "--no-calibration"]
    assert main(quieter) == 0
    out, err = capsys.readouterr()
    assert "noise         a norm of" in out and "hardly" not in err
