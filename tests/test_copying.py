"""Large arrays on the host: their rows, arrays that JAX uses as they are, threads."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from fedjax_mrl import copying


def test_rows_of_an_array_that_is_split_over_devices_are_in_order_and_uncopied():
    code = """
import jax, numpy as np
from fedjax_mrl import copying, sharding
mesh = sharding.mesh(2)
stack = np.arange(4 * 1000.0, dtype=np.float32).reshape(4, 1000)
split = jax.device_put(stack, sharding.over_clients(mesh))
for array in (split, jax.device_put(stack, sharding.everywhere(mesh)), stack):
    assert (np.stack(copying.rows(array)) == stack).all()
shards = split.addressable_shards
first, second = (shard.data.unsafe_buffer_pointer() for shard in shards)
found = [row.ctypes.data for row in copying.rows(split)]
assert found == [first, first + 4000, second, second + 4000]
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(3, 1000), (7,), (0, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_zeros_are_put_on_a_cpu_without_a_copy(shape, dtype):
    made = copying.zeros(shape, np.dtype(dtype))
    assert made.shape == shape
    assert made.dtype == dtype
    assert not made.any()
    if made.size:
        put = jax.device_put(made)
        assert put.unsafe_buffer_pointer() == made.ctypes.data


@pytest.mark.parametrize("size", [0, 2**30])  # in this thread, in several
def test_calls_are_made_in_order_and_an_error_is_raised(size):
    found = copying.on_all_cores(lambda a, b: (a, b), size, range(5), "abcde")
    assert found == list(zip(range(5), "abcde", strict=True))

    def fail(number):
        raise OSError(f"no {number}")

    with pytest.raises(OSError, match="no 3"):
        copying.on_all_cores(fail, size, [3])
