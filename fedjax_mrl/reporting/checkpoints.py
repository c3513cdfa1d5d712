"""The sections that need trained networks: every width, and representations."""

import warnings

import numpy as np

from fedjax_mrl import loading
from fedjax_mrl.reporting import nested, representations, widths
from fedjax_mrl.reporting.asked import Asked
from fedjax_mrl.reporting.content import Note, Section
from fedjax_mrl.reporting.error import ReportError
from fedjax_mrl.reporting.grouping import Setting
from fedjax_mrl.reporting.record import Run

MOST = 200  # clients that are asked; of more, as many at equal distances


def sections(
    setting: Setting, data_dir: str | None, client: int | None
) -> list[Section]:
    """Accuracy at every width, and the representations of one client.

    Args:
        setting: with its runs.
        data_dir: where the data lie now.
        client: whose representations; by default the first that was asked.
    """
    fused = [
        (method.name, run)
        for method in setting.methods
        for run in method.runs
        if nested.HEAD in run.heads
    ]
    if not fused:
        none = Note(
            "No method here fuses representations as FedMRL does, so there is no "
            "nested representation to look at."
        )
        return [Section(widths.TITLE, [none])]
    asked: list[Asked] = []
    notes: list[Note] = []
    for name, run in fused:
        try:
            asked.append(_ask(name, run, data_dir, client))
        except (OSError, ValueError) as error:
            why = str(error).rstrip(".")
            notes.append(Note(f"{run.path} is not in this part: {why}."))
    if not asked:
        return [Section(widths.TITLE, notes)]
    return [
        widths.section(setting, asked, notes),
        representations.section(asked, client),
    ]


def _ask(name: str, run: Run, data_dir: str | None, client: int | None) -> Asked:
    """Loads the newest checkpoint and asks its clients; damaged ones are passed over.

    Raises:
        ValueError: if there is none, or the data are not to be had here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if data_dir is None:
            federation = loading.load(run.path)
        else:
            federation = loading.load(run.path, data_dir=data_dir)
    assert federation.state is not None
    number = len(federation.train)
    wanted = set(np.linspace(0, number - 1, min(MOST, number)).round().astype(int))
    if client is not None:
        if not 0 <= client < number:
            raise ReportError(
                f"there is no client {client}; they go from 0 to {number - 1}"
            )
        wanted.add(client)
    answers = nested.answers(federation, sorted(map(int, wanted)))
    if not answers:
        raise ReportError("no client of it has test examples")
    names = [str(each) for each in federation.dataset.label_names]
    return Asked(name, run, federation.state.round, names, number, answers)
