"""Saves and restores the state of a run with orbax. No pickle.

States are stacked by group, so a checkpoint is a few large arrays. Orbax writes
to a temporary name and renames: a checkpoint is complete or absent.
"""

import pathlib

import jax
import orbax.checkpoint as ocp

from fedjax_mrl.rounds import State


class CheckpointError(ValueError):
    """No checkpoint that can be used; the message says what to do."""


def save(folder: pathlib.Path, state: State) -> None:
    """Writes the state after round `state.round`; returns when it is on disk.

    Only the newest is kept, and the older one goes only after the newer is
    complete. Saving a round that is already there does nothing.
    """
    with _manager(folder) as manager:
        if state.round not in manager.all_steps():
            manager.save(state.round, args=ocp.args.StandardSave(_arrays(state)))
            manager.wait_until_finished()


def restore(folder: pathlib.Path, like: State) -> State:
    """Reads the newest checkpoint.

    Args:
        folder: what `save` was given.
        like: a state of the same shapes, or its `jax.eval_shape`.

    Raises:
        CheckpointError: if there is none, or it does not fit `like`.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no checkpoint in {folder}; finish a run with `fedjax-mrl run` "
            "first."
        )
    with _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(
                f"There is no complete checkpoint in {folder}; run it again."
            )
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _arrays(like)
        )
        try:
            arrays = manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"The checkpoint of round {step} in {folder} cannot be read: {reason}"
            ) from None
    return State(step, arrays["server"], arrays["clients"], arrays["copies"])


def _arrays(state: State) -> dict:
    # Empty trees (standalone has nothing to share) need a leaf-free container.
    return {
        "server": state.server,
        "clients": state.clients,
        "copies": state.copies,
    }


def _manager(folder: pathlib.Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    return ocp.CheckpointManager(folder.resolve(), options=options)
