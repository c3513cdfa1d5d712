"""Pictures of a run, drawn with matplotlib's object interface (no pyplot)."""

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fedjax_mrl.partitions import Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_NUMBERS = 20  # clients, and classes, up to which every cell shows its count
_BARS = 500  # clients up to which each has a bar of its own
_CURVES = 10  # which can be told apart by colour
_LONG = 40  # letters of a name, from which the legend has one column
_LABELS = 25  # rows or columns up to which each is named


def empty(width: float, height: float) -> "Figure":
    """A figure to draw on, in inches, which no window system and no pyplot knows."""
    # Imported here: training needs no matplotlib. And no pyplot: it would keep
    # figures and a backend for the whole process.
    _import()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(
    named: Iterable[tuple[str, Sequence[Sequence[tuple[int, float]]]]],
) -> "Figure":
    """Accuracies over rounds: for each name the mean and the range over its runs.

    Of more than ten those that end best have a colour and a name; the others are grey.

    Args:
        named: name, and for each of its runs the rounds and accuracies.
    """
    figure = empty(8, 5)
    axes = figure.subplots()
    drawn = [(name, *_mean_and_range(runs)) for name, runs in named]
    last = sorted((float(mean[-1]) for _, _, mean, _, _ in drawn), reverse=True)
    least = last[_CURVES - 1] if len(last) > _CURVES else -np.inf
    behind = 0
    for name, rounds, mean, low, high in drawn:
        if mean[-1] < least:
            behind += 1
            axes.plot(rounds, mean, color="0.8", linewidth=0.8, zorder=1)
            continue
        (line,) = axes.plot(rounds, mean, label=name)
        axes.fill_between(
            rounds, low, high, color=line.get_color(), alpha=0.15, linewidth=0
        )
    if behind:
        axes.plot([], [], color="0.8", linewidth=0.8, label=f"{behind} others")
    axes.set_xlabel("round")
    axes.set_ylabel("mean test accuracy of clients, before aggregation")
    axes.grid(alpha=0.3)
    if axes.lines:
        longest = max(len(name) for name, *_ in drawn)
        axes.legend(fontsize="small", ncols=2 if longest < _LONG else 1)
    return figure


def _mean_and_range(
    runs: Sequence[Sequence[tuple[int, float]]],
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Rounds, and over the runs mean, least and greatest accuracy of each."""
    length = min(len(curve) for curve in runs)
    rounds = [number for number, _ in runs[0][:length]]
    values = np.array([[a for _, a in curve[:length]] for curve in runs])
    return rounds, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _import() -> None:
    """Imports matplotlib, which refuses that where MPLBACKEND is mistyped."""
    if "matplotlib" in sys.modules:
        return
    wanted = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted


def partition(
    path: str | os.PathLike | BinaryIO,
    made: Partition,
    y_train: np.ndarray,
    label_names: Sequence[str],
) -> None:
    """Writes the picture of a partition, see `split`, as a PNG."""
    split(made, y_train, label_names).savefig(path, format="png")


def split(made: Partition, y_train: np.ndarray, label_names: Sequence[str]) -> "Figure":
    """Draws the number of training images of each class and client.

    Args:
        made: the partition, of N clients.
        y_train: labels of the training images [n], in [0, L).
        label_names: of the L classes.
    """
    counts = np.stack(
        [np.bincount(y_train[part], minlength=len(label_names)) for part in made.train],
        axis=1,
    )  # [L, N]
    num_classes, num_clients = counts.shape
    size = (
        np.clip(2 + 0.5 * num_clients, 6, 13),
        np.clip(2.5 + 0.35 * num_classes, 4, 11),
    )
    figure = empty(*size)
    sizes, cells = figure.subplots(
        2, 1, sharex=True, height_ratios=[1, max(2, min(num_classes / 3, 7))]
    )
    _draw_sizes(sizes, counts, [part.size for part in made.test])
    image = _draw_cells(cells, counts, label_names)
    figure.colorbar(
        image, ax=cells, label="examples of the class (white: none)", pad=0.01
    )
    if max(counts.shape) <= _NUMBERS:
        _number_cells(cells, counts)
    return figure


def _draw_sizes(axes: "Axes", counts: np.ndarray, num_test: Sequence[int]) -> None:
    """Draws the number of every client's training images, and tells of the test's.

    Args:
        axes: to draw on.
        counts: training images [L, N] of each class and client.
        num_test: test images of every client.
    """
    num_clients = counts.shape[1]
    place, height = np.arange(num_clients), counts.sum(axis=0)
    if num_clients <= _BARS:
        axes.bar(place, height, color="tab:blue", width=0.8)
    else:  # ten thousand bars take ten seconds
        axes.fill_between(place, height, color="tab:blue", step="mid", linewidth=0)
    axes.set_ylabel("examples")
    axes.set_title(
        f"Training examples of {num_clients} clients, {counts.sum():,} in all "
        f"({min(num_test):,} to {max(num_test):,} test examples each)",
        fontsize="medium",
    )
    axes.spines[["top", "right"]].set_visible(False)


def _draw_cells(
    axes: "Axes", counts: np.ndarray, label_names: Sequence[str]
) -> "AxesImage":
    """Draws a cell for each class and client, the darker the more images it has."""
    from matplotlib.colors import PowerNorm

    num_classes, num_clients = counts.shape
    # The square root shows small counts beside large ones. The bar begins at one
    # image: none has no colour, it is white.
    image = axes.imshow(
        np.ma.masked_equal(counts, 0),
        aspect="auto",
        interpolation="none",
        cmap="viridis_r",
        norm=PowerNorm(0.5, vmin=int(counts.max() > 1), vmax=counts.max()),
    )
    axes.set_xlabel("client")
    axes.set_ylabel("class")
    axes.set_xticks(_ticks(num_clients))
    axes.set_yticks(_ticks(num_classes))
    axes.set_yticklabels([label_names[label] for label in _ticks(num_classes)])
    return image


def _number_cells(axes: "Axes", counts: np.ndarray) -> None:
    """Writes the number of images into every cell that has some."""
    for (label, client), count in np.ndenumerate(counts):
        if count:
            dark = count > 0.3 * counts.max()
            axes.text(
                client,
                label,
                str(count),
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )


def _ticks(num: int) -> range:
    """At most 25 round places: every one, or every 5th, 10th, 50th and so on."""
    step = 1
    while num > _LABELS * step:
        step *= 2 if str(step)[0] == "5" else 5
    return range(0, num, step)
