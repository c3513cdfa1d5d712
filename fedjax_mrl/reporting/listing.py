"""The section that lists the runs a setting is made of."""

from fedjax_mrl.reporting.content import Cell, Column, Note, Reading, Section, Table
from fedjax_mrl.reporting.grouping import Setting

_COLUMNS = (
    Column("run", "run"),
    Column("method", "method"),
    Column("seed", "seed", "whole"),
    Column("data_seed", "data seed", "whole"),
    Column("evaluated", "last evaluated round", "whole"),
    Column("rounds", "of", "whole"),
    Column("accuracy", "accuracy, %", "percent"),
)
_READING = Reading(
    "The runs that this chapter is made of, each with the mean accuracy of its clients "
    "in its last evaluated round here.",
    "Where the last evaluated round is below the number of rounds, the run is not "
    "finished, or ended early; where its table is damaged, a note below says so.",
    "What else was configured: every run has a config.json, which repeats it.",
)


def section(setting: Setting) -> Section:
    """The runs, and what was left out or cut."""
    rows: list[tuple[Cell, ...]] = [
        (
            str(run.path),
            method.name,
            run.config.seed,
            run.config.data_seed,
            run.last_round,
            setting.rounds,
            run.curve[run.last_round],
        )
        for method in setting.methods
        for run in method.runs
    ]
    table = Table("runs", "Runs", _COLUMNS, rows, _READING)
    damaged = [
        f"{run.path}: {sentence}."
        for method in setting.methods
        for run in method.runs
        for sentence in run.damage
    ]
    notes = [Note(text) for text in (*damaged, *setting.notes)]
    return Section("Runs", [table, *notes])
