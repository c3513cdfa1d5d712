"""The numbers of a report against computations of their own."""

import csv
import io
import itertools
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_mrl.reporting import (
    accuracy,
    clients,
    content,
    costs,
    formats,
    grouping,
    intervals,
    nested,
    pairing,
    record,
    representations,
)
from fedjax_mrl.runs import summary
from tests.reporting import runs


def settings(*folders):
    return grouping.group([record.read(folder) for folder in folders])


def test_students_interval_is_that_of_the_books():
    # Mean 2, s = 1, n = 3: 2 -+ 4.302653 / sqrt(3).
    low, high = intervals.student([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert intervals.student([1.0]) is None and intervals.spread([1.0]) is None
    assert intervals.spread([1.0, 2.0, 3.0]) == pytest.approx(1.0)


def test_the_bootstrap_is_scipys_and_the_same_again():
    values = np.random.default_rng(3).exponential(size=30)
    found = intervals.bootstrap(values)
    assert found == intervals.bootstrap(list(values))
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile"
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.03 * values.std())
    assert intervals.bootstrap([0.5] * 5) == (0.5, 0.5)
    assert intervals.bootstrap(values[:4]) is None


def test_the_bootstrap_of_few_values_is_that_of_all_resamples():
    values = np.array([0.0, 0.1, 0.2, 0.6, 1.0])
    means = [np.mean(chosen) for chosen in itertools.product(values, repeat=5)]
    exact = np.quantile(means, [0.025, 0.975])
    assert intervals.bootstrap(values) == pytest.approx(exact, abs=0.021)


def test_tests_of_pairs_are_scipys_and_say_when_there_are_too_few():
    first = np.array([0.6, 0.7, 0.65, 0.8, 0.55, 0.62, 0.71])
    second = np.array([0.5, 0.72, 0.6, 0.7, 0.5, 0.6, 0.6])
    found = first - second
    t, ranks = stats.ttest_rel(first, second), stats.wilcoxon(np.round(found, 9))
    assert pairing.student(found) == pytest.approx(t.pvalue)
    assert pairing.wilcoxon(found) == pytest.approx(ranks.pvalue)
    assert pairing.student(found[:1]) is None and pairing.wilcoxon(found[:5]) is None
    assert pairing.wilcoxon(np.append(found[:5], [0.0, 0.0])) is None
    assert pairing.student(np.array([0.1, 0.1])) is None


def test_holms_correction_is_that_of_his_paper():
    assert pairing.holm([0.01, None, 0.04, 0.03]) == pytest.approx(
        [0.03, None, 0.06, 0.06]
    )
    assert pairing.holm([0.6, 0.9]) == [1.0, 1.0]


def test_the_row_of_a_method_is_made_of_its_runs(tmp_path):
    tables = np.random.default_rng(1).uniform(size=(2, 12, 6)).round(3)
    folders = [
        runs.write(tmp_path / f"fml-{s}", t, algorithm="fml", seed=s)
        for s, t in enumerate(tables)
    ]
    ((method,),) = [setting.methods for setting in settings(*folders)]
    columns = [column.key for column in accuracy._COLUMNS]
    row = dict(zip(columns, accuracy.row(method), strict=True))
    means = tables.mean(axis=2)  # [2, 12]
    close = lambda values: pytest.approx(
        (np.mean(values), np.std(values, ddof=1)), 1e-4
    )
    assert (row["seeds"], row["round"]) == (2, 12)
    assert row["last"] == close(means[:, -1])
    assert row["last10"] == close(means[:, 2:].mean(axis=1))
    assert row["best"] == close(means.max(axis=1))
    assert row["worst"] == close(tables[:, -1].min(axis=1))
    assert row["p10"] == close(np.percentile(tables[:, -1], 10, axis=1))
    assert row["last_interval"] == intervals.student(method_ends(method))
    clients_low, clients_high = row["clients_interval"]
    assert clients_low < tables[:, -1].mean() < clients_high


def method_ends(method):
    return [run.curve[12] for run in method.runs]


@pytest.mark.parametrize("shorter", ["fml", "standalone"])
def test_differences_are_taken_where_both_were_evaluated(tmp_path, shorter):
    alone = np.array([[0.5, 0.6], [0.6, 0.7], [0.9, 0.9]])
    fml, own = alone + np.array([[0.2], [0.1], [0.05]]), alone
    fml, own = (fml[:2], own) if shorter == "fml" else (fml, own[:2])
    folders = [
        runs.write(tmp_path / "a", fml, algorithm="fml", rounds=3),
        runs.write(tmp_path / "b", own, algorithm="standalone", rounds=3),
        runs.write(tmp_path / "c", alone, algorithm="standalone", seed=7),
    ]
    (setting,) = settings(*folders)
    (pair,) = pairing.pairs(setting)
    assert (pair.first, pair.second, pair.rounds) == ("fml", "standalone", (2, 2))
    assert pair.by_repetition == pytest.approx([0.1])
    assert pair.by_client == pytest.approx([0.1, 0.1])


def test_clients_are_set_against_the_same_seed_alone(tmp_path):
    tables = np.random.default_rng(5).uniform(0.2, 0.8, (4, 1, 6)).round(3)
    names = ("standalone", "standalone", "fml", "fml")
    folders = [
        runs.write(tmp_path / str(i), t, algorithm=name, seed=i % 2)
        for i, (name, t) in enumerate(zip(names, tables, strict=True))
    ]
    (setting,) = settings(*folders)
    fml = next(m for m in setting.methods if m.algorithm == "fml")
    found = clients.beside(setting, fml)
    assert found.alone == pytest.approx(tables[:2, 0].mean(axis=0))
    assert found.taking_part == pytest.approx(tables[2:, 0].mean(axis=0))


def test_methods_are_named_by_what_differs_and_long_runs_are_cut(tmp_path):
    table = np.full((4, 2), 0.5)
    folders = [
        runs.write(tmp_path / "a", table, algorithm="fedmrl", rounds=4),
        runs.write(
            tmp_path / "b",
            table,
            algorithm="fedmrl",
            set=(("algorithm.readout", "full"),),
        ),
        runs.write(tmp_path / "c", table[:2], algorithm="fedmrl", seed=1),
        runs.write(tmp_path / "d", table[:2], algorithm="fedmrl", seed=1),
        runs.write(tmp_path / "e", table, algorithm="fml", partition="iid"),
    ]
    found = settings(*folders)
    assert [setting.title for setting in found] == [
        "digits, class:2, 2 clients, 4 rounds",
        "digits, class:2, 2 clients, 2 rounds",
        "digits, iid, 2 clients, 4 rounds",
    ]
    assert [m.name for m in found[0].methods] == [
        "fedmrl, readout nested (default)",
        "fedmrl, readout full",
    ]
    names = {m.name: m for m in found[1].methods}
    assert {n: len(m.runs) for n, m in names.items()} == {
        "fedmrl, readout nested (default)": 2,
        "fedmrl, readout full": 1,
    }
    assert all(run.last_round == 2 for m in found[1].methods for run in m.runs)
    notes = " ".join(found[1].notes)
    assert f"{tmp_path}/d repeats {tmp_path}/c" in notes
    assert f"{tmp_path}/a has 4 rounds and is taken up to round 2" in notes
    longer = runs.write(tmp_path / "l", table, algorithm="fedmrl", seed=1)
    notes = " ".join(settings(*folders, longer)[1].notes)
    assert f"{longer} repeats {tmp_path}/c" in notes
    assert "left out here; it is in the chapter of 4 rounds." in notes


def test_costs_to_a_target_are_those_of_the_summary(tmp_path):
    table = np.linspace(0.1, 0.9, 9)[:, None].repeat(3, axis=1)
    run = record.read(runs.write(tmp_path / "a", table, algorithm="fml"))
    rows = [runs._round(t, 3, "fml") for t in range(1, 10)]
    theirs = summary.reached(sorted(run.curve.items()), rows, 0.55)
    assert costs.reached(run, 0.55) == (
        theirs["rounds"],
        theirs["bytes"],
        theirs["flops"],
    )
    assert costs.reached(run, 0.95) is None


def test_all_widths_are_those_of_cut_vectors():
    draw = np.random.default_rng(2)
    fused = draw.normal(size=(7, 9)).astype(np.float32)
    kernel = draw.normal(size=(6, 4)).astype(np.float32)  # a header of six
    bias = draw.normal(size=4).astype(np.float32)
    header = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    found, last = nested.prefixes(header, jnp.asarray(fused))
    assert found.shape == (7, 6)
    for width in range(1, 7):
        cut = np.where(np.arange(6) < width, fused[:, :6], 0)
        assert np.array_equal(found[:, width - 1], (cut @ kernel + bias).argmax(axis=1))
    assert np.allclose(last, fused[:, :6] @ kernel + bias, atol=1e-5)


def test_narrow_clients_keep_what_they_say_at_their_full_width():
    labels, fused = np.array([0, 1]), np.zeros((2, 3))
    wide = nested.Answers(
        0, labels, fused, fused[:, :0], np.array([[1, 0, 0], [1, 0, 1]])
    )
    narrow = nested.Answers(1, labels, fused, fused[:, :0], np.array([[0], [0]]))
    assert nested.accuracies([wide, narrow], "fine") == pytest.approx([0.5, 0.5, 0.75])
    assert nested.accuracies([wide, narrow], "coarse").size == 0


def test_the_plane_is_that_of_the_two_largest_variances():
    draw = np.random.default_rng(4)
    vectors = draw.normal(size=(50, 3)) * [1, 5, 2] + 9
    places, shares = representations.plane(vectors)
    assert np.allclose(
        places.var(axis=0), np.linalg.eigvalsh(np.cov(vectors.T, ddof=0))[:0:-1]
    )
    assert np.allclose(shares, places.var(axis=0) / vectors.var(axis=0).sum())
    places, shares = representations.plane(np.ones((3, 1)))
    assert not places.any() and not shares.any() and places.shape == (3, 2)


def test_tables_are_written_without_losing_numbers_or_meaning():
    columns = (
        content.Column("method", "method"),
        content.Column("last", "last, %", "spread"),
        content.Column("p", "p", "probability"),
    )
    rows = [("a|b_c, 5 %", (0.12345678, 0.01), 0.0004), ("d", (0.5, None), "too few")]
    reading = content.Reading("Shown.", "How.", "Not.")
    table = content.Table("t", "Of 50 %", columns, rows, reading)
    assert list(csv.reader(io.StringIO(formats.to_csv(table)))) == [
        ["method", "last", "last_sd", "p"],
        ["a|b_c, 5 %", "0.123457", "0.01", "0.0004"],
        ["d", "0.5", "", ""],
    ]
    markdown = formats.to_markdown(table)
    assert "| a\\|b_c, 5 % | 12.35 ± 1.00 | < 0.001 |" in markdown
    assert "| d | 50.00 | too few |" in markdown and "Shown. How. Not." in markdown
    latex = formats.to_latex(table)
    assert r"a|b\_c, 5 \% & 12.35 $\pm$ 1.00 & \textless{} 0.001 \\" in latex
    assert r"\caption{Of 50 \%}" in latex and "{lrr}" in latex


def test_half_written_and_doubled_lines_are_read_as_they_should(tmp_path):
    folder = runs.write(tmp_path / "a", np.full((3, 2), 0.5), algorithm="fml")
    whole = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(whole + "4,local,personal,2,0.")
    run = record.read(folder)
    assert run.curve == {1: 0.5, 2: 0.5, 3: 0.5} and run.at(4) == {}
    config = json.loads((folder / "config.json").read_text())
    assert run.config.num_clients == config["num_clients"] == 2
