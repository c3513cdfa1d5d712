"""What tables and reports say of private runs, and of values without spread."""

import json

import numpy as np
import pytest

from fedjax_mrl.reporting import accuracy, differences, grouping, private, record
from fedjax_mrl.runs import cells, comparison_notes, measures, private_runs
from tests.reporting import runs

SPENT = {"epsilon": 3.5, "delta": 1e-3, "rounds": 2, "relation": "replace one client"}
SPENT |= {"sampling": "fixed", "rate": 0.5, "noise": 2.0, "clip": 1.0}
SPENT |= {"accountant": "PLDAccountant", "version": "0.6.0"}
FLAT = np.full((2, 8), 0.75)


def setting(tmp_path, **options):
    """FedAvg and Standalone with three seeds that are all alike."""
    found = []
    for algorithm, own in (("fedavg", options), ("standalone", {})):
        for seed in range(3):
            path = tmp_path / f"{algorithm}-{seed}"
            found.append(runs.write(path, FLAT, algorithm=algorithm, seed=seed, **own))
            if own:
                (path / "summary.json").write_text(json.dumps({"privacy": SPENT}))
    (one,) = grouping.group([record.read(path) for path in found])
    return one


def test_a_report_marks_private_methods_and_says_their_epsilon(tmp_path):
    made = setting(tmp_path, dp="clip=1.0,noise=2.0,delta=1e-3")
    assert [m.name for m in made.methods] == ["fedavg, private", "standalone"]
    one, together = (note.text for note in private.notes(made))
    assert one.startswith("fedavg, private: epsilon 3.5 at delta 0.001 after 2 rounds")
    assert "to replace one client; fixed sampling" in one and "PLDAccountant" in one
    assert "differ in the seed alone" in together
    assert any(one in str(block) for block in accuracy.section(made).blocks)
    (tmp_path / "fedavg-1" / "summary.json").unlink()
    (made,) = grouping.group([record.read(path) for path in tmp_path.iterdir()])
    assert "1 of its runs are not finished" in private.notes(made)[-1].text


def test_private_methods_are_told_apart_by_their_options(tmp_path):
    for number, noise in enumerate((2.0, 3.0)):
        path = tmp_path / f"fedavg-{number}"
        dp = f"clip=1.0,noise={noise},delta=1e-3"
        runs.write(path, FLAT, algorithm="fedavg", dp=dp)
        (path / "summary.json").write_text(json.dumps({"privacy": SPENT}))
    (made,) = grouping.group([record.read(path) for path in tmp_path.iterdir()])
    words = {f"dp clip=1.0,noise={noise},delta=0.001" for noise in (2.0, 3.0)}
    assert {m.name for m in made.methods} == {f"fedavg, private, {w}" for w in words}
    told = [note.text for note in private.notes(made)][:2]
    assert {text.partition(": ")[0] for text in told} == {
        f"fedavg, {w}, private" for w in words
    }


def test_of_others_nothing_is_said_of_privacy(tmp_path):
    made = setting(tmp_path)
    assert made.methods[0].name == "fedavg" and private.notes(made) == []
    assert private_runs.below("| table |\n", []) == "| table |\n"


def test_values_without_spread_have_no_interval_and_no_test(tmp_path):
    made = setting(tmp_path)
    seeds, clients = differences.section(made).blocks
    assert seeds.rows[0][2:6] == (0.0, *["all equal"] * 3)
    assert clients.rows[0][3] == "all equal"
    assert clients.rows[0][5:8] == ("all equal",) * 3
    assert accuracy.row(made.methods[0])[2:4] == ("all equal",) * 2
    assert "All equal" in seeds.reading.how


@pytest.mark.parametrize("last", [0.75, 0.8])
def test_so_it_is_in_the_table_of_a_comparison(last):
    seeds = [{"seed": seed, "last": 0.7 + seed / 10} for seed in range(3)]
    ours = [{"algorithm": "fedavg", **line, "last": last} for line in seeds]
    alone = [{"algorithm": "standalone", **line, "last": 0.75} for line in seeds]
    text = measures.difference(ours, alone)
    assert text == f"{100 * last - 75:+.2f} [all equal]"
    cell = cells.Cell
    lines_of = {cell("fedavg", 0.1): ours, cell("standalone", 0.1): alone}
    (note,) = comparison_notes.differences(lines_of, [], several=False)
    assert note.startswith("[all equal]: all seeds differ by the same")
    ours[0]["last"] = 0.1
    assert "all equal" not in measures.difference(ours, alone)
