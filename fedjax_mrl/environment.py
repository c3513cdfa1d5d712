"""What a result may depend on besides the configuration."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

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
    found = devices()
    return software() | {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in found],
        "x64": bool(jax.config.jax_enable_x64),
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
        'NVIDIA GPUs pip install "fedjax-mrl[cuda]", for TPUs pip install '
        '"fedjax-mrl[tpu]".'
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
