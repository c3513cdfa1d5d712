"""States of many clients in the memory of the host, made when they are first needed."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np


class Rows:
    """The states of a group's clients, by row.

    Args:
        number: N, of rows.
        fresh: rows [R] -> their first states, [R, ...] on the host. Has to return the
            same whenever it is called.
    """

    def __init__(self, number: int, fresh: Callable[[np.ndarray], Any]) -> None:
        self.number, self._fresh = number, fresh
        leaves, self._structure = jax.tree.flatten(fresh(np.zeros(1, np.int32)))
        self._shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        self._kept: dict[int, list[np.ndarray]] = {}
        self._passed_on = False

    def pass_on(self) -> Self:
        """The same rows for the next state; these must not be used any more."""
        new = copy.copy(self)
        self._passed_on = True
        return new

    def is_deleted(self) -> bool:
        """Whether they were passed on; named as that of a JAX array."""
        return self._passed_on

    def take(self, rows: np.ndarray) -> Any:
        """States [R, ...], copied; zeros for rows past the end."""
        inside = [(place, int(row)) for place, row in enumerate(rows) if self._has(row)]
        touched = self.touched(rows)
        stacks = [np.zeros((len(rows), *shape), dtype) for shape, dtype in self._shapes]
        new = [(place, row) for place, row in inside if not touched[place]]
        if new:
            made = jax.tree.leaves(self._fresh(np.array([row for _, row in new])))
            for stack, leaf in zip(stacks, made, strict=True):
                stack[[place for place, _ in new]] = leaf
        for place, row in inside:
            if touched[place]:
                for stack, leaf in zip(stacks, self._get(row), strict=True):
                    stack[place] = leaf
        return self._structure.unflatten(stacks)

    def put(self, rows: np.ndarray, values: Any) -> None:
        """Keeps states [R, ...]; those for rows past the end are dropped."""
        leaves = jax.tree.leaves(values)
        for place, row in enumerate(rows):
            if self._has(row):
                # Copied: what is returned from a device is freed with its stack.
                self._set(int(row), [np.array(leaf[place]) for leaf in leaves])

    def touched(self, rows: np.ndarray) -> np.ndarray:
        """[R] bool, whether a state was put there."""
        return np.array([int(row) in self._kept for row in rows], bool)

    def save(self, round: int) -> Any:
        """All states [N, ...], for a checkpoint."""
        del round  # all of them are in the checkpoint
        return self.take(np.arange(self.number))

    def place(self, saved: Any) -> "Rows":
        """The rows whose `save` this is."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(saved)]
        self._kept = {row: [leaf[row] for leaf in leaves] for row in range(self.number)}
        return self

    def ahead(self, rows: np.ndarray) -> None:
        """They are in memory already."""

    def forget(self, rounds: Sequence[int]) -> None:
        """Only the newest states are kept anyway."""

    def _has(self, row: int) -> bool:
        return row < self.number

    def _get(self, row: int) -> list[np.ndarray]:
        return self._kept[row]

    def _set(self, row: int, leaves: list[np.ndarray]) -> None:
        self._kept[row] = leaves
