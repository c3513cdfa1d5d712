"""Pytrees as flat dictionaries of named arrays, to send or to store, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from fedjax_mrl.protocol import Tree


def pack(tree: Tree) -> dict[str, np.ndarray]:
    """Names every array of a pytree by its path.

    Args:
        tree: arrays on the host or on devices; no keys, which never travel.

    Returns:
        Path, such as "extractor/fc1/kernel", to array on the host; () is an empty
        dictionary.

    Raises:
        TypeError: for a leaf that is no array of numbers.

    Example:
        >>> import numpy as np
        >>> import fedjax_mrl as fm
        >>> like = {"header": {"bias": np.ones(2), "kernel": np.ones((3, 2))}}
        >>> named = fm.pack({"header": {"bias": np.zeros(2), "kernel": np.eye(3, 2)}})
        >>> sorted(named)
        ['header/bias', 'header/kernel']
        >>> fm.unpack(named, like=like)["header"]["bias"]
        array([0., 0.])
    """
    named: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = _name(path)
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            raise TypeError(
                f"{name} is a random key, which is not sent: every place derives its "
                "own from seed, round and client."
            )
        array = np.asarray(jax.device_get(leaf))
        if array.dtype == object:
            raise TypeError(f"{name} must be an array of numbers; got {leaf!r}.")
        named[name] = array
    return named


def unpack(named: Mapping[str, np.ndarray], like: Tree) -> Tree:
    """Puts named arrays back into a pytree.

    Args:
        named: as `pack` returns; their order does not matter.
        like: a pytree of the same structure, of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        The pytree with these arrays.

    Raises:
        ValueError: for names that are missing or too many, and for arrays of another
            shape or type.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {_name(path): leaf for path, leaf in leaves}
    missing, extra = wanted.keys() - named.keys(), named.keys() - wanted.keys()
    if missing or extra:
        raise ValueError(
            f"The names must be those of the pytree, but {_some(missing)} are missing "
            f"and {_some(extra)} are too many; was it packed of another model?"
        )
    for name, leaf in wanted.items():
        array = np.asarray(named[name])
        if array.shape != tuple(leaf.shape) or array.dtype != leaf.dtype:
            raise ValueError(
                f"{name} must be {leaf.dtype} {list(leaf.shape)}, but is {array.dtype} "
                f"{list(array.shape)}; was it packed of another model?"
            )
    arrays = [np.asarray(named[name]) for name in wanted]
    return jax.tree_util.tree_unflatten(structure, arrays)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "value"


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = ", ..." if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more if listed else "none"
