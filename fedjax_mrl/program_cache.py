"""Compiled programs, kept in the user's cache folder for the next process.

JAX keys a program by what it computes, its options and the device. What JAX leaves
out, above all the instructions that this CPU has, is in the name of the folder here, so
that a program is never loaded on a machine that it was not made for. Loading an
executable is running it: a folder that others may write to is not used.
"""

import hashlib
import os
import pathlib
import platform
import stat
import tempfile
import warnings
import zlib

import jax
import jaxlib

_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # the first bytes of what it compressed
LIMIT = 2 * 10**9  # bytes of all programs, unless said otherwise


def use(folder: str | os.PathLike | None = None, *, limit: int = LIMIT) -> str | None:
    """Lets JAX keep compiled programs, and load those of earlier processes.

    A folder that JAX was told of already (`JAX_COMPILATION_CACHE_DIR`) stays in use.

    Args:
        folder: where; by default `fedjax_mrl/programs` in the user's cache folder
            (`XDG_CACHE_HOME`, else `~/.cache`).
        limit: bytes; programs that were not used for longest are removed beyond it.

    Returns:
        Why nothing is kept, in a sentence; None if programs are kept.
    """
    told = lambda name: getattr(jax.config, f"jax_{name}")
    if told("compilation_cache_dir") or not told("enable_compilation_cache"):
        return None
    base = pathlib.Path(folder) if folder is not None else _of_user()
    place = base / _machine()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(base)
        _require_own(place)
        with tempfile.TemporaryFile(dir=place):
            pass
        trim(base, limit)
        drop_damaged(place)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        return (
            f"Compiled programs are not kept, since {place} cannot be used: {reason}."
        )
    # A program that cannot be kept or read is compiled, which needs no word.
    warnings.filterwarnings("ignore", "Error .* persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return None


def trim(base: pathlib.Path, limit: int) -> None:
    """Removes the files that were not used for longest, until the rest fits.

    Args:
        base: the folder; also programs of other versions and machines below it count.
        limit: bytes that may stay.
    """
    found = []
    for path in base.rglob("*-cache"):
        try:
            status = path.stat()
        except OSError:  # another process removes as well
            continue
        used = max(status.st_atime, status.st_mtime)
        found.append((used, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def drop_damaged(place: pathlib.Path) -> None:
    """Removes programs that a full disk or a kill cut short.

    JAX would fail to read each time, and never replace it. Only files that are newer
    than the last look are looked at.

    Args:
        place: the folder of this machine's programs.
    """
    stamp = place / "looked"
    try:
        last = stamp.stat().st_mtime_ns
    except FileNotFoundError:
        last = 0
    new = [path for path in place.glob("*-cache") if path.stat().st_mtime_ns >= last]
    stamp.touch()
    for path in new:
        if not _whole(path.read_bytes()):
            path.unlink(missing_ok=True)


def _whole(data: bytes) -> bool:
    """Whether a file of JAX's is complete, as far as can be told.

    It is compressed by zlib, or by zstandard where that is installed, which is not
    looked into.
    """
    if data.startswith(_ZSTANDARD):
        return True
    reader = zlib.decompressobj()
    try:
        while data and not reader.eof:
            reader.decompress(data, 2**24)
            data = reader.unconsumed_tail
    except zlib.error:
        return False
    return reader.eof


def _of_user() -> pathlib.Path:
    """The user's folder for what can be made again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = (
        pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / ".cache"
    )
    return base / "fedjax_mrl" / "programs"


def _machine() -> str:
    """A name for everything that a program may depend on beside what JAX looks at."""
    known = [
        jax.__version__,
        jaxlib.__version__,
        platform.machine(),
        os.environ.get("XLA_FLAGS", ""),
        os.environ.get("LIBTPU_INIT_ARGS", ""),
        os.environ.get("NPROC", ""),
        *_instructions(),
    ]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def _instructions() -> list[str]:
    """The CPU's name and the instructions that it has, as Linux lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return [platform.processor()]
    wanted = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in lines if line.startswith(wanted)})


def _require_own(folder: pathlib.Path) -> None:
    """Refuses a folder into which others could put programs."""
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RuntimeError("others may write to it")
