"""The memory that this process has and can still get, as Linux tells it."""

import pathlib
import resource

_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def free(root: str = "/") -> int | None:
    """Bytes that this process can still get; None where the system does not say.

    The least of what the system has and what its control groups, as those of a
    container or of a batch system, leave of their limits.

    Args:
        root: where the file systems lie.
    """
    base = pathlib.Path(root)
    try:
        lines = (base / "proc/meminfo").read_text(encoding="ascii").splitlines()
        entries = dict(line.split(":", 1) for line in lines)
        system = int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return max(0, min([system, *_left_by_groups(base)]))


def _left_by_groups(base: pathlib.Path) -> list[int]:
    try:
        lines = (base / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount, names = base / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            mount, names = base / "sys/fs/cgroup/memory", _V1
        else:
            continue
        folder = mount / path.lstrip("/")
        # A container sees its own group at the root, whatever it is called outside.
        folders = [folder, *folder.parents]
        folders = [f for f in folders if f == mount or mount in f.parents]
        left += [number for f in folders if (number := _left(f, *names)) is not None]
    return left


def _left(folder: pathlib.Path, limit: str, used: str, cache: str) -> int | None:
    """Bytes that a group leaves of its limit; its cached files can be given up."""
    try:
        most, now = ((folder / n).read_text(encoding="ascii") for n in (limit, used))
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        files = dict(line.split() for line in stat).get(cache, "0")
        return int(most) - int(now) + int(files)
    except (OSError, ValueError):  # also "max", which is no limit
        return None
