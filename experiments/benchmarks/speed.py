"""Cases against rivals: a step, a round, the papers' setting with 100 clients."""

import statistics

from experiments.benchmarks.bench import Bench
from experiments.benchmarks.report import Table
from experiments.benchmarks.workers import Contender

_ACCESSES = 6  # of each parameter in a step, see `_bytes`


def step(bench: Bench) -> list[Table]:
    """A local step of FedMRL of ten clients, CNN-1 to CNN-5."""
    tables = []
    for batch, number in bench.size([(64, 32), (512, 6)], [(8, 2), (16, 2)]):
        split = {"clients": 10, "train": batch * number, "test": 1}
        config = {"batch_size": batch, "shared_dim": 500}
        naive = config | {"lowering": "native", "chunk": 10, "devices": 1}
        contenders = {
            "ours": bench.ours(split, config, per=number, facts=True),
        }
        if batch <= 64:  # two steps only: three seconds each, at 512 forty
            few = split | {"train": 2 * batch}
            contenders["naive vmap"] = bench.ours(few, naive, per=2)
        if bench.torch:
            loop = {"batch_size": batch, "number": number}
            contenders["plain"] = bench.rival(split, "loops:steps", **loop)
            contenders["plain, a client a core"] = bench.rival(
                split, "loops:steps", side_by_side=True, **loop
            )
            contenders["authors"] = bench.rival(
                split, "loops:steps", authors=True, **loop
            )
        costs, facts = bench.in_turn(contenders | _floors(bench))
        tables.append(_with_floors(f"Step, ten clients, B = {batch}", costs, facts))
    return tables


def round(bench: Bench) -> list[Table]:
    """A whole round: augmentation, local epoch, aggregation, evaluation."""
    train, test, batch = bench.size((4000, 1000, 64), (24, 8, 8))
    split = {"clients": 10, "train": train, "test": test}
    config = {"batch_size": batch, "shared_dim": 500}
    contenders = {"ours": bench.ours(split, config, evaluate=True)}
    facts = {}
    if bench.torch:
        for name, authors in (("plain", False), ("authors", True)):
            contenders[name] = bench.rival(
                split, "loops:rounds", batch_size=batch, authors=authors
            )
    costs, facts = bench.in_turn(contenders)
    title = f"Round, ten clients, {train} + {test} images each, E = 1, B = {batch}"
    notes = (
        "Ours tests four heads before and after aggregation, the loops one before.",
        *_formats(facts),
    )
    return [Table(title, costs, baseline="ours", notes=notes)]


def headline(bench: Bench) -> list[Table]:
    """The papers' 100 clients, a tenth of them a round, ten local epochs."""
    train, test, batch, epochs = bench.size((400, 100, 512, 10), (8, 2, 8, 2))
    split = {"clients": 100, "train": train, "test": test}
    config = {
        "batch_size": batch,
        "epochs": epochs,
        "participation": 0.1,
        "shared_dim": 500,
    }
    contenders = {
        "ours": bench.ours(split, config),
        "ours, all 100 clients tested": bench.ours(split, config, evaluate=True),
    }
    if bench.torch:
        loop = {"batch_size": batch, "epochs": epochs, "cohort": 10}
        contenders["plain"] = bench.rival(split, "loops:rounds", test=False, **loop)
        contenders["plain, the 10 participants tested"] = bench.rival(
            split, "loops:rounds", **loop
        )
    costs, facts = bench.in_turn(contenders)
    title = f"Round, N = 100, C = 10%, E = {epochs}, B = {batch}, {train} images each"
    return [Table(title, costs, baseline="ours", notes=_formats(facts))]


def _floors(bench: Bench) -> dict[str, Contender]:
    """Products by every library there is, and copies."""
    size, copied = bench.size((4096, 2**28), (256, 2**20))
    found = {
        "NumPy": Contender("floors:products", {"size": size}),
        "XLA": Contender("ours:products", {"size": size}),
        "copies": Contender("floors:copies", {"size": copied, "cores": bench.cores}),
    }
    if bench.torch:
        options = {"size": size, "cores": bench.cores}
        found["PyTorch"] = Contender("loops:products", options)
    return found


def _with_floors(title: str, costs: dict, facts: dict) -> Table:
    """The table, with the seconds that arithmetic and memory need at least."""
    copies = costs.pop("copies")
    rates = {
        name: costs.pop(name) for name in ("NumPy", "XLA", "PyTorch") if name in costs
    }
    fastest = min(rates, key=lambda name: statistics.median(rates[name]))
    flops, parameters = (facts["ours"][key] for key in ("flops", "parameters"))
    moved = _bytes(parameters)
    costs["floor: arithmetic"] = [flops * seconds for seconds in rates[fastest]]
    costs["floor: bytes"] = [moved * seconds for seconds in copies]
    speeds = ", ".join(
        f"{name} {1e-9 / statistics.median(found):.0f}" for name, found in rates.items()
    )
    notes = (
        f"{flops / 1e9:.3g} GFLOP and at least {moved / 1e6:.0f} MB a step. Products: "
        f"{speeds} GFLOP/s; the floor takes {fastest}. Copies: "
        f"{1e-9 / statistics.median(copies):.1f} GB/s, read and written; what stays "
        "in a cache from step to step is faster.",
        "Ours augments and, once a round, aggregates; the loops take images that are "
        "prepared already.",
        *_formats(facts),
    )
    for name, of in facts.items():
        if of.get("parameters", parameters) != parameters:
            differing = (
                f"{name} has {of['parameters']:,} parameters, not {parameters:,}."
            )
            notes = (*notes, differing)
    return Table(title, costs, "ms", "ours", notes=notes)


def _bytes(parameters: int) -> int:
    """Bytes that a step moves at least, of all networks in float32.

    A gradient's norm must be known before the first parameter changes. So the gradient
    is written and read again; parameters and momentum are read once and written once,
    as if the forward and backward passes left them in a cache. Images and activations
    are not counted.
    """
    return 4 * parameters * _ACCESSES


def _formats(facts: dict) -> tuple[str, ...]:
    chosen = [f"{name}: {of['format']}" for name, of in facts.items() if "format" in of]
    return (f"Memory format tried and kept: {'; '.join(chosen)}.",) if chosen else ()
