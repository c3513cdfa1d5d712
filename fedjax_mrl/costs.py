"""Time that a run would take on clients' own devices and connections.

A model: each round lasts until its slowest participant has received the broadcast,
computed its visit and sent its upload; the server takes no time. Those that drop out
are not waited for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import discovery
from fedjax_mrl.programs import Programs
from fedjax_mrl.results import Row, architectures
from fedjax_mrl.runs import summary
from fedjax_mrl.simulation.cohorts import Sampler
from fedjax_mrl.simulation.population import Group


class Machines(NamedTuple):
    """The devices and connections that clients are thought to have.

    Attributes:
        down: of the way from the server to a client, Mbit/s.
        up: of the way back, Mbit/s.
        speed: GFLOP/s that a client's device does in training, by architecture.
    """

    down: float
    up: float
    speed: Mapping[str, float]


def machines(
    bandwidth: tuple[float, float],
    speed: float | Mapping[str, float],
    groups: Sequence[Group],
) -> Machines:
    """Checks and completes what clients are thought to have.

    Args:
        bandwidth: down and up, Mbit/s.
        speed: GFLOP/s, of all devices or by architecture.
        groups: all clients, by architecture.

    Raises:
        ValueError: for a number that is not above zero, an unknown architecture, or one
            without a speed.
    """
    names = list(dict.fromkeys(group.name for group in groups))
    speeds = dict(speed) if isinstance(speed, Mapping) else dict.fromkeys(names, speed)
    for name in speeds:
        if name not in names:
            raise ValueError(discovery.unknown("architecture", name, names))
    missing = [name for name in names if name not in speeds]
    if missing:
        raise ValueError(
            "Every architecture needs the speed of its devices, in GFLOP/s; "
            f"{', '.join(missing)} has none. Give one number for all, or one for each."
        )
    try:
        down, up = map(float, bandwidth)
        speeds = {name: float(number) for name, number in speeds.items()}
    except (TypeError, ValueError):
        down = up = 0.0
    numbers = [down, up, *speeds.values()]
    if not all(0 < number < float("inf") for number in numbers):
        raise ValueError(
            "A bandwidth is two numbers above zero, down and up in Mbit/s, and a speed "
            f"one above zero, in GFLOP/s; got {bandwidth!r} and {speed!r}."
        )
    return Machines(down, up, speeds)


def simulated_seconds(
    federation: Programs, rows: Sequence[Row], machines: Machines
) -> list[float]:
    """Seconds of every round on the clients' own machines.

    Participants, and how much of a visit stragglers complete, follow from the
    configuration. What one participant uploads is the mean of its round, which only
    methods that compress (FedKD) do not make exact.

    Args:
        federation: whose rounds they are.
        rows: of rounds.csv.
        machines: of the clients.
    """
    names = architectures(federation.groups)
    speed = np.array([machines.speed[name] for name in names])
    computing = federation.flops() / (1e9 * speed)
    sampler = Sampler(federation.train, federation.round_config)
    seconds = []
    for row in rows:
        plan = sampler.plan(federation.trial, int(row["round"]))
        if not plan.reported.size:
            seconds.append(0.0)
            continue
        down = 8e-6 * row["bytes_down"] / max(1, row["participants"]) / machines.down
        up = 8e-6 * row["bytes_up"] / plan.reported.size / machines.up
        longest = (computing[plan.reported] * plan.share).max()
        seconds.append(float(down + longest + up))
    return seconds


def to_targets(
    federation: Programs,
    rounds: Sequence[Row],
    metrics: Sequence[Row],
    *,
    targets: Sequence[float] = summary.TARGETS,
    machines: Machines | None = None,
) -> list[dict[str, Any]]:
    """Costs until the mean accuracy of all clients first reaches each target.

    Args:
        federation: whose rounds they are.
        rounds: rows of rounds.csv, in order.
        metrics: rows of metrics.csv.
        targets: accuracies of the headline, between 0 and 1.
        machines: of the clients; None leaves simulated seconds out.

    Returns:
        A row for each target that was reached: `target`, `rounds`, `bytes` (both ways,
        of all participants), `flops`, `seconds` as measured, and with machines
        `simulated_seconds`.

    Raises:
        ValueError: for a target that is no accuracy.
    """
    summary.require_targets(targets)
    curve = summary.headline_curve(metrics, federation.algorithm.heads[0])
    timed = (
        None if machines is None else simulated_seconds(federation, rounds, machines)
    )
    found: list[dict[str, Any]] = []
    for target in targets:
        reached = summary.reached(curve, rounds, target)
        if reached is None:
            continue
        played = [row for row in rounds if int(row["round"]) <= reached["rounds"]]
        seconds = sum(float(row["seconds"]) for row in played)
        found.append({"target": target, **reached, "seconds": round(seconds, 3)})
        if timed is not None:
            found[-1]["simulated_seconds"] = round(sum(timed[: len(played)]), 3)
    return found
