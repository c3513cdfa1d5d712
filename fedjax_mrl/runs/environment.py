"""The environment of a run, on which results may depend besides the configuration.

environment.json holds what `describe` finds where the run goes on now, and in the list
`environments` each one that recorded rounds, with its first round `from_round`.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from fedjax_mrl.runs.directory import RunDirectory

FILE = "environment.json"
PACKAGES = (
    "fedjax-mrl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "chex",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
)


class DeviceError(ValueError):
    """JAX finds nothing to compute on; the message says what to do."""


def describe() -> dict[str, Any]:
    """Versions, devices, precision, XLA flags and the git commit, if any.

    Raises:
        DeviceError: if there is no device.
    """
    present = devices()
    return software() | {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in present],
        "x64": bool(jax.config.jax_enable_x64),  # pyrefly: ignore[missing-attribute]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git_commit": commit(),
    }


def software() -> dict[str, Any]:
    """The part of `describe` that needs no device."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def devices() -> list[jax.Device]:
    """The devices of JAX's backend.

    Raises:
        DeviceError: if there are none, as on a machine without the one that
            JAX_PLATFORMS names.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second without a word
        reason = " ".join(str(error).split()).partition(" (")[0][:200].rstrip(".")
    asked = os.environ.get("JAX_PLATFORMS")
    named = f" (JAX_PLATFORMS is {asked!r})" if asked else ""
    remedy = (
        "Unset JAX_PLATFORMS to use what is there, or install what it names: for "
        'NVIDIA GPUs python -m pip install "jax[cuda13]", for TPUs python -m pip '
        'install "jax[tpu]".'
        if asked
        else "Look at the variables JAX_... and XLA_FLAGS of this shell."
    )
    why = f": {reason}".rstrip(": ")
    raise DeviceError(f"JAX finds no device to compute on{named}{why}. {remedy}")


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that this package lies in, or None."""
    source = pathlib.Path(__file__).resolve().parent
    if not (source.parent / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=source,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def recorded(run: RunDirectory) -> list[dict[str, Any]]:
    """The environments that recorded a run's rounds, oldest first, with `from_round`.

    Empty if the file is missing or damaged; a single one if an earlier version wrote
    it, which kept the newest only.
    """
    try:
        stored = json.loads(run.read_text(FILE))
        environments = stored.get("environments", [stored | {"from_round": 1}])
        environments = [
            one | {"from_round": int(one["from_round"])} for one in environments
        ]
        return sorted(environments, key=lambda one: one["from_round"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def of_round(environments: list[dict[str, Any]], round: int) -> dict[str, Any] | None:
    """Of `recorded`, the one that recorded a round; None if that is not known."""
    return next((one for one in environments[::-1] if one["from_round"] <= round), None)


def record(run: RunDirectory, first: int, more: Mapping[str, Any]) -> None:
    """Writes environment.json for a run that goes on here.

    Those of earlier rounds stay; of rounds that are played again they go.

    Args:
        run: the directory.
        first: the round that comes next.
        more: what the file holds besides, not of an environment.
    """
    now = describe()
    earlier = [
        {key: value for key, value in environment.items() if key not in more}
        for environment in recorded(run)
        if environment["from_round"] < first
    ]
    same = earlier and all(earlier[-1].get(key) == value for key, value in now.items())
    if not same:
        earlier.append({"from_round": first, **now})
    run.write_json(FILE, {**now, **more, "environments": earlier})


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences of two environments that may change last bits, one text each."""
    return [
        f"{key}: {before} -> {after}"
        for key, before, after in _pairs(_telling(old), _telling(new))
        if before != after
    ]


def _telling(found: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that may change last bits."""
    keys = ("python", "platform", "cpu_count", "packages", "backend", "xla_flags")
    telling = {key: found[key] for key in keys if key in found}
    if isinstance(found.get("devices"), list):  # how many there are changes no bit
        telling["devices"] = ", ".join(sorted(set(map(str, found["devices"]))))
    return telling


def _pairs(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key in new:
                yield from _pairs(old[key], new[key], key)
    else:
        yield name, old, new
