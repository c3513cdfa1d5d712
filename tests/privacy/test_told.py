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


@pytest.mark.slow
def test_a_comparison_and_its_report_name_the_privacy_of_real_runs(tmp_path, capsys):
    words = ["--algorithms", "fedavg,standalone", "--seeds", "0,1", *FLAGS]
    out = tmp_path / "both"
    assert main(["compare", *words, "--dp", DP, "--out", str(out)]) == 0
    _, err = capsys.readouterr()
    assert "All 4 runs are on the same clients" in err
    assert "Whoever guesses --seed" in err and "training will hardly learn" in err
    assert main(["report", str(out), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    for text in ((out / "comparison.md").read_text(), page):
        assert text.count("fedavg, private: epsilon 3.139 at delta 0.001 after 1") == 1
        assert "to replace one client; fixed sampling" in text
        assert "PLDAccountant" in text and "of one run alone" in text
    assert 'scope="row">fedavg, private</th>' in page
