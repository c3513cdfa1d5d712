"""Whether two machines run one federation: the options that enter the numbers."""

import json
import pathlib
from typing import Any

from fedjax_mrl import references
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
    """The options that must be the same on every machine.

    Files of the user's may lie elsewhere on another one: of code it is the text that
    must be the same, and data are every machine's own matter.
    """
    known = json.loads(config.to_json())
    sums = references.checksums(config.code)

    def known_as(value: Any) -> Any:
        if isinstance(value, list):
            return [known_as(one) for one in value]
        if isinstance(value, str) and value in sums:
            return f"{references.short(value)} of sha256 {sums[value][:16]}"
        return value

    told = {name: known_as(value) for name, value in known.items() if name not in LOCAL}
    if references.is_data_path(config.dataset):
        told["dataset"] = pathlib.PurePath(config.dataset).name
    return told


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The options that differ, one text each: here -> there."""
    names = sorted(here.keys() | there.keys())
    return [
        f"{name}: {here.get(name)!r} here, {there.get(name)!r} at the server"
        for name in names
        if here.get(name) != there.get(name)
    ]
