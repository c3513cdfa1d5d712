"""What compilers say of methods on accelerators that are not here; trains nothing.

    .venv/bin/python -m experiments.accelerators_table --case papers \
        --targets v5e,h200 --only cnn1 --rows rows.jsonl

Adds a line to the file for each target, method and architecture as soon as it is known,
and leaves out those that it has: what was stopped goes on with the same command, and
lines that were refused are tried again with `--again`. Then prints the whole file as a
table. All of it is the compilers' model (docs/accelerators.md); the seconds are those
that compiling took on the machine where the line was made.
"""

import argparse
import datetime
import importlib.metadata
import json
import pathlib
import resource
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_mrl import algorithms, numerics
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.ops import backend
from fedjax_mrl.planning import memory, subject, target
from fedjax_mrl.planning.planner import Account, Compiled, Planner
from fedjax_mrl.simulation.population import Group

# What a run is, by name. `papers`: the headline case of the FedMRL and FML papers.
CASES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        "papers": {
            "dataset": "cifar10",
            "num_clients": 100,
            "participation": 0.1,
            "batch_size": 512,
            "epochs": 10,
        },
        "digits": {"dataset": "digits"},
    }
)
FIVE = "cnn1,cnn2,cnn3,cnn4,cnn5"
_ONE_ARCHITECTURE = ("fedavg", "fedprox")
# What a line is about; the rest of it is what was found.
ABOUT = (
    "case",
    "target",
    "algorithm",
    "architecture",
    "models",
    "clients",
    "precision",
    "lowering",
    "chunk",
)
HEADER = (
    "case",
    "target",
    "method",
    "architecture",
    "computed",
    "seconds to compile, CPU / wall",
    "working MB",
    "GFLOP a step",
    "GB a step",
    "ms at full speed",
    "ms by the compiler",
    "GiB at the peak",
)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="experiments.accelerators_table")
    parser.add_argument("--case", choices=list(CASES), default="digits")
    parser.add_argument("--targets", default="v5e", help="such as v5e,v6e:4,h200")
    parser.add_argument("--algorithms", default=",".join(algorithms.names()))
    parser.add_argument("--models", default=FIVE, help="of the clients")
    parser.add_argument("--only", default="", help="compile these architectures alone")
    parser.add_argument("--clients", type=int, default=0, help="0 is the case's")
    parser.add_argument("--precision", default=RunConfig().precision)
    parser.add_argument("--lowering", default="auto")
    parser.add_argument("--chunk", type=int, default=0, help="clients at once")
    parser.add_argument("--rows", metavar="FILE", default="accelerators.jsonl")
    parser.add_argument("--again", action="store_true", help="try refused ones again")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Finds the lines that are missing, and prints the table."""
    args = arguments(words)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    path = pathlib.Path(args.rows)
    if args.again:
        kept = [row for row in _rows(path) if "refused" not in row]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in kept), "utf-8")
    for word in args.targets.split(","):
        for algorithm in args.algorithms.split(","):
            for row in _missing(args, path, word, algorithm):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(_rows(path)))


def _missing(
    args: argparse.Namespace, path: pathlib.Path, word: str, algorithm: str
) -> Iterator[dict[str, Any]]:
    """The lines of a method on a target that the file does not have, one by one."""
    models = args.models.split(",")
    if algorithm in _ONE_ARCHITECTURE:
        models = models[:1]
    known = [_about(row) for row in _rows(path)]
    for name in dict.fromkeys(args.only.split(",") if args.only else models):
        about = {
            "case": args.case,
            "target": word,
            "algorithm": algorithm,
            "architecture": name,
            "models": ",".join(models),
            **{key: getattr(args, key) for key in ABOUT[5:]},
        }
        if name in models and about not in known:
            yield {**about, **_found(about)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The lines in Markdown."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for row in rows:
        start = (*(row[name] for name in ABOUT[:4]),)
        if "refused" in row:
            lines.append((*start, row["refused"], *[""] * (len(HEADER) - 5)))
            continue
        account = Account(**row["account"])
        chip = target.parse(row["target"]).chip
        full = chip.seconds(account.flops, account.bytes_accessed)
        unknown = "> " if account.unmodelled else ""
        model = _number(account.model_seconds, 1e-3)
        lines.append(
            (
                *start,
                f"{row['lowering_used']}, {row['together']} at once, "
                f"{row['precision']}",
                f"{row['cpu_seconds']:.0f} / {account.seconds:.0f}",
                f"{account.working_bytes / 1e6:.0f}",
                _number(account.flops, 1e9),
                _number(account.bytes_accessed, 1e9),
                _number(full, 1e-3),
                model if model == "-" else unknown + model,
                f"{row['peak'] / 2**30:.2f} of {row['limit'] / 2**30:.2f}",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _found(about: dict[str, Any]) -> dict[str, Any]:
    """What the compiler says, or why there is nothing."""
    made = {
        "date": datetime.date.today().isoformat(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("jax", "libtpu", "jax-cuda13-plugin")
            if any(d.name == name for d in importlib.metadata.distributions())
        },
    }
    wanted = target.parse(about["target"])
    mesh = target.mesh(wanted)  # without its compiler no line is written
    models = tuple(about["models"].split(","))
    options = dict(CASES[about["case"]])
    if about["clients"]:
        options["num_clients"] = about["clients"]
    try:
        config = RunConfig(
            algorithm=about["algorithm"],
            models=models,
            shared_model=models[-1],
            precision=about["precision"],
            lowering=about["lowering"],
            chunk=about["chunk"],
            **options,
        )
        data = images_like_cifar10() if config.dataset == "cifar10" else None
        planned = subject.Elsewhere(config, mesh, Values(dataset=data))
        return {**made, **_compiled(planned, about["architecture"], wanted)}
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        return {**made, "refused": " ".join(str(error).split())[:400]}


def _compiled(
    planned: subject.Elsewhere, name: str, wanted: target.Target
) -> dict[str, Any]:
    """The account of one group's program, and the peak if it is the largest one."""
    platform, settings = wanted.chip.platform, planned.round_config
    with (
        numerics.fixed(planned.config.precision),
        backend.traced_for(platform),
    ):
        planner = Planner(planned)
        (group,) = (group for group in planned.groups if group.name == name)
        before = resource.getrusage(resource.RUSAGE_SELF)
        made = planner.compile(group, settings)
        after = resource.getrusage(resource.RUSAGE_SELF)
        programs = [_like(made, planner, other) for other in planned.groups]
        peak = memory.at_peak(planner, settings, programs, 0)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu_seconds": spent,
        "account": made.account._asdict(),
        "together": made.program.chunk,
        "batch_size": made.program.batch_size,
        "lowering_used": planned.pieces.strategies[name].lowering,
        "peak": peak.peak,
        "at": peak.moment,
        "limit": wanted.chip.memory,
    }


def _like(made: Compiled, planner: Planner, group: Group) -> Compiled:
    """Another group's program with needs as those of the one that was compiled."""
    if group.name == made.program.group.name:
        return made
    settings = planner.federation.round_config
    return planner.uncompiled_like(made, group, settings)


def images_like_cifar10() -> Dataset:
    """Black images of the sizes of CIFAR-10, where only shapes matter."""
    images = lambda number: np.zeros((number, 32, 32, 3), np.uint8)
    labels = lambda number: np.arange(number, dtype=np.int32) % 10
    return own.arrays(
        images(50_000),
        labels(50_000),
        images(10_000),
        labels(10_000),
        name="cifar10",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        augmentation="flip_erase_crop",
    )


def _about(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ABOUT}


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of the file; one that was cut off is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole, _, cut = text.rpartition("\n")
    if cut:
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def _number(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.3g}"


if __name__ == "__main__":
    main()
