"""Times the package, its rivals and the machine's floors, in turn in one run.

    .venv/bin/python -m experiments.benchmark --data-dir DIR [--cases step,round]

Every contender lives in a process of its own; one works at a time (`workers`). The
rivals need the extra `benchmark` (torch, torchvision), BlazeFL that of its name. Keep
the machine free of other work meanwhile. Prints markdown; raw costs go to --out,
pictures to --plots.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Sequence

from experiments.benchmarks import costs, report, scaling, small, speed
from experiments.benchmarks.bench import Bench
from experiments.benchmarks.workers import WorkerError

CASES = {
    case.__name__: case
    for case in (
        speed.step,
        speed.round,
        speed.headline,
        small.small,
        costs.methods,
        scaling.cohort,
        scaling.clients,
        scaling.devices,
        scaling.processes,
        scaling.together,
        costs.compile,
        costs.memory,
        costs.mapping,
    )
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder with CIFAR-10")
    parser.add_argument("--cases", default=",".join(CASES), help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of raw costs")
    parser.add_argument("--plots", type=pathlib.Path, help="folder for pictures")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the program"
    )
    args = parser.parse_args(words)
    args.cases = args.cases.split(",")
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    if args.data_dir is None and not args.quick:
        parser.error("--data-dir is needed; only --quick does with the digits")
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    return args


def main() -> None:
    """Prints the tables of all cases; exits with 1 if a case failed."""
    args = arguments()
    machine = report.machine()
    rivals = all(importlib.util.find_spec(n) for n in ("torch", "torchvision"))
    bench = Bench(
        dataset="cifar10" if args.data_dir else "digits",
        data_dir=args.data_dir,
        repeats=args.repeats,
        quick=args.quick,
        cores=machine["cores"],
        torch=rivals,
    )
    versions = [f"{name} {found}" for name, found in machine["packages"].items()]
    print(f"{machine['cores']} cores, {machine['processor']}; Python", end=" ")
    print(f"{machine['python']}, {', '.join(versions)}; {bench.dataset}")
    print(f"\nMedians of {args.repeats} repetitions, all contenders in turn.\n")
    if not rivals:
        print("Without torch and torchvision: the rivals are left out.\n")
    results: dict[str, object] = {"machine": machine, "quick": args.quick}
    failed = []
    for name in args.cases:
        print(f"{name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            tables = CASES[name](bench)
        except WorkerError as error:
            print(f"The case {name} failed: {error}", file=sys.stderr)
            failed.append(name)
            continue
        seconds = time.perf_counter() - started
        print(*(table.markdown() for table in tables), sep="\n", flush=True)
        tables_ = [table._asdict() for table in tables]
        results[name] = {"tables": tables_, "seconds": seconds}
        if args.out:  # after every case, so that a long run can be interrupted
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
        if args.plots:
            args.plots.mkdir(parents=True, exist_ok=True)
            report.picture(args.plots / f"{name}.png", tables)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
