"""Memory and traffic of large federations, computed from shapes; trains nothing.

    .venv/bin/python -m experiments.scaling [--devices-per-host 8]

FedMRL on CIFAR-10 with the five CNNs, client states on the devices of all hosts
(`--client-store device`). Prints the tables of `docs/scaling.md`, which says what the
terms are.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fedjax_mrl import algorithms, models, tree
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.protocol import Setup
from fedjax_mrl.simulation import group_program, population, shapes

MODELS = ("cnn1", "cnn2", "cnn3", "cnn4", "cnn5")
CIFAR10 = (32, 32, 3)
CLIENTS = (10_000, 100_000, 1_000_000)
FRACTIONS = (0.001, 0.1)
HOSTS = (1, 8, 64)
GB = 1e9
# Arrays that XLA holds at once, each as large as the result, to sum up states over
# devices: what its memory analysis says of `tree.take` for eight CPU devices.
BUFFERS = 2


class Sizes(NamedTuple):
    """Bytes of what a client holds, by group, and of what it sends."""

    held: tuple[int, ...]  # private state and copy of the shared part
    private: tuple[int, ...]
    upload: int


class Need(NamedTuple):
    """Bytes, by what they are for."""

    states: float  # at rest, on each device
    cohort: float  # while it trains, on each device
    exchange: float  # of one group's members, whole on each device
    uploads: float  # of all groups, whole on each device
    saving: float  # one group's private states, whole on each device
    checkpoint: float  # in the memory of every host, and the file
    moved: float  # that a device receives in a round
    sent: float  # by the federation's clients to its server, in a round


def sizes(feature_dim: int = 500, shared_dim: int = 100) -> Sizes:
    """Sizes from the shapes of the models' own parameters."""
    build = lambda name, width: models.build(name, CIFAR10, 10, feature_dim=width)
    setup = Setup(
        shared=lambda width: build("cnn5", width),
        feature_dim=feature_dim,
        num_classes=10,
        optimizer=optimizers.sgd(0.01),
        prepare=images.prepare((0.0,) * 3, (1.0,) * 3, "none"),
        num_rounds=1,
    )
    algorithm = algorithms.build("fedmrl", setup, shared_dim=shared_dim)
    groups = population.assign(
        len(MODELS), [build(name, feature_dim) for name in MODELS]
    )
    found = [shapes.of(algorithm, group.model) for group in groups]
    upload = tree.num_bytes(found[0].broadcast)
    private = tuple(tree.num_bytes(of.private) for of in found)
    return Sizes(tuple(size + upload for size in private), private, upload)


def need(of: Sizes, clients: int, cohort: int, devices: int) -> Need:
    """What a round and a checkpoint take."""
    group = clients // len(MODELS)
    room = devices * group_program.capacity(cohort / len(MODELS), devices)
    states = group * sum(of.held)
    taking = room * sum(of.held)
    gathered = len(MODELS) * room * of.upload
    # Taking states is a sum over devices (two passes of a ring), putting them back a
    # gathering (one), as XLA compiles them; the digest sums up the cohort's.
    digested = cohort * sum(of.held) / len(MODELS)
    share = (devices - 1) / devices
    return Need(
        states=states / devices,
        cohort=taking / devices,
        exchange=BUFFERS * room * max(of.held),
        uploads=(room + cohort) * of.upload,
        saving=BUFFERS * group * max(of.private),
        checkpoint=states + of.upload,
        moved=share * (3 * taking + gathered + 2 * digested),
        sent=cohort * of.upload,
    )


def peak(found: Need, *, saving: bool) -> float:
    """Bytes on a device while a round is played, or while a checkpoint is made."""
    if saving:
        return found.states + found.saving
    return found.states + found.cohort + max(found.exchange, found.uploads)


def rows(of: Sizes, per_host: int) -> Iterator[list[str]]:
    """The lines of the large table."""
    text = lambda value: f"{value / GB:,.2f}" if value < 10 * GB else _whole(value)
    for clients in CLIENTS:
        for fraction in FRACTIONS:
            for hosts in HOSTS:
                cohort = round(clients * fraction)
                found = need(of, clients, cohort, hosts * per_host)
                yield [
                    f"{clients:,}",
                    f"{cohort:,}",
                    str(hosts),
                    *map(text, (found.states, found.cohort, found.exchange)),
                    *map(text, (found.uploads, found.saving, found.checkpoint)),
                    *map(text, (found.moved, found.sent)),
                ]


def _whole(value: float) -> str:
    return f"{value / GB:,.0f}"


def largest(fits: Callable[[int], bool]) -> int:
    """The largest number up to 10^9 that fits, to three digits."""
    low, high = 1, 10**9
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def limits(of: Sizes, per_host: int, memory: float) -> Iterator[list[str]]:
    """For each term alone, how many clients a device's memory allows."""
    for fraction in FRACTIONS:
        for hosts in HOSTS:
            made = lambda n, f=fraction, h=hosts: need(
                of, n, max(1, round(n * f)), h * per_host
            )
            terms = (
                lambda n, m=made: m(n).saving,
                lambda n, m=made: m(n).exchange,
                lambda n, m=made: m(n).uploads,
                lambda n, m=made: m(n).states,
                lambda n, m=made: m(n).cohort,
                lambda n, m=made: peak(m(n), saving=False),
                lambda n, m=made: peak(m(n), saving=True),
            )
            cells = [largest(lambda n, t=term: t(n) <= memory) for term in terms]
            yield [
                f"{100 * fraction:g}%",
                str(hosts),
                *[f"{float(f'{cell:.2g}'):,.0f}" for cell in cells],
            ]


def show(header: list[str], lines: Iterator[list[str]]) -> None:
    """Prints a table in Markdown."""
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for cells in lines:
        print("| " + " | ".join(cells) + " |")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices-per-host", type=int, default=8)
    parser.add_argument("--device-gb", type=float, default=80.0)
    return parser.parse_args(words)


def main() -> None:
    """Prints both tables."""
    args = arguments()
    of = sizes()
    mean = sum(of.held) / len(of.held)
    print(f"A client's state: {mean / 1e6:.3f} MB (mean), {max(of.held) / 1e6:.3f} MB")
    print(f"(largest); an upload: {of.upload / 1e6:.3f} MB.\n")
    columns = "states,cohort,exchange,uploads,saving,checkpoint,moved,sent"
    header = ["clients", "K", "hosts", *columns.split(",")]
    show(header, rows(of, args.devices_per_host))
    print(f"\nLargest number of clients with {args.device_gb:g} GB a device:\n")
    columns = "saving,exchange,uploads,states,cohort,a round,a checkpoint"
    header = ["fraction", "hosts", *columns.split(",")]
    show(header, limits(of, args.devices_per_host, args.device_gb * GB))


if __name__ == "__main__":
    main()
