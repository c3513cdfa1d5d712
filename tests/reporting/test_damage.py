"""Reports of runs whose tables were damaged say so."""

import re

import numpy as np
import pytest

from fedjax_mrl import partitions
from fedjax_mrl.cli.main import main
from fedjax_mrl.reporting import drawing, folder
from tests.reporting import runs


@pytest.fixture
def told(monkeypatch, tmp_path, capsys):
    """Reports on runs: what stderr says, and the page."""
    for name in ("png", "svg"):
        monkeypatch.setattr(drawing, name, lambda figure, name=name: name.encode())

    def report(*paths, status=0, words=()):
        out = tmp_path / "report"
        argv = ["report", *map(str, paths), "--out", str(out), "--overwrite"]
        assert main([*argv, "--no-checkpoints", *words]) == status
        page = out / folder.PAGE
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        return capsys.readouterr().err, re.sub(r"\s+", " ", text)

    return report


@pytest.fixture
def finished(tmp_path):
    """A run of four rounds that has ended, with a summary."""
    values = np.linspace(0.2, 0.7, 12).reshape(4, 3)
    path = runs.write(tmp_path / "one", values, algorithm="fml")
    (path / "summary.json").write_text('{"rounds": 4}')
    return path


def cut(path, lines):
    kept = path.read_text().splitlines(keepends=True)[: 1 + lines]
    path.write_text("".join(kept))


def test_a_run_that_is_whole_has_no_warning(finished, told):
    err, page = told(finished)
    assert err == "" and "damaged:" not in page and "Damaged" not in page


@pytest.mark.parametrize("left", ["summary.json", "rounds.csv", "checkpoints"])
def test_a_cut_table_of_accuracies_is_told_from_a_run_that_goes_on(
    finished, told, left
):
    cut(finished / "metrics.csv", 2)
    if left != "summary.json":
        (finished / "summary.json").unlink()
    if left != "rounds.csv":
        cut(finished / "rounds.csv", 2)
    if left == "checkpoints":
        (finished / "checkpoints" / "4").mkdir(parents=True)
    for text in told(finished):
        assert "metrics.csv is damaged or was cut: it ends in round 2" in text
        assert ("rounds.csv is damaged or was cut" in text) == (left != "rounds.csv")


def test_a_run_that_goes_on_is_not_called_damaged(finished, told):
    (finished / "summary.json").unlink()
    for name, lines in (("metrics.csv", 2), ("rounds.csv", 3), ("clients.csv", 6)):
        cut(finished / name, lines)
    with (finished / "metrics.csv").open("a") as file:
        file.write("3,loc")  # as a kill leaves it
    assert told(finished)[0] == ""


def test_lines_that_are_no_numbers_are_left_out_and_counted(finished, told):
    table = finished / "metrics.csv"
    text = table.read_text().replace(
        "\n2,local,personal,3,0.", "\n2,local,personal,3,x"
    )
    table.write_text(text)
    for text in told(finished):
        assert "metrics.csv is damaged: 1 line of it is unreadable" in text


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("metrics.csv", "mean_accuracy", ""),
        ("metrics.csv", "mean_accuracy", "nan"),
        ("metrics.csv", "worst_accuracy", "inf"),
        ("metrics.csv", "clients", "x"),
        ("clients.csv", "accuracy", ""),
        ("clients.csv", "client", ""),
        ("clients.csv", "client", "999999999"),
        ("rounds.csv", "round", "9" * 5000),
        ("rounds.csv", "bytes_down", ""),
        ("rounds.csv", "flops", ""),
    ],
)
def test_a_line_without_a_number_that_it_needs_is_left_out_and_counted(
    finished, told, name, column, value
):
    parts = [np.array([0])] * 3
    split = partitions.Partition(parts, parts)
    partitions.save(finished / "partition.npz", split)
    head, first, *rest = (finished / name).read_text().splitlines(keepends=True)
    cells = dict(zip(head.strip().split(","), first.strip().split(","), strict=True))
    first = ",".join({**cells, column: value}.values()) + "\n"
    (finished / name).write_text("".join([head, first, *rest]))
    for text in told(finished):
        assert f"its {name} is damaged: 1 line of it is unreadable" in text


def test_a_summary_of_endless_rounds_is_none(finished, told):
    (finished / "summary.json").write_text('{"rounds": 1e400}')
    assert told(finished)[0] == ""


@pytest.mark.parametrize("name", ["metrics.csv", "rounds.csv", "clients.csv"])
def test_a_file_of_garbage_is_named(finished, told, tmp_path, name):
    (finished / name).write_bytes(b"\x00\xff\x93 garbage\n\xfe\n")
    other = runs.write(tmp_path / "other", np.full((1, 2), 0.5), algorithm="fml")
    for text in told(finished, other):
        assert f"its {name} is unreadable" in text
    rest = name != "metrics.csv"  # can be reported without these
    err, _ = told(finished, status=0 if rest else 2)
    assert f"its {name} is unreadable" in err and err.count("\n") == 1


def test_of_a_cut_table_of_clients_the_worst_are_from_the_other(
    finished, told, tmp_path
):
    cut(finished / "clients.csv", 10)  # in the middle of round 4
    for text in told(finished):
        assert "clients.csv is damaged or was cut: in round 4 it has 1 of 3" in text
    cut(finished / "clients.csv", 5)
    told(finished)
    (row,) = (tmp_path / "report/tables/accuracy.csv").read_text().splitlines()[1:]
    assert "0.609091,,0.618182" in row  # worst and tenth percentile of round 4
