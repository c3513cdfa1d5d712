"""What compilers say of methods on accelerators that are not here; trains nothing.

    .venv/bin/python -m experiments.accelerators_table --targets v5e,v6e \
        --algorithms fedmrl,standalone --models cnn5 --rows rows.jsonl

Adds a line to the file for each method and target as soon as it is known, and leaves
out those that it has: what was stopped goes on with the same command. Then prints the
whole file as a table. All of it is the compilers' model (docs/accelerators.md); the
seconds are those that compiling took on the machine where the line was made.
"""

import argparse
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from fedjax_mrl.config import RunConfig
from fedjax_mrl.planning import afar, subject, target

# What a line is about; the rest of it is what was found.
ABOUT = ("target", "algorithm", "models", "clients", "precision", "chunk")
HEADER = (
    "target",
    "method",
    "architecture",
    "clients at once",
    "seconds to compile",
    "working MB",
    "GFLOP a step",
    "GB accessed a step",
    "GiB at the peak",
    "of GiB",
)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="experiments.accelerators_table")
    parser.add_argument("--targets", default="v5e", help="such as v5e,v6e:4,h200")
    parser.add_argument("--algorithms", default="fedmrl,standalone")
    parser.add_argument("--models", default="cnn5", help="of the clients")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--precision", default="highest")
    parser.add_argument("--chunk", type=int, default=0, help="clients at once")
    parser.add_argument("--rows", metavar="FILE", default="accelerators.jsonl")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Finds the lines that are missing, and prints the table."""
    args = arguments(words)
    jax.config.update("jax_platforms", "cpu")
    path = pathlib.Path(args.rows)
    for word in args.targets.split(","):
        for algorithm in args.algorithms.split(","):
            about = {
                **{name: getattr(args, name) for name in ABOUT[2:]},
                "target": word,
                "algorithm": algorithm,
            }
            if not any(_about(row) == about for row in _rows(path)):
                line = json.dumps({**about, **_found(about)})
                with path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
    print(table(_rows(path)))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The lines in Markdown, one row for each architecture."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for row in rows:
        start = row["target"], row["algorithm"]
        if "refused" in row:
            lines.append((*start, row["refused"], *[""] * (len(HEADER) - 3)))
        for group in row.get("groups", ()):
            lines.append(
                (
                    *start,
                    group["name"],
                    str(group["together"]),
                    f"{group['seconds']:.0f}",
                    f"{group['working_bytes'] / 1e6:.1f}",
                    _number(group["flops"]),
                    _number(group["bytes_accessed"]),
                    f"{row['peak'] / 2**30:.2f}",
                    f"{row['limit'] / 2**30:.2f}",
                )
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _found(about: dict[str, Any]) -> dict[str, Any]:
    """What the compiler says, or why there is nothing."""
    models = tuple(about["models"].split(","))
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "libtpu", "jax-cuda13-plugin")
        if any(d.name == name for d in importlib.metadata.distributions())
    }
    wanted = target.parse(about["target"])
    mesh = target.mesh(wanted)  # without its compiler no line is written
    try:
        config = RunConfig(
            algorithm=about["algorithm"],
            models=models,
            shared_model=models[-1],
            num_clients=about["clients"],
            precision=about["precision"],
            chunk=about["chunk"],
        )
        made = afar.make(subject.Elsewhere(config, mesh), wanted.chip.memory)
    except ValueError as error:  # a method that needs something else, or does not fit
        return {"versions": versions, "refused": str(error)}
    groups = [
        {"name": g.name, "together": g.together, **g.account._asdict()}
        for g in made.groups
    ]
    return {
        "versions": versions,
        "groups": groups,
        "peak": made.memory.peak,
        "limit": made.limit,
    }


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3g}"


if __name__ == "__main__":
    main()
