"""Tries the package on the accelerator of this machine, in under eight minutes.

    .venv/bin/python -m experiments.device_check --out check

Each piece runs in a process of its own, and what it found is written to
`check/device_check.json` and `check/device_check.md` at once. Pieces that are there
already are left out, so that the same command goes on where it was stopped, and once
more after the time was up. `--toy` makes everything small, to try this script itself
on any machine.

    plan       what the compiler says beforehand, without the device (`plan --target`)
    cpu        two rounds on the CPU of this machine, at full precision
    device     the same on the device, compared with the CPU's
    products   the same at the device's default precision
    again      the same twice, in two processes: are the digests equal?
    fixed      likewise with deterministic kernels (`--deterministic`)
    pace ...   rounds of the papers' headline case, for each candidate for a default
"""

import argparse
import json
import math
import operator
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_mrl import discovery

# Settings of the candidates for a default, and variables of their processes.
CANDIDATES: Mapping[str, tuple[dict[str, Any], dict[str, str]]] = (
    types.MappingProxyType(
        {
            "default": ({}, {}),
            "chunk 1": ({"chunk": 1}, {}),
            "chunk 2": ({"chunk": 2}, {}),
            "native": ({"lowering": "native"}, {}),
            "fused": ({"lowering": "fused"}, {}),
            "im2col": ({"lowering": "im2col"}, {}),
            "native and chunk 1": ({"lowering": "native", "chunk": 1}, {}),
            "fused and chunk 2": ({"lowering": "fused", "chunk": 2}, {}),
            "highest": ({"precision": "highest"}, {}),
            "more effort": ({}, {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-0.3"}),
        }
    )
)
PIECES = (
    "plan",
    "cpu",
    "device",
    "pace default",
    "again",
    *(f"pace {name}" for name in CANDIDATES if name != "default"),
    "products",
    "fixed",
)
HEADLINE = {
    "dataset": "cifar10",
    "models": ("cnn1", "cnn2", "cnn3", "cnn4", "cnn5"),
    "num_clients": 100,
    "participation": 0.1,
    "batch_size": 512,
    "epochs": 10,
    "shared_dim": 500,
}
SMALL = {"models": ("cnn5", "mlp"), "num_clients": 10, "partition": "iid"}
TOY = {
    "dataset": "digits",
    "models": ("mlp",),
    "shared_model": "mlp",
    "feature_dim": 16,
    "shared_dim": 8,
    "num_clients": 5,
    "participation": 1.0,
    "batch_size": 128,
    "epochs": 1,
    "partition": "iid",
}
ROUNDS = 2  # of pieces that compare numbers
CLOSE = 1e-3  # relative, of mean losses at full precision
KINDS = {"NVIDIA H200": "h200", "TPU v5 lite": "v5e", "TPU v6 lite": "v6e"}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="experiments.device_check")
    parser.add_argument("--out", default="device_check", metavar="FOLDER")
    parser.add_argument("--pieces", default=",".join(PIECES), help="_ for a blank")
    parser.add_argument("--minutes", type=float, default=7.5, help="of all pieces")
    parser.add_argument("--toy", action="store_true", help="everything small")
    parser.add_argument("--inside", metavar="PIECE", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    args.pieces = args.pieces.replace("_", " ").split(",")
    for name in args.pieces:
        if name not in PIECES:
            parser.error(discovery.unknown("piece", name, PIECES))
    return args


def main(words: Sequence[str] | None = None) -> int:
    """Carries out the pieces that are missing; 1 if a number is wrong."""
    args = arguments(words)
    if args.inside:
        print(json.dumps(carry_out(args.inside, toy=args.toy)))
        return 0
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "device_check.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    end = time.monotonic() + 60 * args.minutes
    for name in args.pieces:
        left = end - time.monotonic()
        if "seconds" not in found.get(name, {}) and left > 5:
            found[name] = _in_process(name, folder, left, toy=args.toy)
            _write(path, json.dumps(found, indent=1))
            _write(path.with_suffix(".md"), table(found))
    print(table(found))
    return 0 if all(judge(found).values()) else 1


def judge(found: Mapping[str, Any]) -> dict[str, bool]:
    """Whether what was compared is as it should be."""
    cpu, device, again = (found.get(name, {}) for name in ("cpu", "device", "again"))
    verdicts = {}
    if "losses" in cpu and "losses" in device:
        verdicts["as on the CPU"] = difference(cpu, device) < CLOSE
    if "digest" in device and "digest" in again:
        verdicts["digests repeat"] = again["digest"] == again["twice"]
    return verdicts


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest relative difference of the mean losses of rounds."""
    pairs = zip(one["losses"], other["losses"], strict=True)
    return max(abs(a - b) / abs(a) for a, b in pairs)


def table(found: Mapping[str, Any]) -> str:
    """What was found, in Markdown."""
    lines = ["| piece | found | seconds in all |", "| --- | --- | --- |"]
    for name, one in found.items():
        said = one.get("failed") or _sentence(name, one, found)
        lines.append(f"| {name} | {said} | {one.get('seconds', 0):.0f} |")
    lines += [""] + [
        f"{name}: {'yes' if good else 'NO'}" for name, good in judge(found).items()
    ]
    return "\n".join(lines) + "\n"


def _sentence(name: str, one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if name == "plan":
        model = _number(one["model_seconds"], 1e-3, "ms")
        return (
            f"{one['target']}: {one['peak'] / 2**30:.2f} GiB at the peak, a round "
            f"takes {model} at full speed"
        )
    if name.startswith("pace"):
        planned = found.get("plan", {})
        said = [
            f"{one['strategy']}: {1 / one['round']:.3g} rounds a second "
            f"({1e3 * one['round']:.3g} ms), {one['flops'] / one['round'] / 1e12:.3g} "
            f"TFLOP/s, first round {one['first']:.1f} s",
        ]
        if one["peak"]:
            said.append(f"{one['peak'] / 2**30:.2f} GiB at the peak")
            if planned.get("peak"):
                said.append(f"{one['peak'] / planned['peak']:.2f} of the plan")
        if planned.get("model_seconds"):
            said.append(f"{one['round'] / planned['model_seconds']:.1f} of the model")
        return ", ".join(said)
    said = f"{one['device']}: mean losses {one['losses']}, digest {one['digest'][:12]}"
    if name != "cpu" and "losses" in found.get("cpu", {}):
        said += f", {difference(found['cpu'], one):.1e} from the CPU's"
    if "twice" in one:
        same = "equal" if one["twice"] == one["digest"] else "DIFFERENT"
        said += f", played again: {same}"
    return said


def carry_out(piece: str, *, toy: bool) -> dict[str, Any]:
    """One piece, in this process."""
    if piece == "plan":
        return _plan(toy=toy)
    if piece.startswith("pace "):
        return _pace(CANDIDATES[piece.removeprefix("pace ")][0], toy=toy)
    precision = "default" if piece == "products" else "highest"
    return _numbers(precision, deterministic=piece == "fixed", toy=toy)


def _numbers(precision: str, *, deterministic: bool, toy: bool) -> dict[str, Any]:
    """Mean losses of rounds, accuracy and digest."""
    import jax
    import numpy as np

    federation = _federation(
        (TOY if toy else SMALL)
        | {"precision": precision, "deterministic": deterministic}
    )
    state, digester = federation.init(), federation.digester()
    digester(state)
    losses, digest = [], ""
    for _ in range(ROUNDS):
        state, played = federation.play(state)
        digester.touch(played.cohort)
        digest = digester(state)[0]
        scores = federation.scores(state)
        losses.append(float(np.nanmean(scores.loss)))
    return {
        "device": jax.devices()[0].device_kind,
        "losses": losses,
        "accuracy": float(np.nanmean(scores.accuracy)),
        "digest": digest,
    }


def _pace(options: Mapping[str, Any], *, toy: bool) -> dict[str, Any]:
    """Seconds of rounds of the headline case, and the peak of the device's memory."""
    import jax

    federation = _federation((TOY if toy else HEADLINE) | dict(options))
    state, seconds, flops = federation.init(), [], federation.flops()
    worked = []
    for _ in range(3 if toy else 12):
        jax.block_until_ready(state)
        start = time.perf_counter()
        state, played = federation.play(state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
        worked.append(float(flops[played.cohort].sum()))
    # Rounds differ in which groups have how many members.
    rest = sum(seconds[2:]) / len(seconds[2:])
    memory = jax.devices()[0].memory_stats() or {}
    strategy = next(iter(federation.pieces.strategies.values()))
    return {
        "device": jax.devices()[0].device_kind,
        "strategy": f"{strategy}, {federation.config.precision}",
        "first": seconds[0],
        "round": rest,
        "all": seconds,
        "flops": sum(worked[2:]) / len(worked[2:]),
        "peak": memory.get("peak_bytes_in_use", 0),
    }


def _plan(*, toy: bool) -> dict[str, Any]:
    """What the compiler says of the headline case for this device."""
    kind = _kind()  # asked in another process: this one must not open the device
    import jax

    jax.config.update("jax_platforms", "cpu")
    from fedjax_mrl import sharding
    from fedjax_mrl.config import build
    from fedjax_mrl.planning import afar, subject, target

    config, values = build(TOY if toy else HEADLINE), _values(toy=toy)
    name = next((v for k, v in KINDS.items() if kind.startswith(k)), None)
    wanted = None if name is None else target.parse(name)
    mesh = sharding.mesh(1) if wanted is None else target.mesh(wanted)
    made = afar.make(subject.Elsewhere(config, mesh, values), 10**15)
    seconds = None
    if wanted is not None:
        each = [
            wanted.chip.seconds(g.account.flops, g.account.bytes_accessed)
            for g in made.groups
        ]
        chunks = [
            math.ceil(config.participation * g.clients / g.together)
            for g in made.groups
        ]
        if None not in each:  # a client of the headline case has one minibatch
            seconds = config.epochs * sum(map(operator.mul, each, chunks))
    return {
        "target": str(wanted or kind),
        "peak": made.memory.peak,
        "model_seconds": seconds,
        "groups": [g.account._asdict() for g in made.groups],
    }


def _federation(options: Mapping[str, Any]) -> Any:
    from fedjax_mrl.cli import devices
    from fedjax_mrl.config import build
    from fedjax_mrl.federation import Federation

    config = build(options)
    devices.provide(config, keep=False)
    dataset = _values(toy=config.dataset != "cifar10").dataset
    more = {} if dataset is None else {"dataset": dataset}
    return Federation(config, **more)


def _values(*, toy: bool) -> Any:
    """Images of the sizes of CIFAR-10: what is timed does not depend on pixels."""
    from experiments import accelerators_table
    from fedjax_mrl.building.values import Values

    return Values(dataset=None if toy else accelerators_table.images_like_cifar10())


def _kind() -> str:
    """The device of this machine, as JAX names it."""
    ask = "import jax; print(jax.devices()[0].device_kind)"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def _in_process(
    name: str, folder: pathlib.Path, seconds: float, *, toy: bool
) -> dict[str, Any]:
    """A piece in a process of its own; twice where the two are compared."""
    started = time.monotonic()
    more = {"JAX_PLATFORMS": "cpu"} if name == "cpu" else {}
    if name.startswith("pace "):
        more |= CANDIDATES[name.removeprefix("pace ")][1]
    runs: list[dict[str, Any]] = []
    for _ in range(2 if name in ("again", "fixed") else 1):
        words = [sys.executable, "-m", "experiments.device_check", "--inside", name]
        try:
            done = subprocess.run(
                words + ["--toy"] * toy,
                env=os.environ | more,
                capture_output=True,
                text=True,
                timeout=max(1, seconds - (time.monotonic() - started)),
            )
        except subprocess.TimeoutExpired:
            return {"failed": "the time was up"}
        (folder / f"{name.replace(' ', '_')}.log").write_text(done.stderr, "utf-8")
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it ended"]
            return {"failed": last[0][:300]}
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    if len(runs) == 2:
        runs[0]["twice"] = runs[1]["digest"]
    versions = {"python": platform.python_version(), **_versions()}
    took = {"seconds": time.monotonic() - started, "versions": versions}
    return runs[0] | took


def _versions() -> dict[str, str]:
    import importlib.metadata

    names = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
    known = {d.name for d in importlib.metadata.distributions()}
    return {n: importlib.metadata.version(n) for n in names if n in known}


def _number(value: float | None, unit: float, name: str) -> str:
    return "-" if value is None else f"{value / unit:.3g} {name}"


def _write(path: pathlib.Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    os.replace(file.name, path)


if __name__ == "__main__":
    sys.exit(main())
