"""Writers hand a run's numbers to a tracker: TensorBoard, or one of the user's own."""

import io
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import pictures
from fedjax_mrl.runs.tables import Row

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation

# Columns of rounds.csv that writers get.
COLUMNS = ("train_loss", "seconds", "bytes_down", "bytes_up", "flops", "rejected")
Value = bool | int | float | str


class Start(NamedTuple):
    """What a writer is told before the first round.

    Attributes:
        name: of the run's folder, or method and data set if it has none.
        config: every setting by name, with `algorithm.NAME` and `server.NAME` for
            hyper-parameters; lists are texts with commas, those without a value "".
        partition_png: the picture of the split, the bytes of a PNG file.
        after: the round that the run goes on from, 0 for a new one. Numbers of later
            rounds may have been written before the run was cut off; they come again,
            and are the same.
        headline: the name of the accuracy that tables show first.
    """

    name: str
    config: dict[str, Value]
    partition_png: bytes
    after: int
    headline: str


class Writer(Protocol):
    """Gets the numbers of a run as it is played; each method may be left as it is.

    A writer that raises is told of nothing more, with one warning: the run goes on, and
    its files are those of a run without it.

    Example:
        >>> import fedjax_mrl as fm
        >>> class Loud(fm.Writer):
        ...     def round(self, number, values):
        ...         print(number, sorted(values)[0])
        >>> federation = fm.Federation(
        ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
        ... )
        >>> _ = federation.fit(writers=[Loud()])
        1 mean_accuracy/global/mix_large
    """

    def begin(self, start: Start) -> None:
        """Called once, before the first round that is played."""

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Called after every round.

        Args:
            number: of the round.
            values: `round/COLUMN` for columns of rounds.csv, and after an evaluation
                `mean_accuracy/POINT/HEAD` and `mean_loss/POINT/HEAD`.
        """

    def end(self, summary: Mapping[str, object]) -> None:
        """Called once, when no more rounds will come.

        Args:
            summary: as summary.json; empty if the run ended early, by a signal, an
                error or a divergence. It may go on later, with `begin` again.
        """


class Writers:
    """Several writers, of which one that fails disturbs neither others nor the run.

    Use as a context manager; leaving it ends those that were not ended.

    Args:
        writers: objects with the methods of `Writer`.
        warn: is told which of them failed, once each.

    Raises:
        ValueError: for an object that lacks a method.
    """

    def __init__(
        self,
        writers: Sequence[Writer] = (),
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        for writer in writers:
            require(writer)
        self._writers, self._warn = list(writers), warn
        self._begun = False

    def __enter__(self) -> "Writers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._begun:
            self.end({})

    def __len__(self) -> int:
        return len(self._writers)

    def beside(self, first: Writer) -> "Writers":
        """These and one more, which is told first."""
        return Writers([first, *self._writers], self._warn)

    def begin(self, start: Start) -> None:
        """Tells all what begins."""
        self._begun = True
        self._tell("begin", start)

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Tells all of a round."""
        self._tell("round", number, values)

    def end(self, summary: Mapping[str, object]) -> None:
        """Tells all that no more rounds will come."""
        self._begun = False
        self._tell("end", summary)

    def _tell(self, method: str, *words: object) -> None:
        for writer in list(self._writers):
            try:
                getattr(writer, method)(*words)
            except Exception as error:
                self._writers.remove(writer)
                reason = " ".join(str(error).split())[:300]
                self._warn(
                    f"The writer {type(writer).__name__} failed in {method} and is "
                    f"told nothing more: {type(error).__name__}: {reason}. The run "
                    "goes on; all its numbers are in its tables."
                )


def require(writer: object) -> None:
    """Refuses what is no writer.

    Raises:
        ValueError: for an object that lacks a method of `Writer`.
    """
    for name in ("begin", "round", "end"):
        if isinstance(writer, type) or not callable(getattr(writer, name, None)):
            raise ValueError(
                "A writer is an object with the methods begin(start), round(number, "
                f"values) and end(summary), as fm.Writer has them; got {writer!r}."
            )


def start(
    federation: "Federation", after: int, name: str = "", picture: bytes | None = None
) -> Start:
    """What writers are told before a run.

    Args:
        federation: what is run.
        after: the round that it goes on from.
        name: of its folder.
        picture: of the split, where it was drawn before.
    """
    if picture is None:
        drawn = io.BytesIO()
        data = federation.dataset
        pictures.partition(drawn, federation.partition, data.y_train, data.label_names)
        picture = drawn.getvalue()
    return Start(
        name=name or federation.config.short_name,
        config=settings(federation.config),
        partition_png=picture,
        after=after,
        headline=f"mean_accuracy/local/{federation.algorithm.heads[0]}",
    )


def settings(config: RunConfig) -> dict[str, Value]:
    """Every setting of a configuration by name, see `Start`."""
    found: dict[str, Value] = {}
    for name, value in vars(config).items():
        if name == "set":
            found |= dict(value)
        elif isinstance(value, tuple):
            found[name] = ",".join(value)
        else:
            found[name] = "" if value is None else value
    return found


def values(row: Row, metrics: Sequence[Row]) -> dict[str, float]:
    """The names and numbers of a round; one without a number is left out.

    Args:
        row: of rounds.csv.
        metrics: the round's rows of metrics.csv; none without an evaluation.
    """
    numbers = {f"round/{name}": row[name] for name in COLUMNS}
    for line in metrics:
        for measure in ("mean_accuracy", "mean_loss"):
            numbers[f"{measure}/{line['point']}/{line['head']}"] = line[measure]
    return {
        name: value
        for name, value in numbers.items()
        if isinstance(value, (int, float))
    }
