"""Plays rounds and reports how they ended, for `run`, `resume` and `compare`."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedjax_mrl.cli.telling import Telling
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.runs.directory import RunDirectory
    from fedjax_mrl.runs.runner import Entry, Outcome
    from fedjax_mrl.simulation.state import State


def play(
    federation: "Federation",
    directory: "RunDirectory",
    label: str,
    told: "Telling",
    state: "State | None" = None,
) -> "tuple[int, str, Outcome | None]":
    """Plays a run to its end; returns exit status, message and outcome.

    The message is for stderr; the outcome is None unless the run was finished.

    The status is 0 if it is done, 1 if the disk or another process failed, 3 if it
    diverged, and 128 plus its number if a signal stopped it, such as 143.
    """
    from fedjax_mrl.cli import console, devices, signals, verbose
    from fedjax_mrl.runs import runner

    rounds = federation.config.rounds
    start = 0 if state is None else state.round
    _warn_unprotected([directory])
    try:
        with (
            signals.Stop() as stop,
            console.Progress(label, rounds, start=start, quiet=told.quiet) as progress,
            verbose.watching(federation, shown=told.verbose),
        ):
            outcome = runner.run(
                federation,
                directory,
                progress,
                stop=devices.agreed(stop),
                state=state,
                told=told.make(),
            )
    except (runner.Diverged, runner.Interrupted) as error:
        return *_end(error, directory, told.again), None
    except (OSError, RuntimeError, ValueError) as error:
        text = devices.lost(error)
        if text is None and isinstance(error, OSError):
            return *_end(error, directory, told.again), None
        if text is None:
            raise
        return 1, f"{text} {directory.path}", None
    finally:
        directory.unlock()
    return 0, "", outcome


def play_together(
    entries: "Sequence[Entry]",
    label: str,
    stop: "Callable[[], int | None]",
    told: "Telling",
) -> "list[tuple[int, str, Outcome | None]]":
    """Plays several runs at once to their ends; returns for each what `play` does.

    `stop` says the number of the signal that asked to stop, or None.
    """
    from fedjax_mrl.cli import console, verbose
    from fedjax_mrl.runs import runner

    rounds = entries[0].federation.config.rounds * len(entries)
    start = sum(entry.state.round for entry in entries if entry.state is not None)
    _warn_unprotected([entry.directory for entry in entries])
    try:
        with (
            console.Progress(label, rounds, start=start, quiet=told.quiet) as progress,
            verbose.watching(entries[0].federation, shown=told.verbose),
        ):
            reporting = [
                entry._replace(
                    report=progress.of(entry.directory.path.name), told=told.make()
                )
                for entry in entries
            ]
            ended = runner.run_together(reporting, stop)
    finally:
        for entry in entries:
            entry.directory.unlock()
    return [
        (*_end(end, entry.directory, told.again), None)
        if isinstance(end, Exception)
        else (0, "", end)
        for entry, end in zip(entries, ended, strict=True)
    ]


def _warn_unprotected(directories: "Sequence[RunDirectory]") -> None:
    """Warns, once for all runs, of a file system without locks."""
    warnings = [text for text in (each.unprotected for each in directories) if text]
    if warnings:
        print(f"fedjax-mrl: {warnings[0]}", file=sys.stderr)


def _end(
    error: Exception, directory: "RunDirectory", again: str | None
) -> tuple[int, str]:
    """Exit status and message for a run that did not reach its end."""
    from fedjax_mrl.runs import runner

    again = again or f"fedjax-mrl resume {directory.path}"
    if isinstance(error, runner.Diverged):
        return 3, str(error)
    if isinstance(error, runner.Interrupted):
        return 128 + error.signal, f"{error} Go on with: {again}"
    assert isinstance(error, OSError)
    reason = str(error) if error.strerror is None else error.strerror
    where = f" ({error.filename})" if error.filename else ""
    return 1, (
        f"Writing failed: {reason.rstrip('.')}{where}. Complete checkpoints are kept. "
        f"Solve this, then go on with: {again}"
    )


def finish(
    federation: "Federation",
    directory: "RunDirectory",
    label: str,
    told: "Telling",
    state: "State | None" = None,
) -> int:
    """Plays a run to its end and prints its table; returns the exit status."""
    from fedjax_mrl.cli import console

    status, message, outcome = play(federation, directory, label, told, state)
    if outcome is None:
        print(f"fedjax-mrl: {message}", file=sys.stderr)
        return status
    if told.quiet:
        return 0
    if outcome.scores is not None:
        rounds = federation.config.rounds
        console.show(
            console.accuracy_table(
                f"{label}, round {rounds}: mean test accuracy of clients",
                federation.groups,
                federation.algorithm.heads,
                outcome.scores,
            )
        )
    if federation.privacy is not None:
        from fedjax_mrl.privacy import account

        console.show(f"Privacy: {account.sentence(outcome.summary['privacy'])}")
    down, up = (outcome.summary[name] / 1e6 for name in ("bytes_down", "bytes_up"))
    console.show(
        f"{outcome.summary['seconds']:.1f} s, {down:.1f} MB down and {up:.1f} MB up, "
        f"digest {(outcome.summary['digest'] or '-')[:16]}",
        f"Written to {directory.path}",
    )
    return 0
