"""Whether two machines run the same federation: the options that enter the numbers."""

import hashlib
import json
from typing import Any

from fedjax_mrl.config import RunConfig

# How a run is carried out and recorded on a machine, which is its own matter.
LOCAL = (
    "data_dir",
    "devices",
    "client_store",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "digest_every",
)


def options(config: RunConfig) -> dict[str, Any]:
    """The options that must be the same on every machine."""
    known = json.loads(config.to_json())
    return {name: value for name, value in known.items() if name not in LOCAL}


def fingerprint(config: RunConfig) -> str:
    """SHA-256 of these options, in hex."""
    text = json.dumps(options(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The options that differ, one text each: here -> there."""
    names = sorted(here.keys() | there.keys())
    return [
        f"{name}: {here.get(name)!r} here, {there.get(name)!r} at the server"
        for name in names
        if here.get(name) != there.get(name)
    ]
