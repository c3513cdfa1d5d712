"""Writes a run as TensorBoard events, where tensorboardX is installed."""

import datetime
import importlib.util
import os
import pathlib
import struct
import sys
from collections.abc import Mapping

from fedjax_mrl import missing
from fedjax_mrl.runs.writers import Start, Writer


def available() -> bool:
    """Whether tensorboardX is installed."""
    if "tensorboardX" in sys.modules:
        return sys.modules["tensorboardX"] is not None
    return importlib.util.find_spec("tensorboardX") is not None


class TensorBoard(Writer):
    """Numbers by round, the picture of the split, and the settings as hparams.

    Every process that goes on with a run adds a file, in which TensorBoard reads that
    what an interrupted one left of later rounds is void.

    Args:
        folder: of the event files, made if it is missing.

    Raises:
        ImportError: without tensorboardX; says how to get it.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        if not available():
            raise ImportError(missing.sentence("fm.TensorBoard", "tensorboardX"))
        self._folder = pathlib.Path(folder)

    def begin(self, start: Start) -> None:
        """Begins a file; the first one of a run has its picture and settings."""
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2

        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = sum(1 for _ in self._folder.iterdir())
        # The synchronous writer: an error of the disk is raised where it happens, and
        # no thread is waited for.
        self._writer = event_file_writer.EventsWriter(
            str(self._folder / "events"),
            f".{earlier}",  # else one of the same second would be written over
        )
        self._event = event_pb2.Event
        begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(start.after + 1, session_log=begin)
        if not earlier:
            self._describe(start)
        self._writer.flush()

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a round; they are in the file when this returns.

        Raises:
            OSError: if the file cannot be written.
        """
        from tensorboardX import summary

        for name, value in values.items():
            self._add(number, summary=summary.scalar(name, value))
        self._writer.flush()

    def end(self, summary: Mapping[str, object]) -> None:
        """Ends the file."""
        from tensorboardX import summary as summaries

        if summary:
            self._add(0, summary=summaries.hparams({}, {})[2])
        self._writer.close()

    def _describe(self, start: Start) -> None:
        """Adds the picture of the split, and the settings."""
        from tensorboardX import summary
        from tensorboardX.proto import summary_pb2

        width, height = struct.unpack(">II", start.partition_png[16:24])
        image = summary_pb2.Summary.Image(
            height=height,
            width=width,
            colorspace=4,  # RGBA
            encoded_image_string=start.partition_png,
        )
        value = summary_pb2.Summary.Value(tag="partition", image=image)
        self._add(0, summary=summary_pb2.Summary(value=[value]))
        experiment, session, _ = summary.hparams(start.config, {start.headline: 0})
        self._add(0, summary=experiment)
        self._add(0, summary=session)

    def _add(self, step: int, **content: object) -> None:
        now = datetime.datetime.now().timestamp()  # what TensorBoard shows as the time
        event = self._event(wall_time=now, step=step, **content)
        self._writer.write_event(event)
