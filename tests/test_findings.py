"""The findings quote the results that are kept with the project."""

import csv
import json

import pytest

from experiments import findings_course as course
from experiments import findings_table as table
from fedjax_mrl.reproducing import preset
from tests.helpers import ROOT

CLIENTS = ("3", "4", "8")


def rows(algorithm, head, right, point="local", split="0"):
    named = {"seed": "0", "data_seed": split, "point": point, "head": head}
    return [
        {"algorithm": algorithm, "client": client, "accuracy": str(accuracy), **named}
        for client, accuracy in zip(CLIENTS, right, strict=True)
    ]


def test_the_page_has_the_tables_of_the_results():
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert table.page(text) == text
    assert course.page(text) == text


def test_differences_are_paired_by_client_whatever_the_order_of_rows():
    alone = rows("standalone", "local", (0.5, 0.6, 0.7))
    mine = rows("fedmrl", "mix_large", (0.52, 0.59, 0.75))
    after = rows("fedmrl", "mix_large", (0.4, 0.4, 0.4), "global")
    other = rows("fedmrl", "mix_small", (0.1, 0.1, 0.1))
    # by hand: gaps 2, -1, 5; mean 2, standard error sqrt(3), Student's 4.3027
    expected = (
        "| `fedmrl` | mix_large | 62.00 | 40.00 | +2.00 [-5.45, +9.45] | 2 of 3 |"
    )
    assert table.line([*mine[::-1], *other, *after, *alone], "fedmrl") == expected


def test_a_split_is_told_once_both_methods_were_played_on_it():
    alone, mine = (0.5, 0.6, 0.7), (0.52, 0.59, 0.75)
    told = [
        *rows("standalone", "local", alone, split="2"),
        *rows("fedmrl", "mix_large", mine, split="2"),
        *rows("standalone", "local", alone),
        *rows("fedmrl", "mix_large", alone),
        *rows("fedmrl_last_client", "mix_large", (0.49, 0.59, 0.69)),
        *rows("standalone", "local", alone, split="1"),
    ]
    assert table.by_split(told).splitlines()[2:] == [
        "| 0 | 60.00 | 60.00 | +0.00 [+0.00, +0.00] | 0 of 3 | +1.00 [+1.00, +1.00] |",
        "| 2 | 60.00 | 62.00 | +2.00 [-5.45, +9.45] | 2 of 3 | not run |",
    ]


def test_results_of_a_run_are_replaced_and_those_of_others_kept():
    named = lambda method, split, right: {
        "dataset": "digits",
        "algorithm": method,
        "seed": "0",
        "data_seed": split,
        "accuracy": right,
    }
    kept = [named("fd", "0", "1"), named("fd", "1", "2"), named("fml", "0", "3")]
    found = table.joined(kept, [named("fd", "1", "4"), named("fd", "2", "5")])
    assert [row["accuracy"] for row in found] == ["1", "4", "5", "3"]


def test_only_finished_runs_are_collected_at_their_last_round(tmp_path):
    run = tmp_path / "fd-0"
    run.mkdir()
    config = '{"dataset": "digits", "algorithm": "fd", "seed": 0, "data_seed": 2}'
    (run / "config.json").write_text(config)
    (run / "metrics.csv").write_text("round,point,head\n5,local,own\n10,local,own\n")
    (run / "clients.csv").write_text("round,client,accuracy\n5,0,0.1\n10,0,0.2\n")
    assert table.collect(tmp_path) == ([], [])
    (run / "summary.json").write_text("{}")
    clients, rounds = table.collect(tmp_path)
    assert [row["accuracy"] for row in clients] == ["0.2"]
    assert [row["round"] for row in rounds] == ["5", "10"]
    assert clients[0]["data_seed"] == "2"


def test_a_course_ends_with_the_last_round_that_all_runs_have(tmp_path):
    heads = {
        "standalone": ("local", (60, 120)),
        "fedmrl": ("mix_large", (60, 120, 150)),
    }
    for name, (head, tested) in heads.items():
        run = tmp_path / f"{name}-0"
        run.mkdir()
        config = {"dataset": "digits", "algorithm": name, "seed": 0, "data_seed": 2}
        (run / "config.json").write_text(json.dumps(config))
        metrics, clients = ["round,point,head,mean_accuracy"], ["round,point,head"]
        clients[0] += ",client,accuracy"
        for number in tested:
            for point, more in (("local", 0.1), ("global", 0.0)):
                right = number / 1000 + more * (name == "fedmrl")
                metrics.append(f"{number},{point},{head},{right}")
                clients += [f"{number},{point},{head},{c},{right}" for c in range(3)]
        (run / "metrics.csv").write_text("\n".join(metrics) + "\n")
        (run / "clients.csv").write_text("\n".join(clients) + "\n")
    told, rounds = course.collect(tmp_path)
    assert {row["round"] for row in told} == {"120"}
    lines = course.generate(told, rounds).splitlines()
    assert lines[2:4] == [
        "| 60 | 6.00 | 16.00 | 6.00 |",
        "| 120 | 12.00 | 22.00 | 12.00 |",
    ]
    assert "after 120 rounds, before averaging: +10.00" in lines[-1]
    assert lines[-1].endswith("3 of 3 clients are ahead.")


@pytest.mark.parametrize("name", ["methods-n10", "n100"])
def test_results_name_their_columns(name):
    for kind, columns in (("", table.CLIENTS), ("-rounds", table.ROUNDS)):
        path = ROOT / "experiments" / "results" / f"{name}{kind}.csv"
        with path.open(encoding="utf-8") as file:
            assert tuple(file.readline().strip().split(",")) == columns


def test_what_a_preset_expects_is_the_best_of_the_kept_results():
    of_rounds = ROOT / "experiments" / "results" / "methods-n10-rounds.csv"
    with of_rounds.open(encoding="utf-8") as file:
        kept = [
            row
            for row in csv.DictReader(file)
            if (row["dataset"], row["data_seed"]) == ("cifar100", table.SPLIT)
        ]
    expected = preset.get("methods-n10").scales["full"].expected["c100"]
    assert {row["algorithm"] for row in kept} == set(expected)
    for name, found in expected.items():
        mine = [
            row for row in kept if (row["algorithm"], row["point"]) == (name, "local")
        ]
        head = mine[0]["head"]  # the method's own comes first
        curve = [100 * float(r["mean_accuracy"]) for r in mine if r["head"] == head]
        assert found.mean == pytest.approx(max(curve), abs=0.0051)
