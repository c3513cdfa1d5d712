"""A progress bar for training in a notebook or on a terminal."""

import sys
from types import TracebackType

from tqdm import auto

from fedjax_mrl.results import Result


class Bar:
    """Counts rounds, with the newest loss and accuracy.

    Args:
        total: rounds to come.
        shown: whether to show it; None is in a notebook or on a terminal only.
    """

    def __init__(self, total: int, shown: bool | None) -> None:
        if shown is None:
            shown = "ipykernel" in sys.modules or sys.stderr.isatty()
        self._bar = auto.tqdm(total=max(total, 0), unit="round", disable=not shown)

    def __enter__(self) -> "Bar":
        if not self._bar.disable:
            self._bar.set_postfix_str("compiling")  # until the first round is done
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, result: Result) -> None:
        """Counts one more round."""
        losses = result.played.metrics["total"]
        words = {"loss": f"{float(losses.mean()):.4f}"} if losses.size else {}
        if result.accuracy is not None:
            words["accuracy"] = f"{result.accuracy:.4f}"
        self._bar.set_postfix(words, refresh=False)
        self._bar.update()
