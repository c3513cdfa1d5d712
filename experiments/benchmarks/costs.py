"""Cases of the package alone: methods, compilation, memory, the default."""

from experiments.benchmarks.bench import Bench
from experiments.benchmarks.report import Table

_ONE_ARCHITECTURE = ("fedavg", "fedprox")
_ARCHITECTURES = ("cnn1", "cnn2", "cnn3", "cnn4", "cnn5", "resnet8", "mlp")
# Lowering, chunk, devices.
_FIXED = (
    ("winograd", 1, 2),
    ("blocked", 1, 2),
    ("fused", 1, 2),
    ("im2col", 1, 2),
    ("winograd", 5, 2),
    ("fused", 5, 2),
    ("winograd", 1, 1),
    ("fused", 1, 1),
    ("im2col", 1, 1),
)


def methods(bench: Bench) -> list[Table]:
    """Rounds of every algorithm."""
    from fedjax_mrl import algorithms

    train, batch = bench.size((4000, 64), (24, 8))
    split = {"clients": 10, "train": train, "test": 1}
    contenders = {}
    for name in bench.size(algorithms.names(), ["fedmrl", "fedavg", "standalone"]):
        config = {"algorithm": name, "batch_size": batch}
        if name.startswith("fedmrl"):
            config["shared_dim"] = 500
        if name in _ONE_ARCHITECTURE:
            config |= {"models": "cnn1", "shared_model": "cnn1"}
        contenders[name] = bench.ours(split, config, worker="all")
    costs, _ = bench.in_turn(contenders)
    title = f"Round without evaluation, ten clients, {train} images each, B = {batch}"
    notes = ("FedAvg and FedProx with CNN-1 alone, the others with CNN-1 to CNN-5.",)
    return [Table(title, costs, baseline="fedmrl", notes=notes)]


def compile(bench: Bench) -> list[Table]:
    """What a new process pays before its first round, with five architectures."""
    batch = bench.size(64, 8)
    split = {"clients": 10, "train": batch, "test": 1}
    config = {"batch_size": batch, "shared_dim": 500}
    contenders = {
        "default": bench.ours(split, config, "compiling", fresh=True),
        "1 device": bench.ours(split, config | {"devices": 1}, "compiling", fresh=True),
    }
    costs, _ = bench.in_turn(contenders)
    groups = bench.size("five architectures", "one architecture")
    title = f"First round minus second, {groups}, new process"
    return [Table(title, costs)]


def memory(bench: Bench) -> list[Table]:
    """The largest resident set of a run: three rounds of ten, everybody tested."""
    contenders = {}
    for store, sizes in (("device", (10, 100)), ("host", (10, 100, 1000))):
        for clients in bench.size(sizes, sizes[:1]):
            split = bench.size({"train": 40, "test": 10}, {"train": 24, "test": 8})
            config = {
                "client_store": store,
                "participation": 10 / clients,
                "shared_dim": 500,
            }
            contenders[f"{store} store, N = {clients}"] = bench.ours(
                {"clients": clients, **split}, config, "memory", fresh=True
            )
    costs, facts = bench.in_turn(contenders)
    each = next(iter(facts.values()))["bytes_per_client"] / 1e6
    notes = [f"A client's networks are {each:.2f} MB, the mean of architectures."]
    table = Table("Peak resident set of a run", costs, "MB")
    peaks = table.medians()
    for store in () if bench.quick else ("device", "host"):
        more = peaks[f"{store} store, N = 100"] - peaks[f"{store} store, N = 10"]
        notes.append(f"{store} store: {more / 90e6:.2f} MB for every client more.")
    return [table._replace(notes=tuple(notes))]


def mapping(bench: Bench) -> list[Table]:
    """The ways to compute a group, to see what the default is worth."""
    batch, number = bench.size((64, 8), (8, 1))
    tables = []
    for model in bench.size(_ARCHITECTURES, _ARCHITECTURES[-2:-1]):
        split = {"clients": 10, "train": batch * number, "test": 1}
        config = {"batch_size": batch, "shared_dim": 500, "models": model}
        if model == "mlp":
            config["shared_model"] = "mlp"
        contenders = {"default": bench.ours(split, config, per=number)}
        for lowering, chunk, devices in bench.size(_FIXED, _FIXED[:3]):
            name = f"{lowering}, chunk {chunk}, {devices} device{'s' * (devices > 1)}"
            fixed = {"lowering": lowering, "chunk": chunk, "devices": devices}
            contenders[name] = bench.ours(
                split, config | fixed, per=number, worker=f"{devices}"
            )
        costs, _ = bench.in_turn(contenders)
        table = Table(f"Step of FedMRL, ten clients with {model}", costs, "ms")
        medians = table.medians()
        default = medians.pop("default")
        best = min(medians, key=medians.get)
        ratio = default / medians[best]
        note = f"Best fixed: {best}; the default takes {ratio:.3f} of its time."
        tables.append(table._replace(baseline="default", notes=(note,)))
    return tables
