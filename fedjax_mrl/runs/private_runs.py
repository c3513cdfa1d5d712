"""Says which runs had differential privacy, below the tables that compare them."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from fedjax_mrl.privacy import account

# The part `privacy` of summary.json, by the name of a method.
Found = tuple[str, Mapping[str, Any]]
_ALONE = (
    "Each epsilon is of one run alone. Runs on the same clients add up, also those "
    "that differ in the seed alone, and these tables are not covered."
)


def read(path: pathlib.Path) -> Mapping[str, Any] | None:
    """What the summary of a run says of privacy; None if nothing, or it is not done."""
    try:
        found = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("privacy") if isinstance(found, dict) else None


def sentences(found: Iterable[Found]) -> list[str]:
    """A sentence for each method and epsilon, and one on what they say together."""
    told = [f"{name}, private: {account.sentence(each)}." for name, each in found]
    return [*dict.fromkeys(told), _ALONE] if told else []


def below(table: str, found: Iterable[Found]) -> str:
    """A table in Markdown, with the sentences below it."""
    return table + "".join(f"\n{text}\n" for text in sentences(found))
