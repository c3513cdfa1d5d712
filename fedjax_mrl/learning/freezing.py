"""Networks of which a part stays as it is while the rest is trained.

What stays is told by identity: the very arrays that a client received. So it does not
matter in which of its networks, and where in it, a method puts them.
"""

import jax

from fedjax_mrl.protocol import Tree


def part(networks: Tree, frozen: Tree) -> tuple[Tree, Tree]:
    """Parts networks into what is trained and what stays.

    Args:
        networks: a pytree.
        frozen: a pytree whose leaves stay where they occur in `networks`; None for
            nothing.

    Returns:
        Both of the structure of `networks`, with None for every leaf of the other; the
        second one is None if nothing stays.
    """
    held = {id(leaf) for leaf in jax.tree.leaves(frozen)}
    if not held:
        return networks, None
    only = lambda stays: jax.tree.map(
        lambda leaf: leaf if (id(leaf) in held) == stays else None, networks
    )
    return only(False), only(True)


def join(trained: Tree, fixed: Tree) -> Tree:
    """The networks that `part` parted."""
    if fixed is None:
        return trained
    either = lambda one, other: other if one is None else one
    return jax.tree.map(either, trained, fixed, is_leaf=lambda leaf: leaf is None)


def same(one: Tree, other: Tree) -> bool:
    """Whether two pytrees of one structure hold the very same arrays."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a is b for a, b in pairs)
