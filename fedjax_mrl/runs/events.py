"""Writes a run's numbers as TensorBoard events, where tensorboardX is installed."""

import datetime
import pathlib
from collections.abc import Mapping, Sequence

from fedjax_mrl.runs.tables import Cell, Row

# Columns of rounds.csv that are also events.
COLUMNS = ("train_loss", "seconds", "bytes_down", "bytes_up", "flops", "rejected")


class Events:
    """The events of one run: a number for each name and round.

    Use as a context manager. Without the extra `tensorboard` nothing is written.

    Args:
        folder: of the event files, made if it is missing. Each process that goes on
            with a run adds a file.
        after: the round that the run goes on from. TensorBoard hides events of later
            rounds, which an interrupted process left.
    """

    def __init__(self, folder: pathlib.Path, after: int) -> None:
        self._writer = None
        try:
            from tensorboardX import event_file_writer
            from tensorboardX.proto import event_pb2
        except ImportError:
            return
        folder.mkdir(parents=True, exist_ok=True)
        # The synchronous writer: an error of the disk is raised where it happens, and
        # no thread is waited for.
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        self._event = event_pb2.Event
        begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(after + 1, session_log=begin)

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, round: int, values: Mapping[str, Cell]) -> None:
        """Adds the numbers of a round; they are in the file when this returns.

        A name without a number, as a loss that no example has, is left out.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._writer is None:
            return
        from tensorboardX import summary

        for name, value in values.items():
            if value is not None:
                self._add(round, summary=summary.scalar(name, value))
        self._writer.flush()

    def _add(self, step: int, **content: object) -> None:
        assert self._writer is not None
        now = datetime.datetime.now().timestamp()  # what TensorBoard shows as the time
        event = self._event(wall_time=now, step=step, **content)
        self._writer.write_event(event)


def values(row: Row, metrics: Sequence[Row]) -> dict[str, Cell]:
    """The names and numbers of a round in TensorBoard.

    Args:
        row: of rounds.csv.
        metrics: the round's rows of metrics.csv; none without an evaluation.
    """
    numbers: dict[str, Cell] = {f"round/{name}": row[name] for name in COLUMNS}
    for line in metrics:
        for measure in ("mean_accuracy", "mean_loss"):
            numbers[f"{measure}/{line['point']}/{line['head']}"] = line[measure]
    return numbers
