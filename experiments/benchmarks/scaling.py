"""Cases that vary one size: participants, clients, devices, processes."""

from experiments.benchmarks.bench import Bench
from experiments.benchmarks.report import Table


def cohort(bench: Bench) -> list[Table]:
    """What a round costs with K of N clients."""
    clients, train, batch = bench.size((64, 512, 64), (8, 16, 8))
    split = {"clients": clients, "train": train, "test": 1}
    sizes = [2**i for i in range(clients.bit_length())]
    contenders = {
        f"K = {k}": bench.ours(
            split,
            {"batch_size": batch, "shared_dim": 500, "participation": k / clients},
            worker="all",
        )
        for k in sizes
    }
    costs, _ = bench.in_turn(contenders)
    title = f"Round with K of {clients} clients, {train // batch} steps of B = {batch}"
    places = dict(zip(contenders, sizes, strict=True))
    return [Table(title, costs, "ms", "K = 1", places, "K")]


def clients(bench: Bench) -> list[Table]:
    """What a round of ten participants costs with more and more others."""
    sizes, k = bench.size(([100, 1000, 10000], 10), ([10, 20, 40], 5))
    # Five images each, as many as 10,000 clients can have of 50,000; twenty epochs make
    # as many steps as a usual visit has.
    options = {"batch_size": 64, "epochs": bench.size(20, 2), "shared_dim": 500}
    contenders = {
        f"N = {n}": bench.ours(
            {"clients": n, "train": 5, "test": 1},
            options | {"participation": k / n, "client_store": "host"},
            worker="all",
        )
        for n in sizes
    }
    costs, _ = bench.in_turn(contenders)
    title = f"Round with {k} of N clients, {options['epochs']} steps each, host store"
    places = dict(zip(contenders, sizes, strict=True))
    return [Table(title, costs, "ms", f"N = {sizes[0]}", places, "N")]


def devices(bench: Bench) -> list[Table]:
    """A step on 1, 2 and 4 devices of the host."""
    batch, number = bench.size((64, 32), (8, 2))
    split = {"clients": 10, "train": batch * number, "test": 1}
    places = {_plural(n, "device"): n for n in (1, 2, 4)}
    contenders = {
        name: bench.ours(
            split,
            {"batch_size": batch, "shared_dim": 500, "devices": n},
            per=number,
        )
        for name, n in places.items()
    }
    costs, _ = bench.in_turn(contenders)
    title = f"Step, ten clients, B = {batch}, by devices"
    notes = (
        f"{bench.cores} cores; one device computes with all of them, each of several "
        "with one.",
    )
    return [Table(title, costs, "ms", "1 device", places, "devices", notes)]


def processes(bench: Bench) -> list[Table]:
    """Rounds of the command line, by one process and by two that are joined."""
    train, batch, number = bench.size((1280, 64, 5), (16, 8, 3))
    split = {"clients": 10, "train": train, "test": 1}
    config = {
        "batch_size": batch,
        "shared_dim": 500,
        "rounds": number,
        "eval_every": number,
        "checkpoint_every": number,
    }
    one, two = "1 process", "2 processes of 1 device"
    contenders = {
        one: bench.ours(split, config, "command", processes=1),
        "1 process of 1 device": bench.ours(
            split, config | {"devices": 1}, "command", processes=1
        ),
        two: bench.ours(split, config, "command", processes=2),
    }
    costs, _ = bench.in_turn(contenders)
    title = f"Round of `fedjax-mrl run`, {train // batch} steps of B = {batch}"
    notes = ("With digest; without evaluation, the first and the last round.",)
    return [Table(title, costs, baseline=one, notes=notes)]


def together(bench: Bench) -> list[Table]:
    """Three seeds at once, as `compare` plays them, and one after another."""
    batch, number = bench.size((64, 8), (8, 1))
    tables = []
    for k in bench.size((1, 3, 10), (2,)):
        split = {"clients": 10, "train": batch * number, "test": 1}
        config = {"batch_size": batch, "shared_dim": 500, "participation": k / 10}
        contenders = {
            name: bench.ours(
                split, config, "together", trials=3, at_once=name == "at once"
            )
            for name in ("one by one", "at once")
        }
        costs, _ = bench.in_turn(contenders)
        title = f"A round of three seeds, K = {k} of 10, {number} steps of B = {batch}"
        tables.append(Table(title, costs, "ms", "at once"))
    return tables


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"
