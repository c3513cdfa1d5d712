"""How a group's clients are computed: which convolutions, and how many at once.

A strategy is written `lowering:chunk`, as in `winograd:1`; a run's are given by
architecture, as in `cnn1=winograd:1,cnn5=fused:2`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fedjax_mrl import discovery
from fedjax_mrl.ops import conv

_ALONE = ("cpu", "tpu")  # where clients are computed one after another


class Strategy(NamedTuple):
    """One way to compute a group.

    Attributes:
        lowering: of convolutions, see `conv`.
        chunk: clients computed at once on a device; 0 is those of a usual cohort.
    """

    lowering: str
    chunk: int

    def __str__(self) -> str:
        return f"{self.lowering}:{self.chunk}"


def default(lowering: str, chunk: int, backend: str) -> Strategy:
    """The strategy where none is given.

    One client after another. On a CPU caches are small, and a product is fast alone.
    On a TPU, by its compiler's account (docs/accelerators.md), two clients at once take
    no less time than one after the other and twice the memory, and ten compile for more
    than eight times as long; and alone a client's bits do not depend on the others.
    On a GPU one client does not give enough work: those of a usual cohort at once.

    Args:
        lowering: as configured, `auto` chooses.
        chunk: as configured, 0 chooses.
        backend: JAX's name of it, "cpu" for instance.
    """
    return Strategy(conv.resolve(lowering), chunk or int(backend in _ALONE))


def candidates(lowering: str, chunk: int, backend: str) -> list[Strategy]:
    """Strategies that are worth timing, the default first; fixed settings stay."""
    first = default(lowering, chunk, backend)
    names = [n for n in conv.LOWERINGS if n != "auto"] if lowering == "auto" else []
    chunks = [] if chunk else [1] if backend == "cpu" else [0, 1]
    worthwhile = [
        first,
        *(Strategy(name, c) for name in names for c in chunks or [first.chunk]),
        *(Strategy(first.lowering, c) for c in chunks),
    ]
    return list(dict.fromkeys(worthwhile))


def parse(words: Sequence[str], architectures: Iterable[str]) -> dict[str, Strategy]:
    """Reads `architecture=lowering:chunk`, one for each word.

    Raises:
        ValueError: for another form, an architecture that no client has, an unknown
            lowering or a chunk that is no whole number.
    """
    known = list(dict.fromkeys(architectures))
    result = {}
    for word in words:
        name, equals, rest = word.partition("=")
        lowering, colon, chunk = rest.partition(":")
        if not (equals and colon and chunk.isascii() and chunk.isdecimal()):
            raise ValueError(
                "--strategies takes ARCHITECTURE=LOWERING:CHUNK, as in "
                f"cnn1=winograd:1; got {word!r}."
            )
        if name not in known:
            raise ValueError(discovery.unknown("architecture", name, known))
        result[name] = Strategy(conv.resolve(lowering), int(chunk))
    return result


def write(chosen: dict[str, Strategy]) -> tuple[str, ...]:
    """Writes strategies as `parse` reads them."""
    return tuple(f"{name}={strategy}" for name, strategy in chosen.items())
