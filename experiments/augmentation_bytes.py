"""What a TPU's compiler counts for augmenting images, stored plainly and packed.

    .venv/bin/python -m experiments.augmentation_bytes [--target v5e]

Compiles the training preparation of two clients' minibatches of 512 images of CIFAR-10
for a chip that is not here (`.[tpu]`), and prints bytes accessed, the compiler's own
estimate of the time and temporary memory. A model of the compiler, not a measurement.
"""

import argparse
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_mrl import sharding
from fedjax_mrl.data import images
from fedjax_mrl.planning import target

CLIENTS, BATCH, SHAPE = 2, 512, (32, 32, 3)
STORED = {"plain": (50_000, *SHAPE), "packed": (50_000, 32 * 32 * 3)}


def main(words: Sequence[str] | None = None) -> None:
    """Compiles both and prints a line for each."""
    parser = argparse.ArgumentParser(prog="experiments.augmentation_bytes")
    parser.add_argument("--target", default="v5e")
    args = parser.parse_args(words)
    jax.config.update("jax_platforms", "cpu")
    whole = sharding.everywhere(target.mesh(target.parse(args.target)))
    prepare = images.prepare((0.5,) * 3, (0.25,) * 3, "flip_erase_crop", shape=SHAPE)

    def augment(key, x, index):
        return prepare.train(jax.random.wrap_key_data(key), x, index)

    program = jax.jit(
        jax.vmap(augment, in_axes=(0, None, 0)),
        in_shardings=whole,
        out_shardings=whole,
    )
    of = jax.ShapeDtypeStruct
    keys, index = of((CLIENTS, 2), jnp.uint32), of((CLIENTS, BATCH), jnp.int32)
    for name, shape in STORED.items():
        started = time.perf_counter()
        made = program.lower(keys, of(shape, jnp.uint8), index).compile()
        seconds = time.perf_counter() - started
        cost, memory = made.cost_analysis(), made.memory_analysis()
        print(
            f"{name:7} {cost['bytes accessed'] / 1e9:7.3f} GB accessed, "
            f"{1e3 * cost['optimal_seconds']:6.2f} ms by the compiler, "
            f"{memory.temp_size_in_bytes / 1e6:4.0f} MB temporary, "
            f"{seconds:.0f} s to compile"
        )


if __name__ == "__main__":
    main()
