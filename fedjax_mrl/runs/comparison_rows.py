"""The rows of comparison.csv, and the curves, of a comparison's runs."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from fedjax_mrl import references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import effective, grid_columns, summary
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import RunDirectory

COLUMNS = (
    "algorithm",
    "seed",
    "learning_rate",
    "head",
    "last",
    "last10",
    "best",
    "best_round",
    "bytes_down",
    "bytes_up",
    "flops",
    "seconds",
    "rounds",
    "target",
    "rounds_to_target",
    "status",
    "worst",
    "p10",
    "clients_gaining",
    "worst_gain",
)


def swept(runs: Iterable[Run]) -> list[str]:
    """The columns in which runs of a comparison differ, as their folders say."""
    return sorted({c for run in runs for c in grid_columns.said_in(run.path.name)})


def in_order(runs: Iterable[Run], columns: Sequence[str] = ()) -> list[Run]:
    """Runs as tables list them, whichever command they came from.

    Args:
        runs: in any order.
        columns: of swept options; numbers ascend, before texts.
    """

    def key(run: Run) -> tuple[Any, ...]:
        values = [effective.value(run.config, column) for column in columns]
        return (
            references.short(run.config.algorithm),
            run.config.learning_rate,
            *((isinstance(value, str), value) for value in values),
            run.config.seed,
        )

    return sorted(runs, key=key)


def row(
    run: Run, target: float | None, status: str = "done", columns: Sequence[str] = ()
) -> dict[str, Any]:
    """One row of comparison.csv; the numbers of a run that is not done are empty."""
    values: dict[str, Any] = dict.fromkeys(with_columns(columns), "")
    values |= identity(run.config, columns)
    values |= {"status": status, "target": "" if target is None else target}
    if status != "done":
        return values
    found = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    headline = found["headline"] or {}
    values |= {key: headline[key] for key in COLUMNS if key in headline}
    values |= {key: found[key] for key in COLUMNS if key in found}
    if target is not None:
        curve = read_curve(run)
        values["rounds_to_target"] = next((r for r, a in curve if a >= target), "")
    return values


def identity(config: RunConfig, columns: Sequence[str] = ()) -> dict[str, Any]:
    """The cells of a row that say which run it is."""
    return {
        "algorithm": references.short(config.algorithm),
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        **{column: effective.value(config, column) for column in columns},
    }


def with_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of comparison.csv, with those of swept options."""
    return (*COLUMNS[:3], *columns, *COLUMNS[3:])


def read_curve(run: Run) -> list[tuple[int, float]]:
    """Rounds and headline accuracies of a finished run."""
    found = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    if not found["headline"]:
        return []
    rows = RunDirectory(run.path).rows("metrics.csv")
    return summary.headline_curve(rows, found["headline"]["head"])
