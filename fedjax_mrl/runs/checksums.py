"""Whether the data and the own code of a run are still those that it began with."""

import json
from typing import Any

from fedjax_mrl import references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs.directory import RunDirectory


def recorded(run: RunDirectory) -> dict[str, Any]:
    """What environment.json says of data and code; nothing if it cannot be read.

    A run that was killed early has none, nor has one of an earlier version.
    """
    try:
        found = json.loads(run.read_text("environment.json"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def same_data(sums: dict[str, Any], sha256: str | None) -> bool:
    """Whether data with a checksum are the run's; taken so where that is not known.

    Args:
        sums: as of `recorded`.
        sha256: of the data now; None if they are not loaded.
    """
    return sha256 is None or sums.get("data_sha256") in (None, sha256)


def changed_code(sums: dict[str, Any], config: RunConfig) -> str | None:
    """The first reference of a configuration whose file is another one by now, or None.

    Args:
        sums: as of `recorded`.
        config: of the run.

    Raises:
        CodeError: if a file cannot be read.
    """
    known = sums.get("code_sha256")
    known = known if isinstance(known, dict) else {}
    for name in config.code:
        if known.get(name) not in (None, references.checksum(name)):
            return name
    return None
