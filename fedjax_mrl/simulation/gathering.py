"""Gathers the reports of a cohort in its order, wave by wave.

The sum over uploads then has one order, whatever groups, waves and devices there are.
Uploads that do not count are zeros, since a weight of zero does not stop a NaN.

The CPU devices of one process share its memory. There the rows are copied once, to
where they stay, and the server works on the first device: as many copies as there are
devices, and a step on each of them, would take several times as long.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from fedjax_mrl import copying, sharding, tree
from fedjax_mrl.protocol import Tree
from fedjax_mrl.simulation.visit import Report


class Gatherer(Protocol):
    """Gathers reports.

    Attributes:
        place: where they are then, and where the server works.
    """

    place: Sharding

    def add(
        self, gathered: Any, places: np.ndarray, counts: np.ndarray, report: Report
    ) -> Any:
        """Adds the reports of a wave.

        Args:
            gathered: what `add` returned for the wave before, consumed; None at first.
            places: [R] in the cohort, past the end for nobody.
            counts: [R] bool, whether an upload has a weight.
            report: [R, ...], of NumPy or split over the devices.
        """
        ...

    def done(self, gathered: Any) -> Report:
        """The reports [K, ...]; zeros for members that none came of."""
        ...


def make(cohort_size: int, reject: bool, mesh: Mesh) -> Gatherer:
    """Makes the gatherer that suits the devices.

    Args:
        cohort_size: K.
        reject: whether uploads that are not sound do not count.
        mesh: devices.
    """
    kind = InMemory if in_memory(mesh) else OnDevices
    return kind(cohort_size, reject, mesh)


def in_memory(mesh: Mesh) -> bool:
    """Whether all devices share the memory of this process."""
    return jax.process_count() == 1 and mesh.devices.flat[0].platform == "cpu"


class _Stacks(NamedTuple):
    """What `InMemory` has gathered."""

    arrays: Any  # a Report [K, ...], keys of random numbers as their data
    keys: Any  # likewise, of each leaf how its keys are made; "" if it has none


class InMemory:
    """For CPU devices of one process; arguments as of `make`. Waits for the wave."""

    def __init__(self, cohort_size: int, reject: bool, mesh: Mesh) -> None:
        self._size, self._reject = cohort_size, reject
        self.place: Sharding = SingleDeviceSharding(mesh.devices.flat[0])

    def add(
        self, gathered: Any, places: np.ndarray, counts: np.ndarray, report: Report
    ) -> Any:
        """See `Gatherer.add`; `gathered` has the arrays of `done`, which it fills."""
        keys = jax.tree.map(_kind_of_key, report)
        report = jax.tree.map(_data, report)
        if gathered is None:
            make = lambda leaf: copying.zeros((self._size, *leaf.shape[1:]), leaf.dtype)
            gathered = _Stacks(jax.tree.map(make, report), keys)
        stacks = gathered.arrays
        _require_alike(stacks, report)
        there = places < self._size
        counted = there & counts
        if self._reject:
            counted &= np.asarray(report.sound)
        self._fill(stacks.upload, report.upload, places, np.flatnonzero(counted))
        rest, values = (each._replace(upload=()) for each in (stacks, report))
        self._fill(rest, values, places, np.flatnonzero(there))
        return gathered

    def done(self, gathered: Any) -> Report:
        """See `Gatherer.done`."""
        put = jax.device_put(gathered.arrays, self.place)
        wrap = lambda leaf, kind: (
            jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf
        )
        return jax.tree.map(wrap, put, gathered.keys)

    def _fill(self, stacks: Tree, values: Tree, places: np.ndarray, rows: Any) -> None:
        """Copies some rows of the values to their places in the stacks."""

        def copy(stack: np.ndarray, found: Sequence[np.ndarray], row: int) -> None:
            stack[places[row]] = found[row]

        leaves = [(leaf, copying.rows(leaf)) for leaf in jax.tree.leaves(values)]
        jobs = [
            (stack, found, int(row))
            for stack, (_, found) in zip(jax.tree.leaves(stacks), leaves, strict=True)
            for row in rows
        ]
        size = sum(leaf.nbytes for leaf, _ in leaves)
        copying.on_all_cores(copy, size, *zip(*jobs, strict=True))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind_of_key(leaf: Any) -> str:
    return str(jax.random.key_impl(leaf)) if _is_key(leaf) else ""


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _require_alike(stacks: Report, report: Report) -> None:
    """Refuses reports that are not like those of other clients.

    Raises:
        ValueError: for other names, shapes of a client or types.
    """
    of = lambda leaf: f"{leaf.dtype}{list(leaf.shape[1:])}"
    there, new = (
        {jax.tree_util.keystr(path): of(leaf) for path, leaf in found}
        for found in map(jax.tree_util.tree_leaves_with_path, (stacks, report))
    )
    for name in sorted(there.keys() | new.keys()):
        if there.get(name) != new.get(name):
            raise ValueError(
                "What clients report must be alike, whatever their architecture: "
                f"uploads and metrics of the same names, shapes and types. {name} is "
                f"{there.get(name, 'missing')} for some clients and "
                f"{new.get(name, 'missing')} for others."
            )


class OnDevices:
    """For other devices, and for several processes: every device has all reports."""

    def __init__(self, cohort_size: int, reject: bool, mesh: Mesh) -> None:
        self.place: Sharding = sharding.everywhere(mesh)

        def put(stacks: Report, places, counts, report: Report) -> Report:
            counts = counts & report.sound if reject else counts
            rows = lambda leaf: counts.reshape((-1,) + (1,) * (leaf.ndim - 1))
            upload = jax.tree.map(
                lambda leaf: jnp.where(rows(leaf), leaf, jnp.zeros((), leaf.dtype)),
                report.upload,
            )
            return tree.put(stacks, places, report._replace(upload=upload))

        def first(places, counts, report: Report) -> Report:
            empty = lambda leaf: jnp.zeros((cohort_size, *leaf.shape[1:]), leaf.dtype)
            return put(jax.tree.map(empty, report), places, counts, report)

        self._first = jax.jit(first, out_shardings=self.place)
        self._add = jax.jit(put, donate_argnums=0, out_shardings=self.place)

    def add(
        self, gathered: Any, places: np.ndarray, counts: np.ndarray, report: Report
    ) -> Any:
        """See `Gatherer.add`."""
        # To every device first: within a program that takes longer.
        report = jax.device_put(report, self.place)
        if gathered is None:
            return self._first(places, counts, report)
        _require_alike(gathered, report)
        return self._add(gathered, places, counts, report)

    def done(self, gathered: Any) -> Report:
        """See `Gatherer.done`; nothing is left to do."""
        return gathered
