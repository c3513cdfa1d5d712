"""The section on the data split: who has how much of what."""

import numpy as np

from fedjax_mrl import partitions
from fedjax_mrl.building import from_config
from fedjax_mrl.config import RunConfig
from fedjax_mrl.partitions import Partition
from fedjax_mrl.reporting import drawing
from fedjax_mrl.reporting.content import Note, Picture, Reading, Section
from fedjax_mrl.reporting.grouping import Setting
from fedjax_mrl.runs import pictures


def section(setting: Setting, data_dir: str | None) -> Section:
    """The heat map of the split of the first run."""
    title = "The split of the data"
    run = setting.methods[0].runs[0]
    config = run.config
    try:
        made = partitions.load(run.path / "partition.npz")
        data = from_config.data(_there(config, data_dir))
        picture = _draw(made, data.y_train, data.label_names)
    except (OSError, ValueError, IndexError) as error:
        return Section(
            title,
            [
                Note(
                    "The split cannot be drawn, since the data or the file of the "
                    f"split are not to be had here: {error}"
                )
            ],
        )
    seeds = {r.config.data_seed for method in setting.methods for r in method.runs}
    blocks: list[Note | Picture] = [picture]
    if len(seeds) > 1:
        blocks.append(
            Note(
                f"There are {len(seeds)} splits; this is that of data seed "
                f"{config.data_seed}."
            )
        )
    return Section(title, blocks)


def _there(config: RunConfig, data_dir: str | None) -> RunConfig:
    """The configuration with the place where the data are now."""
    import dataclasses

    return (
        config if data_dir is None else dataclasses.replace(config, data_dir=data_dir)
    )


def _draw(made: Partition, y_train: np.ndarray, names: tuple[str, ...]) -> Picture:
    figure = pictures.split(made, y_train, names)
    height = float(np.clip(2.4 + 0.22 * len(names), 4, 7.5))
    figure.set_size_inches(drawing.WIDTH, height)
    for axes in figure.axes:
        for text in axes.texts:
            text.set_fontsize("xx-small")
        axes.title.set_fontsize("small")
    sizes = [part.size for part in made.train]
    kinds = [np.unique(y_train[part]).size for part in made.train]
    return Picture(
        "split",
        "Training examples by class and client",
        f"Heat map of classes by clients. {len(sizes)} clients have {min(sizes)} to "
        f"{max(sizes)} training examples of {min(kinds)} to {max(kinds)} of "
        f"{len(names)} classes.",
        figure,
        Reading(
            "A column for each client and a row for each class of the data; the darker "
            "a cell, the more training examples of the class the client has. White is "
            "none. Above, the number of training examples of every client.",
            "Columns with few dark cells are clients that know few classes. The more "
            "the columns differ, the harder it is to share one network.",
            "How hard the classes are, and how alike examples of one class are from "
            "client to client.",
        ),
    )
