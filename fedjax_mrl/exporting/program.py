"""One client's inference as a program that needs nothing of this package. Pure."""

import functools
from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import numerics
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.protocol import Algorithm, Array, Tree
from fedjax_mrl.simulation import prediction
from fedjax_mrl.simulation.population import Group

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# The lowering of convolutions that has no parts of a kind of device, or of a size.
LOWERING = "native"
_AXIS = "b"  # of the batch, which may have any length

Logits = Callable[[Array], Array]


def inference(
    algorithm: Algorithm,
    group: Group,
    prepare: Callable[[jax.Array, jax.Array], jax.Array],
    networks: tuple[Tree, Tree],
    head: str,
) -> Logits:
    """Closes the inference of a client over its parameters.

    Args:
        algorithm: the method, with convolutions of `LOWERING`.
        group: the client's, likewise.
        prepare: images, index -> network inputs, as for test images.
        networks: the client's private state, and a shared part.
        head: the inference mode.

    Returns:
        A function from examples [B, ...] as stored to logits [B, L].
    """
    logits = prediction.logits_of(algorithm, group, prepare)
    private, shared = jax.tree.map(np.asarray, networks)
    return functools.partial(logits, shared, private, head=head)


def serialise(
    logits: Logits, example: jax.ShapeDtypeStruct, name: str, precision: str
) -> bytes:
    """Compiles a function to a portable program with its parameters in it.

    Its batch may have any length, and it runs on all of `PLATFORMS`. Networks that
    need to know the length are applied to one example after another.

    Args:
        logits: examples [B, ...] -> logits [B, L].
        example: shape and type of one of them, without the batch axis.
        name: of the program, `fun_name` of what `jax.export.deserialize` returns.
        precision: of matrix products, as of `jax.default_matmul_precision`.

    Raises:
        ExportError: for a network that jax.export cannot take.
    """

    def each(x: Array) -> Array:
        return jax.vmap(lambda one: logits(one[None])[0])(x)

    (length,) = jax.export.symbolic_shape(_AXIS)
    batch = jax.ShapeDtypeStruct((length, *example.shape), example.dtype)
    failed: Exception | None = None
    for function in (logits, each):
        whole = lambda x, function=function: function(jnp.asarray(x))
        whole.__name__ = whole.__qualname__ = name
        try:
            with numerics.fixed(precision):
                made = jax.export.export(jax.jit(whole), platforms=PLATFORMS)(batch)
            return bytes(made.serialize())
        except Exception as error:  # whatever a user's own network raises
            failed = error
    reason = " ".join(str(failed).split())[:300]
    raise ExportError(
        "jax.export cannot take this network "
        f"({type(failed).__name__}: {reason}). Its parameters can be exported all the "
        "same, with --format safetensors."
    ) from failed


def restore(content: bytes) -> Logits:
    """The program that `serialise` made, compiled for the device there is.

    Raises:
        ExportError: if it is none, or of a version of JAX that this one cannot read,
            or cannot run on this kind of device.
    """
    try:
        made = jax.export.deserialize(bytearray(content))
    except Exception as error:  # damage has no closed list of what it makes it raise
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"The program cannot be read by jax {jax.__version__} "
            f"({type(error).__name__}: {reason}); export the model again with it."
        ) from error
    here = jax.default_backend()
    here = "cuda" if here == "gpu" else here
    if here not in made.platforms:
        raise ExportError(
            f"The program runs on {', '.join(made.platforms)}, but JAX computes on "
            f"{here} here; set JAX_PLATFORMS=cpu."
        )
    return jax.jit(made.call)
