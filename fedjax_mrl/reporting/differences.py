"""The section on differences between methods, paired, with tests and intervals."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl.reporting import intervals, pairing
from fedjax_mrl.reporting.content import Cell, Column, Note, Reading, Section, Table
from fedjax_mrl.reporting.grouping import Setting
from fedjax_mrl.reporting.pairing import Pair

_FEW = "too few"
_NAMES = (Column("method", "method"), Column("minus", "minus"))
_SEEDS = (
    *_NAMES,
    Column("difference", "difference, points", "points"),
    Column("t_interval", "95 % interval", "range"),
    Column("p_t", "p, paired t", "probability"),
    Column("p_wilcoxon", "p, Wilcoxon", "probability"),
    Column("seeds", "seeds", "whole"),
    Column("round", "round", "rounds"),
)
_CLIENTS = (
    *_NAMES,
    Column("difference", "difference, points", "points"),
    Column("bootstrap", "95 % bootstrap", "range"),
    Column("ahead_on_average", "clients ahead on average over seeds, %", "percent"),
    Column("p_t", "p, paired t", "probability"),
    Column("p_wilcoxon", "p, Wilcoxon", "probability"),
    Column("p_holm", "p, Wilcoxon, Holm", "probability"),
    Column("clients", "clients", "whole"),
)


def section(setting: Setting) -> Section:
    """All pairs of methods: over seeds, and over clients."""
    found = pairing.pairs(setting)
    title = "Differences between methods"
    if not found:
        return Section(title, [Note(_missing(setting))])
    blocks: list[Note | Table] = []
    if all(method.algorithm != "standalone" for method in setting.methods):
        blocks.append(
            Note(
                "There is no run of Standalone (each client trains alone) among these "
                "runs, so nothing here says whether taking part is worth it."
            )
        )
    blocks.append(over_seeds(found))
    if any(pair.by_client.size for pair in found):
        blocks.append(over_clients(found))
    return Section(title, blocks)


def _missing(setting: Setting) -> str:
    if len(setting.methods) < 2:
        return "There is one method here, so there is nothing to compare it with."
    return (
        "No two methods have the same seeds in rounds that both evaluated, so they "
        "cannot be paired. Train them with the same --seeds and --data-seed."
    )


def _or_why(values: np.ndarray, *found: Cell) -> list[Cell]:
    """Intervals and p-values of some differences, or the words why there are none."""
    if intervals.all_equal(values):
        return [intervals.ALL_EQUAL] * len(found)
    return [_FEW if cell is None else cell for cell in found]


def over_seeds(found: Sequence[Pair]) -> Table:
    """The table of differences with tests over repetitions."""
    rows: list[tuple[Cell, ...]] = []
    for pair in found:
        values = pair.by_repetition
        first, last = pair.rounds
        p_t, p_ranks = pairing.student(values), pairing.wilcoxon(values)
        rows.append(
            (
                pair.first,
                pair.second,
                float(values.mean()),
                *_or_why(values, intervals.student(values), p_t, p_ranks),
                values.size,
                str(last) if first == last else f"{first} to {last}",
            )
        )
    reading = Reading(
        "For each pair of methods the difference of the clients' mean accuracy, taken "
        "seed by seed in the last round that both evaluated, and averaged over seeds; "
        "+1.00 means one percentage point more for the first.",
        "The interval is Student's for the mean of the paired differences: if it holds "
        "0, the sign is open. p is the probability of a difference at least as large "
        "if there were none: by the paired t-test, and by Wilcoxon's signed-rank test "
        "(two-sided, scipy). “Too few”: one pair has no interval, and fewer than "
        "six pairs that differ can never make Wilcoxon's p smaller than 0.05. “All "
        "equal”: pairs that all differ by the same say nothing of how far others would "
        "be off, so they have neither interval nor test.",
        "With fewer than about five seeds a large p says next to nothing, and a small "
        "one leans on normally distributed differences. Seeds of one split share that "
        "split; other splits may differ by more. p is not corrected for the number "
        "of pairs.",
    )
    return Table("differences-seeds", "Differences over seeds", _SEEDS, rows, reading)


def over_clients(found: Sequence[Pair]) -> Table:
    """The table of differences with tests over clients."""
    found = [pair for pair in found if pair.by_client.size]
    ranks = [pairing.wilcoxon(pair.by_client) for pair in found]
    rows: list[tuple[Cell, ...]] = []
    for pair, p_ranks, p_holm in zip(found, ranks, pairing.holm(ranks), strict=True):
        values = pair.by_client
        p_t = pairing.student(values)
        rows.append(
            (
                pair.first,
                pair.second,
                float(values.mean()),
                *_or_why(values, intervals.bootstrap(values)),
                float(np.mean(np.round(values, 9) > 0)),
                *_or_why(values, p_t, p_ranks, p_holm),
                values.size,
            )
        )
    reading = Reading(
        "The same differences client by client, each client averaged over the seeds "
        "that both methods have. “Clients ahead on average over seeds” is the share of "
        "clients whose difference so averaged is above 0.",
        "The bootstrap interval draws the clients again 10,000 times, always from the "
        "same seed. Paired t-test and Wilcoxon's signed-rank test (two-sided, scipy) "
        "ask whether clients differ on average; “Holm” is Wilcoxon's p corrected for "
        "all pairs of this table. The bootstrap needs five clients, Wilcoxon six that "
        "differ; clients that all differ by the same (“all equal”) have neither "
        "interval nor test. “Clients ahead on average over seeds” is not “clients that "
        "gain” in comparison.md, where the share is taken in each seed and then "
        "averaged.",
        "Clients are no independent repetitions: they were trained together and share "
        "a network. These tests speak of the clients of these runs, and a small p does "
        "not say that the next seed would agree; the table over seeds does.",
    )
    caption = "Differences over clients"
    return Table("differences-clients", caption, _CLIENTS, rows, reading)
