"""Whether runs are of one course, with the same rounds, and how far a run has come."""

import json
import pathlib
from collections.abc import Sequence

from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import effective, resuming
from fedjax_mrl.runs.comparison import Run

# Settings that a run of a comparison may have otherwise: they change no table.
_FREE = tuple(
    key
    for key in resuming.FREE
    if key not in ("rounds", "schedule_rounds", "eval_every")
)


def finished(run: Run) -> bool:
    """Whether the run was completed earlier under the same configuration."""
    played = rounds_played(run.path)
    return played == run.config.rounds and begun(run)


def rounds_played(path: pathlib.Path) -> int | None:
    """Rounds of a run that ended, by itself or diverged; None of any other."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        return int(summary["rounds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def begun(run: Run) -> bool:
    """Whether the run was begun earlier under the same configuration.

    Also by an earlier version, which may have had fewer settings, also under other
    settings that change no number (`_FREE`), and also with fewer rounds on the same
    schedules, so that it can go on.
    """
    try:
        text = (run.path / "config.json").read_text(encoding="utf-8")
        old = RunConfig.from_json(text)
    except (OSError, ValueError):
        return False
    return old.rounds <= run.config.rounds and same(old, run.config)


def same(old: RunConfig, new: RunConfig) -> bool:
    """Whether the rounds of two configurations are the same as far as both have them.

    They may differ in the number of rounds, if their schedules are of one length.
    """
    alike = resuming.schedule_length(old) == resuming.schedule_length(new)
    return alike and not differing(old, new, ("rounds",))


def differing(
    old: RunConfig, new: RunConfig, but: Sequence[str] = ()
) -> dict[str, tuple[object, object]]:
    """The settings in which two configurations differ, with both values.

    Those that change no table (`_FREE`) are left out, and those in `but`. A default
    that one says and the other leaves out is no difference.
    """
    values = {name: (getattr(old, name), getattr(new, name)) for name in vars(old)}
    values["set"] = dict(old.set), dict(new.set)
    if resuming.schedule_length(old) == resuming.schedule_length(new):
        values.pop("schedule_rounds")  # said in two ways
    if effective.same(old, new):
        but = (*but, *effective.SETTINGS)
    return {
        name: pair
        for name, pair in values.items()
        if name not in but
        and pair[0] != pair[1]
        and not (name in _FREE and resuming.may_differ(name, *pair))
    }
