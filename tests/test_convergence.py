"""The experiment on convergence: its norms are those of the gradient, its files all."""

import csv

import pytest

from experiments import convergence
from experiments.convergence import FULL, Case
from tests.helpers import ROOT


@pytest.mark.slow
def test_the_global_norm_is_how_fast_a_small_step_of_all_lowers_the_loss():
    rate = 1e-3
    first, second = convergence.play(Case("", rate, FULL, "class:2"), 2)
    assert (first.loss - second.loss) / rate == pytest.approx(first.whole, rel=0.03)
    assert first.local > 1.05 * first.whole  # two classes a client pull apart


def test_means_and_exponents_are_those_of_the_norms():
    found = [convergence.Norms(1.0, 8.0 / t, 4.0) for t in range(1, 101)]
    written = convergence.rows(convergence.CASES[0], found)
    assert [row["rounds"] for row in written[:3]] == [1, 2, 3]
    assert float(written[1]["mean_global"]) == pytest.approx((8 + 4) / 2)
    assert {row["mean_local"] for row in written} == {"4"}
    assert convergence.slope(written, "mean_local") == pytest.approx(0, abs=1e-9)
    assert -1 < convergence.slope(written, "mean_global") < -0.7
    assert convergence.slope(written, "global") == pytest.approx(-1, abs=1e-4)


def test_the_findings_say_what_the_results_of_all_cases_are():
    with (convergence.TARGET / "convergence.csv").open(newline="") as file:
        written = [
            {**row, "rounds": int(row["rounds"])} for row in csv.DictReader(file)
        ]
    assert set(written[0]) == set(convergence.COLUMNS)
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    for case in convergence.CASES:
        own = [row for row in written if row["case"] == case.name]
        assert convergence.line(own) in text
    figure = convergence.draw(written)
    assert [len(axes.lines) for axes in figure.axes] == [len(convergence.CASES) + 1] * 2
