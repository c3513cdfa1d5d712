"""TensorBoard's events of a run, read back with the format's own definitions."""

import struct
import sys

import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import RunDirectory

RUN = (
    "run --algorithm standalone --models mlp --shared-model mlp --num-clients 5 --quiet"
)


def events(folder):
    """All events of a run in the order of their files' writing."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:  # length, its checksum, contents, their checksum
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def numbers(found, name):
    """The values of a name by round; the tables keep six digits."""
    return [
        (event.step, pytest.approx(value.simple_value, rel=1e-5))
        for event in found
        for value in event.summary.value
        if value.tag == name
    ]


def test_a_run_and_its_continuation_write_what_the_tables_hold(tmp_path):
    out = tmp_path / "run"
    assert main([*RUN.split(), "--rounds", "2", "--out", str(out)]) == 0
    assert main(["resume", str(out), "--rounds", "3", "--quiet"]) == 0
    found = events(out / "tensorboard")
    run = RunDirectory.open(out)
    for column in ("train_loss", "seconds", "flops", "bytes_up"):
        rows = [
            (int(row["round"]), float(row[column])) for row in run.rows("rounds.csv")
        ]
        assert [step for step, _ in rows] == [1, 2, 3]
        assert numbers(found, f"round/{column}") == rows
    rows = [
        (int(row["round"]), float(row["mean_accuracy"]))
        for row in run.rows("metrics.csv")
        if row["point"] == "local"
    ]
    assert numbers(found, "mean_accuracy/local/local") == rows
    # TensorBoard hides what another process left of the rounds from here on.
    assert [e.step for e in found if e.session_log.status] == [1, 3]


def test_without_the_extra_a_run_writes_no_events(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = tmp_path / "run"
    assert main([*RUN.split(), "--rounds", "1", "--out", str(out)]) == 0
    assert not (out / "tensorboard").exists()


def test_files_of_one_second_do_not_replace_each_other(tmp_path, monkeypatch):
    writer = pytest.importorskip("tensorboardX.event_file_writer")
    monkeypatch.setattr(writer.time, "time", lambda: 1_700_000_000.0)
    out = tmp_path / "run"
    assert main([*RUN.split(), "--rounds", "0", "--out", str(out)]) == 0
    assert main(["resume", str(out), "--rounds", "1", "--quiet"]) == 0
    assert len(list((out / "tensorboard").iterdir())) == 2
