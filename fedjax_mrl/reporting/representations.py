"""The section on the representations of one client's test examples, in the plane."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedjax_mrl.reporting import drawing
from fedjax_mrl.reporting.asked import Asked, by_method
from fedjax_mrl.reporting.content import Note, Picture, Reading, Section
from fedjax_mrl.reporting.nested import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 1000  # examples that are drawn
_NAMED = 12  # classes up to which each has an entry in the legend


def section(asked: Sequence[Asked], client: int | None) -> Section:
    """Coarse and fine representations of one client, of the first run of a method."""
    title = "Representations of one client"
    firsts = [runs[0] for runs in by_method(asked).values()]
    chosen: list[tuple[Asked, Answers]] = []
    for each in firsts:
        of = {one.client: one for one in each.answers}
        number = next(iter(of)) if client is None else client
        if number in of and len(of[number].labels) > 2:
            chosen.append((each, of[number]))
    if not chosen:
        who = "The client" if client is None else f"Client {client}"
        return Section(title, [Note(f"{who} has too few test examples to draw.")])
    return Section(title, [_draw(chosen)])


def plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components: places in the plane [n, 2], and their shares of variance.

    The sign of an axis, which is arbitrary, is such that its largest entry is positive.

    Args:
        vectors: [n, D]; axes that are missing (D or n of 1) are zeros.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=float)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes, power = axes[:2], lengths**2
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    places = centred @ (axes * np.where(largest < 0, -1.0, 1.0)[:, None]).T
    shares = power[:2] / power.sum() if power.sum() else np.zeros(len(axes))
    missing = 2 - places.shape[1]
    return np.pad(places, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def _draw(chosen: list[tuple[Asked, Answers]]) -> Picture:
    figure = drawing.figure(0.9 + 2.8 * len(chosen))
    panels = figure.subplots(len(chosen), 2, squeeze=False)
    classes = sorted({int(label) for _, one in chosen for label in one.labels})
    for row, (each, one) in zip(panels, chosen, strict=True):
        width = one.coarse.shape[1] or one.fused.shape[1]
        views = (("coarse", one.fused[:, :width]), ("fine", one.fused))
        for axes, (name, vectors) in zip(row, views, strict=True):
            title = f"{each.method}: {name}, {vectors.shape[1]} numbers"
            axes.set_title(title, fontsize="medium")
            _panel(axes, vectors[:_MOST], one.labels[:_MOST], classes)
    if len(classes) <= _NAMED:
        handles, numbers = panels[0, 0].get_legend_handles_labels()
        names = [_name(chosen[0][0], int(number)) for number in numbers]
        figure.legend(
            handles, names, loc="outside lower center", ncols=5, fontsize="small"
        )
    first, one = chosen[0]
    return Picture(
        "representations",
        f"Representations of client {one.client}'s test examples",
        f"Scatter plots of {len(one.labels)} test examples of client {one.client} in "
        f"the plane of the two main directions, {len(classes)} classes in colours, for "
        f"{', '.join(each.method for each, _ in chosen)}: coarse and fine.",
        figure,
        Reading(
            f"The test examples of client {one.client}, from the checkpoint of the "
            f"first seed ({first.run.path}, round {first.round}), as the networks "
            "represent them: left the first numbers of the fused representation, which "
            "the coarse header reads, right all of it. Each dot is an example, placed "
            "by the two directions in which the representations differ most (principal "
            "components); colours are the true classes.",
            "Classes that lie apart are easily told apart by a header. The axes say "
            "how much of all differences the picture keeps: far below 100 %, most of "
            "it is not seen here.",
            "Classes that overlap in the plane may be far apart in the other "
            "directions. Distances of two panels cannot be compared, and one client "
            "is not all.",
        ),
    )


def _panel(
    axes: "Axes", vectors: np.ndarray, labels: np.ndarray, classes: Sequence[int]
) -> None:
    """Draws vectors [n, D] in the plane, each class with a colour and a marker."""
    from matplotlib import colormaps

    few = len(classes) <= 10
    colours = colormaps["tab10" if few else "turbo"]
    places, shares = plane(vectors)
    for place, label in enumerate(classes):
        axes.scatter(
            *places[labels == label].T,
            s=16,
            color=colours(place if few else place / (len(classes) - 1)),
            marker=drawing.marker(place) if len(classes) <= _NAMED else "o",
            alpha=0.8,
            linewidths=0,
            label=str(label),
        )
    axes.set_xlabel(f"{100 * shares[0]:.0f} % of the variance", fontsize="small")
    axes.set_ylabel(f"{100 * shares[1]:.0f} %", fontsize="small")
    axes.set(xticks=[], yticks=[])


def _name(asked: Asked, label: int) -> str:
    """The name of a class of the data; of a task of the client's own its number."""
    return asked.labels[label] if label < len(asked.labels) else str(label)
